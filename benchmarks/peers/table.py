"""The contest's numbers: one entry for each contestant, on the terminal and in the result file."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from contest import HERE, tools
from handover import Finished
from numpy.typing import NDArray
from pydantic import Field
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from plimsoll.bench.clock import Blocks
from plimsoll.bench.machine import fingerprint
from plimsoll.bench.stats import drift, paired_difference, proportion, quantile, ratio_of_quantiles
from plimsoll.core.record import Measurement, Record


class Entry(Record):
    """A contestant and what was measured of it, all in the same rounds and on the same rows."""

    name: str
    way: str = ""
    """How it was served where there was a choice; for ours and the baseline, the recipe."""
    p50_ms: Measurement
    p95_ms: Measurement
    p95_over_ours: Measurement
    """Its p95 over that of our artifact: above 1, ours is the faster."""
    accuracy: Measurement
    delta: Measurement
    """Accuracy minus the baseline's on the same rows; `low` is the one-sided bound."""
    size_mb: float
    """What serving needs on disk, the tokenizer counted."""
    memory_mb: float
    """Peak resident memory of the process, compilation at its start included."""
    cold_start_s: float
    tuning_minutes: float | None = None
    """Wall-clock of the script that builds it, from the fine-tuned weights on; for ours, the search without that."""
    lines: int | None = None
    """Neither blank nor comment: the peer's script, which builds and serves all it offers; our spec and three more."""
    versions: dict[str, str] = Field(default_factory=dict[str, str])
    ways_p95_ms: dict[str, float] = Field(default_factory=dict[str, float])
    """p95 of each way to serve it in the short race that picked one."""

    @classmethod
    def of(
        cls, name: str, blocks: Blocks, right: Mapping[str, NDArray[np.bool_]], against: tuple[str, str], **about: Any
    ) -> Self:
        """Return the entry of a contestant; `against` names ours and the baseline."""
        ours, baseline = against
        times = np.concatenate(blocks[name])
        return cls(
            name=name,
            p50_ms=quantile(times, 0.5),
            p95_ms=quantile(times, 0.95),
            p95_over_ours=ratio_of_quantiles(blocks[name], blocks[ours], 0.95),
            accuracy=proportion(int(right[name].sum()), len(right[name])),
            delta=paired_difference(right[baseline], right[name]),
            **about,
        )


class Refusal(Record):
    """What could not be installed or run, and the reason as it was given."""

    name: str
    reason: str

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name=name, reason=reason)


def shown(
    entries: Sequence[Entry], refusals: Sequence[Refusal], left_out: Sequence[str], drifted: float, console: Console
) -> None:
    """Print the table, what is missing from it and why, and how to read it."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("")
    for column in ("p50 ms", "p95 ms", "p95 / ours", "accuracy", "points", "MB", "minutes", "lines"):
        table.add_column(column, justify="right", no_wrap=True)
    for e in entries:
        table.add_row(
            escape(e.name) + (f"\n[dim]{escape(e.way)}[/]" if e.way else ""),
            _interval(e.p50_ms), _interval(e.p95_ms), _interval(e.p95_over_ours), f"{e.accuracy.value:.2%}",
            f"{e.delta.value * 100:+.2f}\n(≥ {e.delta.low * 100:+.2f})", f"{e.size_mb:.1f}",
            "" if e.tuning_minutes is None else f"{e.tuning_minutes:.1f}", "" if e.lines is None else str(e.lines),
        )  # fmt: skip
    console.print(table)
    for refusal in refusals:
        console.print(f"[bold]{escape(refusal.name)}[/] did not take part: {escape(refusal.reason)}", highlight=False)
    if left_out:
        console.print(f"not asked to take part: {', '.join(left_out)}", highlight=False)
    versions = {e.name.partition(":")[0]: e.versions for e in entries if e.versions}
    for tool, found in sorted(versions.items()):
        console.print(f"[dim]{tool}: {', '.join(f'{k} {v}' for k, v in found.items())}[/]", highlight=False)
    console.print(
        "[dim]brackets and ≥ hold one-sided at 95 % each; latency is text in, label out, one request at a time; "
        "minutes are from the fine-tuned weights on; the baseline's slowest round took "
        f"{drifted:.2f} times its fastest[/]",
        highlight=False,
    )


def _interval(m: Measurement) -> str:
    return f"{m.value:.2f}\n({m.low:.2f}-{m.high:.2f})"


def kept(
    entries: Sequence[Entry], refusals: Sequence[Refusal], blocks: Blocks, run: Finished, args: argparse.Namespace
) -> Path:
    """Write the result file and return its path."""
    machine, decision, (_, chosen) = fingerprint(), run.decision, run.sides
    result = {
        "what": "one run's artifact and what peers make of the same fine-tuned weights, interleaved in one session",
        "data": Path(decision.spec["task"]["train"]).parent.name,
        "test_rows": len(run.dataset.test),
        "model": Path(decision.spec["model"]["name"]).name,
        "threads": run.threads,
        "rounds": args.rounds,
        "requests_per_round": args.requests,
        "chosen": chosen.recipe.says(),
        "verdict": decision.verdict,
        "budget": decision.budget.model_dump(mode="json"),
        "seconds_of_our_search": decision.seconds,
        "drift_of_baseline": drift(next(iter(blocks.values()))),
        "contestants": [e.model_dump(mode="json") for e in entries],
        "left_out": sorted(set(tools()) - set(args.peers)),
        "did_not_take_part": {r.name: _without_places(r.reason) for r in refusals},
        "machine": {**machine.model_dump(mode="json"), "digest": machine.digest},
    }
    file = args.results / f"peers@{machine.digest}@{datetime.now(UTC):%Y-%m-%d}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(result, indent=1) + "\n")
    return file


def _without_places(text: str) -> str:
    """Return a reason without this machine's folders and addresses, which are nobody's business."""
    return re.sub(r"https?://\S+", "<address>", text.replace(str(HERE.parents[1]), "."))
