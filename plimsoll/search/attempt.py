"""One recipe walked to its end: each move, the build, the answers to the validation rows. What breaks is a record."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from plimsoll.bench import clock
from plimsoll.bench.stats import mean, quality, quality_difference, row_variance
from plimsoll.core import find, shape
from plimsoll.core.artifact import Artifact, Invariance, file_digest, seal, size_mb
from plimsoll.core.child import Child
from plimsoll.core.errors import ChildError, Unsupported, UserError
from plimsoll.core.parts import Move, Runtime, Sample
from plimsoll.core.record import Measurement, digest, exact
from plimsoll.core.spec import Recipe
from plimsoll.core.store import ENTRY
from plimsoll.core.trial import Trial
from plimsoll.data import dataset
from plimsoll.data.dataset import Dataset
from plimsoll.search.run import Run
from plimsoll.train.batches import longest_input

_INVARIANCE_ROWS = 64


@dataclass
class Bench:
    """What every attempt of one run shares: the run, the prepared data, the model to start from, one maker process."""

    run: Run
    data: Path
    dataset: Dataset
    pretrained: Path
    pretrained_digest: str
    data_digest: str
    threads: int
    machine: str
    _maker: Child | None = field(default=None)
    _entered: dict[str, clock.Contestant] = field(default_factory=dict)

    @property
    def texts(self) -> dict[str, Path]:
        """The splits a stopwatch process reads."""
        return {split: self.data / f"{split}.jsonl" for split in ("validation", "test")}

    def maker(self) -> Child:
        """Return the process that makes things, started on first use: loading a framework once is enough."""
        if self._maker is None:
            self._maker = Child("plimsoll.search.maker", self.run.folder / "logs" / "maker.log", self.threads)
        return self._maker

    def retire_maker(self) -> None:
        """End the maker process; the next use starts a fresh one."""
        if self._maker is not None:
            self._maker.close()
            self._maker = None

    def enter(self, trial_id: str, folder: Path) -> clock.Contestant:
        """Return the opened artifact of a trial, awake; it stays open until `close`, so it starts only once."""
        if trial_id not in self._entered:
            self._entered[trial_id] = clock.enter(
                folder, self.texts, self.run.spec.load.batch, self.run.folder / "logs" / f"{trial_id}.log"
            )
        self._entered[trial_id].resume()
        return self._entered[trial_id]

    def leave(self, trial_id: str) -> None:
        """Close a trial's artifact if it is open."""
        if trial_id in self._entered:
            self._entered.pop(trial_id).close()

    def close(self) -> None:
        """End every process of this run."""
        self.retire_maker()
        for trial_id in list(self._entered):
            self.leave(trial_id)

    def tokenizer(self) -> Path:
        return self.pretrained / "tokenizer.json"

    def longest(self) -> int:
        """Return the tokens of the longest row of any split, at most what the model takes."""
        config = json.loads((self.pretrained / "config.json").read_text())
        splits = (self.dataset.train, self.dataset.validation, self.dataset.test)
        longest = max(int(dataset.measure_lengths(rows.texts, self.tokenizer()).max()) for rows in splits)
        return min(longest, longest_input(config))

    def spread(self) -> list[int]:
        """Return test rows from the shortest to the longest text: a warm-up must have met every shape."""
        order = np.argsort([len(t) for t in self.dataset.test.texts], kind="stable")
        return order[np.linspace(0, len(order) - 1, min(24, len(order))).astype(int)].tolist()


def attempt(
    recipe: Recipe, bench: Bench, *, baseline: Trial | None, deadline_s: Callable[[Move], float | None]
) -> Trial:
    """Walk a recipe up to its answers on validation, or return the finished trial of an earlier session.

    `deadline_s` tells how long a move that has still to be made may take. A part that cannot do this here
    gives a skipped trial, one that breaks a failed one; StoreError and an error of the user's pass through.
    """
    run = bench.run
    done = run.trial(recipe.id)
    if done is not None and _stands(done, baseline):
        return done
    seconds: dict[str, float] = {}
    try:
        model, key = walk(recipe, bench, deadline_s, seconds)
        artifact = _build(recipe, model, key, bench, seconds)
        trial = _answer(recipe, artifact, bench, baseline, seconds)
    except Unsupported as e:
        trial = Trial(id=recipe.id, recipe=recipe, state="skipped", reason=" ".join(filter(None, (e.message, e.hint))))
    except UserError:
        raise
    except ChildError as e:
        bench.retire_maker()
        trial = Trial(id=recipe.id, recipe=recipe, state="failed", reason=f"broke: {e.message}", traceback=e.traceback)
    run.report({"stage": "tried", "note": f"{recipe.says()}: {_in_words(trial)}"})
    return run.save(trial.model_copy(update={"seconds": seconds, "baseline": baseline is None}))


def _stands(done: Trial, baseline: Trial | None) -> bool:
    """Return whether a trial of an earlier session need not be walked again."""
    if done.artifact:
        return Path(done.artifact).exists()
    return baseline is not None  # without a baseline there is no run, so what broke it is tried again


def _in_words(trial: Trial) -> str:
    if trial.validation is None or trial.size_mb is None:
        return f"{trial.state}, {trial.reason}"
    return f"{trial.validation.unit} {trial.validation.value:.2%} on validation, {trial.size_mb.value:.1f} MB"


def walk(
    recipe: Recipe, bench: Bench, deadline_s: Callable[[Move], float | None], seconds: dict[str, float]
) -> tuple[Path, dict[str, Any]]:
    """Apply the moves in order, each once for all recipes that share it; return the model folder and its key."""
    model = bench.pretrained
    key: dict[str, Any] = {"pretrained": bench.pretrained_digest}
    for move in recipe.moves:
        key = model_key(move, key, bench)
        source = model

        unfinished = str(bench.run.store.unfinished("model", key))

        def make(out: Path, move: Move = move, source: Path = source, kept: str = unfinished) -> None:
            began = time.monotonic()
            bench.run.report({"stage": move.name(), "note": f"{move.says()}"})
            request = {**work_request(bench, source), "do": "apply", "move": find.write(move), "out": str(out)}
            bench.maker().call({**request, "deadline_s": deadline_s(move), "checkpoint": kept}, bench.run.report)
            (out / "seconds.json").write_text(json.dumps(time.monotonic() - began))

        model: Path = bench.run.store.once("model", key, make)
        seconds[move.name()] = json.loads((model / "seconds.json").read_text())
    return model, key


def model_key(move: Move, source: dict[str, Any], bench: Bench) -> dict[str, Any]:
    """Return what names, in the store, the model that a move makes of the one named by `source`."""
    spec = bench.run.spec
    return {
        "move": find.write(move),
        "from": digest(source),
        "data": bench.data_digest,
        "seed": spec.search.seed,
        "device": spec.target.device,
        "threads": bench.threads,
        "version": version("plimsoll-ml"),
        # training is planned to fit the search, so another budget makes another model
        "search_minutes": spec.budget.search_minutes,
    }


def work_request(bench: Bench, model: Path) -> dict[str, Any]:
    """Return what the maker needs to work on a model folder, but for what to do."""
    spec = bench.run.spec
    return {
        "model": str(model),
        "data": str(bench.data),
        "task": find.write(spec.task),
        "threads": bench.threads,
        "device": spec.target.device,
        "seed": spec.search.seed,
        "incidents": str(bench.run.incidents),
    }


def within_time(
    recipe: Recipe,
    bench: Bench,
    base: Trial,
    need_s: float,
    deadline_s: Callable[[Move], float | None] = lambda move: None,
) -> Trial:
    """Attempt a recipe unless less than `need_s` of the search is left; a finished one is always taken."""
    if bench.run.trial(recipe.id) is None and bench.run.remaining_s < need_s:
        minutes = bench.run.spec.budget.search_minutes
        reason = (
            "not tried: the search was ended before its turn"
            if bench.run.ending
            else f"not tried: search_minutes = {minutes:g} left no time for it; raise it to have it tried"
        )
        trial = Trial(id=recipe.id, recipe=recipe, state="skipped", reason=reason)
        return trial if bench.run.ending else bench.run.save(trial)  # the search may be taken up again after all
    return attempt(recipe, bench, baseline=base, deadline_s=deadline_s)


def _build(recipe: Recipe, model: Path, key: dict[str, Any], bench: Bench, seconds: dict[str, float]) -> Path:
    began = time.monotonic()
    sample, sample_file = sampled(model, bench)
    folder = built(recipe.runtime, model, digest(key), recipe.moves, sample, sample_file, bench)
    seconds["build"] = time.monotonic() - began
    return folder


def built(
    runtime: Runtime, model: Path, model_digest: str, moves: Sequence[Move], sample: Sample, sample_file: Path,
    bench: Bench
) -> Path:
    """Return the artifact of a model in a runtime: built once, and sealed for each way of opening it."""

    def make(out: Path) -> None:
        if runtime.in_process:
            runtime.build(model, sample, out)
        else:
            request = {"do": "build", "runtime": find.write(runtime), "model": str(model), "out": str(out)}
            bench.maker().call({**request, "sample": str(sample_file)}, bench.run.report)
        shutil.copyfile(model / "tokenizer.json", out / "tokenizer.json")

    made = {"model": model_digest, "machine": bench.machine, "version": version("plimsoll-ml")}
    files = bench.run.store.once("built", {"runtime": find.write(runtime.built_as), **made}, make)

    answers = "batch, length, labels" if bench.run.spec.task.per_token else "batch, labels"

    def seal_it(out: Path) -> None:
        # links, not copies: nothing in the store is ever written to again
        shutil.copytree(files, out, ignore=shutil.ignore_patterns(ENTRY), copy_function=os.link, dirs_exist_ok=True)
        seal(
            out,
            Artifact(
                runtime=runtime,
                task=bench.run.spec.task,
                labels=bench.dataset.labels,
                max_length=sample.max_length,
                outputs=(f"logits: float32 [{answers if bench.dataset.labels else 'batch, hidden'}]",),
                lineage=tuple(find.write(m) for m in moves),
                machine=bench.machine,
                shape=shape.of_folder(model),
            ),
        )

    lineage = [find.write(m) for m in moves]
    return bench.run.store.once("artifact", {"runtime": find.write(runtime), "lineage": lineage, **made}, seal_it)


def sampled(model: Path, bench: Bench) -> tuple[Sample, Path]:
    """Return up to 2,000 tokenized training rows in a random order, and the file that holds them."""
    from tokenizers import Tokenizer

    from plimsoll.search.maker import sample_from

    spelling = model / "tokenizer.json"  # its own: trim_vocabulary gives tokens other numbers
    record = model / "plimsoll_model.json"
    max_length = int(json.loads(record.read_text())["max_length"]) if record.exists() else 128

    def make(out: Path) -> None:
        tokenizer = Tokenizer.from_file(str(spelling))
        tokenizer.no_padding()
        tokenizer.enable_truncation(max_length)
        texts = bench.dataset.train.single_texts()
        order = np.random.default_rng(bench.run.spec.search.seed).permutation(len(texts))[:2000]
        rows = [e.ids for e in tokenizer.encode_batch([texts[i] for i in order])]
        (out / "sample.json").write_text(json.dumps({"input_ids": rows, "max_length": max_length}))

    folder = bench.run.store.once(
        "sample",
        {
            "data": bench.data_digest,
            "tokenizer": file_digest(spelling),
            "max_length": max_length,
            "seed": bench.run.spec.search.seed,
        },
        make,
    )
    return sample_from(folder / "sample.json"), folder / "sample.json"


def _answer(recipe: Recipe, folder: Path, bench: Bench, baseline: Trial | None, seconds: dict[str, float]) -> Trial:
    """Open the artifact as a server would and judge it on validation."""
    run = bench.run
    began = time.monotonic()
    contestant = bench.enter(recipe.id, folder)
    try:
        logits = scores(contestant, recipe.id, "validation", bench)
        memory = contestant.call({"do": "memory"})
        rows = min(_INVARIANCE_ROWS, len(bench.dataset.validation))
        invariance = contestant.call({"do": "invariance", "split": "validation", "rows": list(range(rows))})
    except BaseException:
        bench.leave(recipe.id)
        raise
    contestant.pause()
    task, targets = run.spec.task, bench.dataset.targets("validation")
    found = task.evidence(logits, targets)
    against = found if baseline is None else evidence(baseline.id, "validation", bench)
    delta = quality_difference(against, found, task.value, task.metric)
    seconds["score"] = time.monotonic() - began
    return Trial(
        id=recipe.id,
        recipe=recipe,
        state="scored",
        artifact=str(folder),
        validation=quality(found, task.value, task.metric),
        validation_delta=delta,
        expected_delta=None if baseline is None else _expected(baseline, logits, targets, bench),
        disagreement=float(np.mean((against != found).reshape(len(found), -1).any(axis=1))),
        variance=None if found.dtype == bool else row_variance(delta),
        size_mb=exact(size_mb(folder), "MB", bench.machine),
        peak_memory_mb=exact(memory, "MB", bench.machine),
        cold_start_s=exact(contestant.cold_start_s, "s", bench.machine),
        invariance=Invariance(**invariance),
    )


def _expected(baseline: Trial, logits: NDArray[np.float32], targets: NDArray[Any], bench: Bench
              ) -> Measurement | None:
    """Return the change of quality that the baseline's calibrated probabilities expect of these answers."""
    reference = np.load(bench.run.folder / "scores" / f"{baseline.id}-validation.npy")
    changes = bench.run.spec.task.expected_change(reference, logits, targets)
    return None if changes is None else mean(changes, unit=bench.run.spec.task.metric)


def scores(contestant: clock.Contestant, trial_id: str, split: dataset.Split, bench: Bench) -> NDArray[np.float32]:
    """Return the artifact's logits on a split, and keep them in the run's scores/.

    float32 [rows, labels], or [rows, most words, labels] where words are answered: `core.ragged`.
    """
    out = bench.run.folder / "scores" / f"{trial_id}-{split}.npy"
    out.parent.mkdir(exist_ok=True)
    contestant.call(
        {"do": "score", "split": split, "out": str(out)},
        lambda event: bench.run.report({**event, "note": f"{trial_id} on {split}"}),
    )
    return cast("NDArray[np.float32]", np.load(out))


def evidence(trial_id: str, split: dataset.Split, bench: Bench) -> NDArray[Any]:
    """Return what each row of a split says of a trial's quality, from its kept logits: `core.parts.Task.evidence`."""
    logits = np.load(bench.run.folder / "scores" / f"{trial_id}-{split}.npy")
    return bench.run.spec.task.evidence(logits, bench.dataset.targets(split))
