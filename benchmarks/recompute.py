"""What share of a training step full activation checkpointing spends on computing again, found in two ways, by method.

    python benchmarks/recompute.py benchmarks/specs/banking77_methods.toml [--methods finetune lora] [--out RUN]

One way is a stopwatch around exactly what is computed again, the other a line through the times of steps with none,
half and all of the layers checkpointed. Nothing else should compute meanwhile. The result is
benchmarks/results/recompute-<spec>@<machine digest>@<date>.json; on the same `--out` what was measured is not again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path

from plimsoll.bench.stats import quantile
from plimsoll.core.comparison import Method, Recompute
from plimsoll.core.spec import Spec
from plimsoll.search import methods, verdicts
from plimsoll.search.tune import prepared

RESULTS = Path(__file__).parent / "results"


def main(spec_file: Path, names: list[str], out: Path) -> None:
    """Measure, print, and keep the shares."""
    spec = Spec.read(spec_file)
    found: dict[str, dict[str, object]] = {}
    with prepared(spec, out, lambda event: None) as (bench, machine):
        moves, _ = methods.chosen_of(names, spec)
        for move in moves:
            arm = methods.costed(move, bench, verdicts.memory_mb(machine))
            shares = None if isinstance(arm, Method) else verdicts.recomputed(arm)
            if isinstance(arm, Method) or shares is None:
                print(f"{move.name()}: {arm.reason if isinstance(arm, Method) else arm.costs.reason}")
                continue
            found[move.name()] = _kept(arm, shares)
            print(f"{move.name()}: {shares.direct.value:.1%} by a stopwatch, {shares.fitted.value:.1%} from steps, "
                  f"{shares.apart * 100:.1f} points apart, {len(arm.costs.recompute_direct)} rounds", flush=True)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = RESULTS / f"recompute-{spec_file.stem}@{machine.digest}@{day}.json"
    path.write_text(json.dumps({"machine": machine.model_dump(mode="json"), "methods": found}, indent=1) + "\n")
    print(f"kept as {path}")


def _kept(arm: methods.Arm, shares: Recompute) -> dict[str, object]:
    import numpy as np

    step_ms = {policy: quantile(np.array(s) * 1e3, 0.5).model_dump() for policy, s in arm.costs.step_s.items()}
    return {**shares.model_dump(mode="json"), "apart": shares.apart, "rounds": len(arm.costs.recompute_direct),
            "step_ms": step_ms, "peak_mb": arm.costs.peak_mb}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--out", type=Path, help="a run folder to keep; default one that is thrown away")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.spec, given.methods, given.out or Path(folder) / "run")
