"""A finished run to what its contest needs: the two artifacts of ours, the rows, and the folder every peer is given."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np

from plimsoll.core.artifact import file_digest
from plimsoll.core.decision import Decision, Side
from plimsoll.core.errors import RunError
from plimsoll.core.record import digest
from plimsoll.core.spec import Spec
from plimsoll.core.store import Store
from plimsoll.core.trial import Trial
from plimsoll.data.dataset import Dataset, measure_lengths
from plimsoll.search.run import SPEC_RECORD
from plimsoll.train import buckets, encoder, export

_CALIBRATION_ROWS = 2000
_STATIC_LENGTHS = 8


@dataclass(frozen=True)
class Finished:
    """A run that came to its decision."""

    decision: Decision
    sides: tuple[Side, Side]
    """The baseline and the chosen artifact, as they were measured in the run."""
    baseline: Path
    """The artifact of eager PyTorch in fp32: the weights every peer gets."""
    chosen: Path
    data: Path
    """The folder of the prepared splits, as jsonl."""
    dataset: Dataset
    threads: int

    @property
    def tokenizer(self) -> Path:
        return self.baseline / "tokenizer.json"


def finished(run: Path) -> Finished:
    """Return the run of a folder; raises RunError when it did not end, or when what it made is gone."""
    decision = Decision.from_file(run / "decision.json")
    if decision.baseline is None or decision.chosen is None:
        raise RunError(f"{run} chose nothing: {decision.why}", "give a run that delivered an artifact")
    opened = json.loads((run / SPEC_RECORD).read_text())
    spec = Spec.parse(opened["spec"])
    store = Store(run.parent / ".store").root
    # the key under which `search.tune.prepared` keeps the splits
    settings = {"task": spec.task.model_dump(mode="json"), "seed": spec.search.seed, "version": version("plimsoll-ml")}
    data = store / "data" / digest({**opened["inputs"], **settings})
    trial = Trial.from_file(run / "trials" / f"{decision.baseline.trial}.json")
    baseline = store / "artifact" / Path(trial.artifact).name
    for needed in (data, baseline, run / "artifact"):
        if not needed.is_dir():
            raise RunError(f"{needed} is gone, and {run} was made with it", "run the same plimsoll tune again")
    threads = trial.recipe.runtime.threads
    sides = (decision.baseline, decision.chosen)
    return Finished(decision, sides, baseline, run / "artifact", data, Dataset.load(data), threads)


def give(run: Finished, store: Store) -> Path:
    """Return the folder that every peer is given, made once for the same weights and rows; see `given.py`."""
    key = {
        "weights": file_digest(run.baseline / "model.safetensors"),
        "rows": file_digest(run.data / "train.jsonl"),
        "threads": run.threads,
        "quality_drop": run.decision.budget.quality_drop,
        "writer": file_digest(Path(__file__)),
    }
    return store.once("given", key, lambda out: _write(run, out))


def _write(run: Finished, out: Path) -> None:
    from safetensors.torch import load_file

    record = encoder.ModelRecord.from_file(run.baseline / encoder.MODEL_RECORD)
    if record.layers:
        raise RunError("the baseline's layers differ in shape, which transformers cannot load", "tune a plain encoder")
    module = encoder.load(run.baseline)
    export.onnx(module, out / "model.onnx")
    module.encoder.save_pretrained(out / "hugging_face")
    shutil.copyfile(run.tokenizer, out / "hugging_face" / "tokenizer.json")
    weights = load_file(run.baseline / "model.safetensors")
    np.savez(out / "head.npz", **{k: weights[f"head.classifier.{k}"].numpy() for k in ("weight", "bias")})
    shutil.copyfile(run.data / "validation.jsonl", out / "validation.jsonl")
    train = (run.data / "train.jsonl").open(encoding="utf-8", newline="\n").readlines()
    order = np.random.default_rng(0).permutation(len(train))[:_CALIBRATION_ROWS]
    (out / "train.jsonl").write_text("".join(train[i] for i in order), encoding="utf-8")
    config, arguments = module.encoder.config, inspect.signature(type(module.encoder)).parameters
    task = {
        "labels": record.labels,
        "max_length": record.max_length,
        "lengths": _static_lengths(run.dataset.train.texts, run.tokenizer, record.max_length),
        "threads": run.threads,
        "quality_drop": run.decision.budget.quality_drop or 0.01,
        "num_heads": config.num_attention_heads,
        "hidden_size": config.hidden_size,
        # the task's head stands in for the pooler, which has no weights here
        "encoder_options": {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {},
    }
    (out / "task.json").write_text(json.dumps(task))


def _static_lengths(texts: Sequence[str], tokenizer: Path, max_length: int) -> tuple[int, ...]:
    lengths = np.minimum(measure_lengths(texts, tokenizer), max_length)
    return buckets.choose(lengths, _STATIC_LENGTHS, max_length)
