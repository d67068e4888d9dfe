"""Contract kits: what every move, runtime and task must hold, for the parts here and for other people's.

Each function raises AssertionError with a plain sentence. Give them a tuned model folder and a sample; see
`tests/contracts/test_parts.py` for how this project's own parts are put through them.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from plimsoll.core import find, ragged
from plimsoll.core.parts import Move, Part, Runtime, Sample, Session, Task, Work
from plimsoll.core.record import digest

_HEADINGS = ("Pays when:", "Costs:", "Source:")
_AGREE = 0.95
"""Share of rows whose label must be the same alone and in a batch, and before and after building."""


def check_page(cls: type[Part]) -> None:
    """The part explains itself: name, headings, a line for each field. Tasks need no headings."""
    page = inspect.getdoc(cls) or ""
    assert cls.__name__.lower() == cls.name().replace("_", ""), f"the class in {cls.name()}.py is called {cls.__name__}"
    for heading in () if find.is_task(cls) else _HEADINGS:
        assert heading in page, f"{cls.__name__}: its docstring has no {heading!r}"
    documented = find.field_docs(cls)
    for name in cls.model_fields:
        assert documented.get(name), f"{cls.__name__}.{name} has no line of documentation below it"


def check_round_trip(part: Part) -> None:
    """The part comes back from its record as the same value, with the same digest."""
    folder = find.folder_of(part)
    assert find.read(folder, find.write(part)) == part, f"{part!r} is another value after writing and reading"
    assert digest(find.write(part)) == digest(find.write(find.read(folder, find.write(part))))


def check_distinct(parts: tuple[Part, ...]) -> None:
    """No two settings share a digest: the store would hand out the wrong model."""
    digests = {digest(find.write(p)) for p in parts}
    assert len(digests) == len(parts), f"{parts} have {len(digests)} digests"


def check_runtime(runtime: Runtime, model: Path, sample: Sample, out: Path, expected: np.ndarray) -> None:
    """Build and open it; rows of every length get an answer that is the model's own.

    expected: float32 [answers, labels], the model's logits on the sample's rows, or on their tokens: `export.logits`.
    """
    out.mkdir(parents=True, exist_ok=True)
    runtime.build(model, sample, out)
    assert any(out.iterdir()), f"{runtime.says()}: build wrote nothing"
    session = runtime.open(out)
    try:
        _check_session(runtime.says(), session, sample, expected)
    finally:
        session.close()


def _check_session(name: str, session: Session, sample: Sample, expected: np.ndarray) -> None:
    rows = [list(row) for row in sample.input_ids]
    lengths = [len(row) for row in rows]
    apart = [session.logits([row]) for row in rows]
    answers = tuple(answer.shape[:-1] for answer in apart)
    per_token = len(expected) == sum(lengths) != len(rows)
    wanted = tuple((1, n) if per_token else (1,) for n in lengths)
    assert answers == wanted, f"{name}: rows of {lengths} tokens have answers for {answers}"
    alone = np.concatenate([answer.reshape(-1, answer.shape[-1]) for answer in apart])
    assert alone.shape == expected.shape, f"{name}: logits {alone.shape}, the model's {expected.shape}"
    assert alone.dtype == np.float32, f"{name}: logits are {alone.dtype}"
    assert np.isfinite(alone).all(), f"{name}: logits are not finite"
    agree = float(np.mean(alone.argmax(1) == expected.argmax(1)))
    assert agree >= _AGREE, f"{name}: only {agree:.1%} of its labels are the model's"
    for row, answer in zip(rows[:8], apart, strict=False):
        staged = session.compute(session.prepare(row))
        assert np.allclose(staged, answer, atol=1e-6), f"{name}: a row that is prepared and then computed differs"
        assert session.padded(len(row)) >= len(row), f"{name}: computes fewer tokens than a row has"
    together = session.logits(rows)
    if per_token:
        ended = np.arange(together.shape[1]) >= np.array(lengths)[:, None]
        assert np.isnan(together[ended]).all(), f"{name}: it answers padding"
    agree = float(np.mean(ragged.flat(together, lengths).argmax(1) == alone.argmax(1)))
    assert agree >= _AGREE, f"{name}: only {agree:.1%} of labels are the same alone and in a batch"
    for length in (3, sample.max_length):
        row = (rows[0] * sample.max_length)[:length]
        shape = (1, length, expected.shape[1]) if per_token else (1, expected.shape[1])
        assert session.logits([row]).shape == shape, f"{name}: no answer at {length} tokens"


def check_task(task: Task, labels: Sequence[str], outputs: np.ndarray, targets: np.ndarray, text: str) -> None:
    """What a task says of outputs holds together: metric, evidence, decisions, loss and the answer to a text.

    outputs: float32 [rows, labels], [rows, words, labels] or [rows, texts, labels], and their targets; `text` is the
    first row's.
    """
    import torch

    name = task.name()
    evidence = task.evidence(outputs, targets)
    assert len(evidence) == len(outputs), f"{name}: evidence of {len(evidence)} rows for {len(outputs)}"
    assert evidence.dtype in (np.bool_, np.float64), f"{name}: evidence is {evidence.dtype}"
    value = task.value(evidence)
    assert -1 <= value <= 1, f"{name}: a {task.metric} of {value}"
    score = task.score(outputs, targets, labels)
    assert score.get(task.metric) == value, f"{name}: {task.metric} is {value} by evidence alone"
    assert len(task.decisions(outputs)) == len(outputs), f"{name}: not a decision for each row"
    flat, wanted = torch.from_numpy(outputs).flatten(0, -2), torch.from_numpy(targets)
    real = ~flat.isnan().any(dim=1)
    loss = task.loss(flat[real], wanted.flatten()[real] if task.per_token else wanted, 0.1)
    assert loss.ndim == 0, f"{name}: the loss is no scalar"
    assert torch.isfinite(loss), f"{name}: the loss is {loss}"
    chance = task.log_probabilities(flat[real])
    assert (chance.exp() * (chance - chance)).sum() == 0, f"{name}: its probabilities are not finite"
    answer = task.prediction(outputs[0], text, labels).record()
    assert json.loads(json.dumps(answer)) == answer, f"{name}: {answer!r} is no JSON"


def check_move(move: Move, model: Path, work: Work, out: Path) -> None:
    """Apply it; what comes out is a model folder that loads, and spells the rows as the one it was made from.

    It may put tokens of its own before every text.
    """
    from tokenizers import Tokenizer

    from plimsoll.data.dataset import Dataset
    from plimsoll.train import encoder

    out.mkdir(parents=True, exist_ok=True)
    before = sorted(p.name for p in model.iterdir())
    move.apply(model, work, out)
    encoder.load(out)
    own, made = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (model, out))
    for text in Dataset.load(work.data).train.texts:
        tokens = own.encode(text).tokens
        assert made.encode(text).tokens[-len(tokens) :] == tokens, f"{move.says()} spells {text!r} otherwise"
    assert sorted(p.name for p in model.iterdir()) == before, f"{move.says()} changed the model it was given"
