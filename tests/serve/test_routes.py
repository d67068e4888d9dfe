"""Every endpoint says what it is asked for, and says no in a way that can be acted on."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.artifact import load
from plimsoll.serve.metrics import STAGES
from plimsoll.testing.server import Running, settings_of, write_artifact

INFER = {"inputs": [{"name": "text", "shape": [2], "datatype": "BYTES", "data": ["w1 music", "light"]}]}


def test_predict_answers_as_the_artifact_does_and_names_its_version(served: Running, artifact: Path) -> None:
    texts = ["w1 music", "light", "w2 w3 weather"]
    reply = served.ask("POST", "/predict", {"texts": texts})
    assert reply.status == 200
    with load(artifact) as predictor:
        assert reply.json["predictions"] == [answer.record() for answer in predictor.predict(texts)]
    assert re.fullmatch(r"[0-9a-f]{16}", reply.json["version"])


def test_a_response_says_where_its_time_went(served: Running) -> None:
    line = served.ask("POST", "/predict", {"texts": ["light"]}).headers["server-timing"]
    found = dict(re.findall(r"(\w+);dur=([0-9.]+)", line))
    assert tuple(found) == STAGES
    assert float(found["compute"]) > 0


def test_many_texts_are_answered_in_their_order(served: Running) -> None:
    words = [("light", "music", "weather")[i % 3] for i in range(100)]
    reply = served.ask("POST", "/predict", {"texts": [f"{'w1 ' * (i % 30)}{word}" for i, word in enumerate(words)]})
    assert [p["label"] for p in reply.json["predictions"]] == words


@pytest.mark.parametrize(("body", "status", "code"), [
    (b"", 400, "bad_json"),
    (b"[", 400, "bad_json"),
    (b'{"texts": "a"}', 400, "bad_json"),
    (b'{"texts": [1]}', 400, "bad_json"),
    (b'{"texts": ["a"], "more": 1}', 400, "bad_json"),
    (b'{"texts": ["\\ud800"]}', 400, "bad_json"),
    (b'{"texts": ["\xff"]}', 400, "bad_json"),
    (b'{"texts": ' + b"[" * 5000, 400, "bad_json"),
    (b'{"texts": []}', 400, "bad_request"),
    (b'{"texts": ["", "a"]}', 400, "bad_text"),
    (b'{"texts": [" \\n"]}', 400, "bad_text"),
    (b'{"texts": ["a\\u001fb"]}', 400, "bad_text"),
    (b'{"texts": [["a", "b"]]}', 400, "bad_text"),
    (json.dumps({"texts": ["a"] * 101}).encode(), 413, "too_large"),
    (json.dumps({"texts": ["a" * 1001]}).encode(), 413, "too_large"),
])
def test_what_is_no_question_is_refused(served: Running, body: bytes, status: int, code: str) -> None:
    reply = served.ask("POST", "/predict", body)
    assert (reply.status, reply.json["error"]["code"]) == (status, code)
    assert reply.json["error"]["message"]


@pytest.mark.parametrize("text", ["a\u0000b", "\u200b", "é" * 500, "😀", "</script>", "w1\nmusic"])
def test_odd_texts_are_answered(served: Running, text: str) -> None:
    assert served.ask("POST", "/predict", {"texts": [text]}).status == 200


@pytest.mark.parametrize("deadline", ["0", "-1", "nan", "inf", "soon", "1e99"])
def test_a_deadline_is_a_number_of_milliseconds(served: Running, deadline: str) -> None:
    reply = served.ask("POST", "/predict", {"texts": ["light"]}, {"Plimsoll-Deadline-Ms": deadline})
    assert (reply.status, reply.json["error"]["code"]) == (400, "bad_request")


def test_a_deadline_that_cannot_be_met_is_refused_with_a_time_to_come_back(served: Running) -> None:
    reply = served.ask("POST", "/predict", {"texts": ["light"]}, {"Plimsoll-Deadline-Ms": "0.001"})
    assert (reply.status, reply.json["error"]["code"]) == (429, "deadline")
    assert int(reply.headers["retry-after"]) >= 1
    assert float(reply.headers["retry-after-ms"]) == reply.json["error"]["retry_after_ms"]


def test_the_protocol_describes_and_answers(served: Running) -> None:
    model = served.ask("GET", "/v2/models/tiny").json
    assert model["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1]}]
    assert [o["name"] for o in model["outputs"]] == ["label", "probability", "logits"]
    reply = served.ask("POST", "/v2/models/tiny/infer", {**INFER, "id": "7", "parameters": {"a": [1]}}).json
    assert (reply["model_name"], reply["model_version"], reply["id"]) == ("tiny", model["versions"][0], "7")
    found = {o["name"]: o for o in reply["outputs"]}
    assert (found["label"]["data"], found["label"]["shape"]) == (["music", "light"], [2])
    assert found["logits"]["shape"] == [2, 3]
    assert found["logits"]["data"] == [0, 1, 0, 1, 0, 0]
    assert all(0.5 < p < 1 for p in found["probability"]["data"])
    named = f"/v2/models/tiny/versions/{model['versions'][0]}"
    assert served.ask("GET", f"{named}/ready").json == {"ready": True}
    one = served.ask("POST", f"{named}/infer", {**INFER, "outputs": [{"name": "label"}]}).json
    assert [o["name"] for o in one["outputs"]] == ["label"]


def changed(**fields: Any) -> dict[str, Any]:
    return {"inputs": [{**INFER["inputs"][0], **fields}]}


@pytest.mark.parametrize(("body", "says"), [
    (changed(name="txt"), 'named "text"'),
    (changed(datatype="FP32"), "BYTES"),
    (changed(shape=[3]), r"shape \[3\]"),
    (changed(shape=[2, 2]), "shape"),
    (changed(shape=[-1]), "shape"),
    (changed(shape=[10**30]), "do not have the shape"),
    (changed(data=[1, 2]), "not what is asked for"),
    ({"inputs": []}, "one input"),
    ({**INFER, "outputs": [{"name": "lable"}]}, 'did you mean "label"'),
    ({**INFER, "outputs": [{"name": "label"}, {"name": "label"}]}, "once"),
    ({**INFER, "outputs": []}, "at least one"),
])
def test_what_is_no_inference_request_is_refused_in_the_protocols_words(
    served: Running, body: dict[str, Any], says: str
) -> None:
    reply = served.ask("POST", "/v2/models/tiny/infer", body)
    assert reply.status == 400
    assert re.search(says, reply.json["error"])


@pytest.mark.parametrize(("method", "path", "status", "says"), [
    ("GET", "/predikt", 404, 'did you mean "/predict"'),
    ("GET", "/predict", 405, "POST"),
    ("DELETE", "/metrics", 405, "GET"),
    ("GET", "/v2/models/other", 404, "the one here is tiny"),
    ("GET", "/v2/models/tiny/versions/1", 404, "the version in service is"),
    ("GET", "/v2/models/..%2f..%2fetc%2fpasswd", 404, "no such model"),
    ("GET", "/../../etc/passwd", 404, "nothing here"),
    ("GET", "/%00%ff", 404, "nothing here"),
])
def test_where_nothing_is_says_what_is(served: Running, method: str, path: str, status: int, says: str) -> None:
    reply = served.ask(method, path)
    assert reply.status == status
    assert says in reply.body.decode().replace('\\"', '"')


def test_health_is_well_when_it_is(served: Running) -> None:
    assert served.ask("GET", "/v2/health/live").status == 200
    assert served.ask("GET", "/v2/health/ready").json == {"ready": True}
    assert served.ask("GET", "/v2/models/tiny/ready").status == 200
    assert served.ask("GET", "/v2").json["name"] == "plimsoll"


def test_the_metrics_count_what_happened(served: Running) -> None:
    def read() -> dict[str, float]:
        lines = served.ask("GET", "/metrics").body.decode().splitlines()
        return {k: float(v) for k, _, v in (line.rpartition(" ") for line in lines if not line.startswith("#"))}

    before = read()
    served.ask("POST", "/predict", {"texts": ["light", "music"]})
    after = read()

    def grew(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert grew('plimsoll_responses_total{route="predict",status="200"}') == 1
    assert grew("plimsoll_rows_total") == 2
    assert grew("plimsoll_request_seconds_count") == 1
    assert sum(grew(name) for name in after if name.startswith("plimsoll_batches_total")) >= 1
    assert after["plimsoll_ready"] == 1
    assert after["plimsoll_worker_resident_bytes"] > 2**20
    assert {f'plimsoll_stage_seconds_count{{stage="{stage}"}}' for stage in STAGES} <= set(after)


def test_the_description_names_every_endpoint_and_is_a_page_without_a_network(served: Running) -> None:
    described = served.ask("GET", "/openapi.json").json
    for path, methods in described["paths"].items():
        for method in methods:
            body = {"/predict": {"texts": ["light"]}}.get(path, INFER if path.endswith("infer") else None)
            assert served.ask(method.upper(), path, body).status == 200, path
    page = served.ask("GET", "/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "POST /predict" in re.sub(r"<[^>]+>", "", page.body.decode())
    assert not re.search(r"(?:src|href)=\"?(?:https?:)?//", page.body.decode())


def test_markup_in_labels_is_text_on_the_page(tmp_path: Path) -> None:
    labels = ("<script>alert(1)</script>", "music", "weather")
    write_artifact(tmp_path / "x" / "artifact", labels=labels)
    with Running(settings_of(tmp_path / "x")) as running:
        assert b"<script" not in running.ask("GET", "/").body
        assert running.ask("POST", "/predict", {"texts": ["light"]}).json["predictions"][0]["label"] == labels[0]


def test_tags_come_for_texts_and_for_lists_of_words(tmp_path: Path) -> None:
    from plimsoll.tasks.token_classification import TokenClassification

    task = TokenClassification(train="rows.jsonl")
    write_artifact(tmp_path / "x" / "artifact", labels=("O", "B-place", "I-place"), task=task)
    with Running(settings_of(tmp_path / "x")) as running:
        said = running.ask("POST", "/predict", {"texts": ["x  y light", ["x", "y"], "music"]}).json["predictions"]
        assert [one["words"] for one in said] == [["x", "y", "light"], ["x", "y"], ["music"]]
        assert said[0]["tags"] == ["B-place", "I-place", "O"]
        assert said[0]["entities"][0]["text"] == "x y"
        reply = running.ask("POST", "/v2/models/tiny/infer", INFER).json
        assert json.loads(reply["outputs"][0]["data"][0])["words"] == ["w1", "music"]
        assert running.ask("POST", "/predict", {"texts": [["a b"]]}).status == 400
