"""report.html: every number and every text of the records, as text; nothing runs but the two scripts it names."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from plimsoll.core.dossier import Dossier
from plimsoll.report import page
from plimsoll.report.page.capacity import Traffic
from plimsoll.report.words import delta, number

Make = Callable[..., Dossier]

ATTACK = ('<script>alert(1)</script></script><!--<script> "double" \'single\' &amp; <img src=x onerror=alert(2)> '
          "{{ 7*7 }} javascript:alert(3) \x1b[31mred\x1b[0m \u202etfel")
SHOWN = ATTACK.replace("\x1b", "\ufffd").replace("\u202e", "\ufffd")


class Read(HTMLParser):
    """The page as a browser reads it: its elements, its text, and what stands in each script."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag
        self.text += " "
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data

    @property
    def records(self) -> dict[str, Any]:
        return json.loads(self.scripts[0])


def test_markup_is_text_in_every_place_that_holds_words_of_others(make: Make) -> None:
    asked: list[str] = []

    def words(name: str) -> str:
        asked.append(name)
        return f"[{name}] {ATTACK}"

    written = page.write(make(words, met=False))
    read = Read(written)
    assert [tag for tag, _ in read.tags if tag in ("script", "img", "iframe", "object", "link", "base")] == [
        "link", "script", "script", "script"]
    assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
    assert written.count("</script") == 3
    assert "\x1b" not in written
    assert "\u202e" not in written
    everything = read.text + json.dumps(read.records, ensure_ascii=False)
    for name in set(asked) - {"evaluated"}:
        assert f"[{name}]" in everything, name
    said = read.records["trials"]["null-0001"]["says"]
    assert f"[file1] {SHOWN}" in said
    assert f"[why] {SHOWN}" in read.text
    assert f"[text-lost] {SHOWN}" in read.text


def test_only_the_scripts_that_the_policy_names_may_run_and_nothing_may_be_fetched(make: Make) -> None:
    read = Read(page.write(make()))
    policy = next(a["content"] for tag, a in read.tags if tag == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy
    allowed = re.findall(r"sha256-([^']+)'", policy)
    code = read.scripts[1:]
    assert [base64.b64encode(hashlib.sha256(c.encode()).digest()).decode() for c in code] == allowed
    addresses = [v for _, a in read.tags for k, v in a.items() if k in ("src", "href") and v]
    assert all(a.startswith(("#", "data:,")) for a in addresses)


def test_the_first_screen_has_the_verdict_and_the_three_numbers_with_their_bounds(make: Make) -> None:
    head = page.write(make()).partition("<main>")[0]
    for words in ("Met", "Every limit holds", "12.00", "11.40 to 12.60, n=2,000", "1.10", "−0.20", "-0.30 to -0.10",
                  "10.91x", "finetune &gt; augment file1"):
        assert words in head, words


def test_each_limit_stands_beside_its_bound_and_what_is_left(make: Make) -> None:
    dossier = make(met=False)
    three = dossier.decision.three_numbers
    assert three is not None
    text = " ".join(Read(page.write(dossier)).text.split())
    assert "Not met. The nearest miss is handed over." in text
    assert f"p95 at most 2 ms {number(three.optimized_p95_ms)} holds 0.845 ms to spare" in text
    assert f"quality drop at most 0.1 points {delta(three.quality_delta)} broken 0.2 points too much" in text
    assert "What stood in the way" in text
    assert "relaxing" in text


def test_every_rejected_recipe_is_there_with_state_reason_and_evidence(make: Make) -> None:
    dossier = make()
    read = Read(page.write(dossier))
    for r in dossier.decision.rejected:
        assert r.reason in read.text
        assert r.evidence in read.text
        panel = read.records["trials"][r.trial]
        assert (panel["state"], panel["why"]) == (r.state, r.reason)
    assert ["p95", "1.30 ms (1.24 to 1.36, n=2,000)"] in read.records["trials"]["null-0003"]["numbers"]
    assert "traceback4" in read.records["trials"]["null-0004"]["traceback"]


def test_private_rows_leave_neither_text_nor_label(make: Make) -> None:
    private = ("text-lost", "text-gained", "label-a", "label-b", "label-c", "label-d", "class-name-0", "class-name-8",
               "traceback4")
    shown, hidden = page.write(make()), page.write(make(), rows=False)
    assert all(p in shown for p in private)
    assert not [p for p in private if p in hidden]
    assert "2 lost, 1 gained" in hidden
    assert "class 9" in hidden
    assert "evaluation.json names them" in hidden


def test_three_hundred_trials_weigh_less_than_five_megabytes(make: Make) -> None:
    written = page.write(make(lambda name: f"{name} and some more words that a real record has", trials=300))
    assert len(written.encode()) < 5_000_000
    assert len(Read(written).records["trials"]) == 300


def test_a_limit_that_was_ruled_out_makes_a_page_of_its_own(ruled_out: Dossier) -> None:
    read = Read(page.write(ruled_out))
    for words in ("Nothing can hold the limits here", "cannot be held here", "the smallest model there is",
                  "p95_ms = 0.21 would leave room", "not measured", "Not profiled", "Not evaluated", "kept no log",
                  "kept no timings", "No other recipe"):
        assert words in read.text
    assert read.records["charts"] == {}
    assert "None" not in read.text


@pytest.mark.parametrize("part", ["evaluation", "comparison", "profiles", "latencies_ms", "log", "trials"])
def test_what_a_run_did_not_leave_is_left_out(part: str, make: Make) -> None:
    whole = make()
    empty: Any = None if part in ("evaluation", "comparison") else {} if part in ("profiles", "latencies_ms") else ()
    read = Read(page.write(whole.model_copy(update={part: empty})))
    gone = {"evaluation": "by-class", "profiles": "roofline", "latencies_ms": "latencies", "log": "timeline",
            "trials": "as-tried"}
    assert set(Read(page.write(whole)).records["charts"]) >= set(gone.values())
    assert gone.get(part) not in read.records["charts"]
    assert len(read.records["trials"]) == 10
    assert ("Ways to tune" in read.text) == (part != "comparison")


def test_infinite_bounds_have_no_place_in_json_and_are_said_in_words(make: Make) -> None:
    whole = make()
    chosen = whole.decision.chosen
    assert chosen is not None
    p99 = chosen.latency_ms.p99.model_copy(update={"high": float("inf")})
    loose = chosen.model_copy(update={"latency_ms": chosen.latency_ms.model_copy(update={"p99": p99})})
    read = Read(page.write(whole.model_copy(
        update={"decision": whole.decision.model_copy(update={"chosen": loose})})))
    assert "unbounded" in read.text
    assert "Infinity" not in read.scripts[0]


def test_traffic_and_prices_of_the_call_fill_in_the_form(make: Make) -> None:
    fields = {a["name"]: a.get("value") for tag, a in Read(page.write(
        make(), traffic=Traffic(500, 0.25))).tags if tag == "input" and a.get("type") == "number"}
    assert fields == {"requests": "500", "cores": "", "price": "0.25", "use": "60"}


def test_headings_are_in_order_and_every_table_has_a_caption(make: Make) -> None:
    read = Read(page.write(make(met=False)))
    levels = [int(tag[1]) for tag, _ in read.tags if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    tags = [tag for tag, _ in read.tags]
    assert tags.count("table") == tags.count("caption")
    assert {"header", "nav", "main", "footer", "aside"} <= set(tags)
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(ids) == len(set(ids))
    charts = read.records["charts"]
    assert all(spec["description"] for spec in charts.values())


def test_it_is_kept_in_a_folder_or_as_a_file(make: Make, tmp_path: Path) -> None:
    assert page.keep(make(), tmp_path) == tmp_path / "report.html"
    named = page.keep(make(), tmp_path / "new" / "page.html", rows=False)
    assert "text-lost" not in named.read_text()
    assert "text-lost" in (tmp_path / "report.html").read_text()
