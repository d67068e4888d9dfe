"""Whether a profile's stages add up, for each runtime: the sum of a request's stages over whole requests, at p50.

    python benchmarks/profile_runtimes.py benchmarks/specs/banking77.toml [--seconds 8] [runtime ...]

For each runtime that is installed, the settings that build in a minute serve the spec's model with random weights and
a random head, which take the time that tuned ones do; each is profiled over the spec's test rows. The result is
benchmarks/results/profile_runtimes@<machine digest>@<date>.json: of each its profile, the stages' ratio first.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from plimsoll.bench.profile import About, Effort, measure
from plimsoll.core import find
from plimsoll.core.errors import ChildError, Unsupported
from plimsoll.core.parts import Runtime
from plimsoll.core.profile import Profile
from plimsoll.core.spec import Spec
from plimsoll.search import floor, predict, sides, tune

RESULTS = Path(__file__).parent / "results"
QUICK_S = 61.0
"""Full int8 for LiteRT takes twice as long to build."""


def main(spec: Path, names: Sequence[str], seconds: float) -> None:
    """Build, profile, print, and keep."""
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, tune.prepared(Spec.read(spec), Path(folder) / "run", print) as (
            bench, machine):
        known = floor.ceilings(bench)
        whole = predict.shapes(bench)
        for runtime in settings(names, bench.threads):
            try:
                artifact = predict.probe(runtime, whole, bench)
                bench.retire_maker()
                about = About(runtime.says(), sides.record_of(artifact).shape, known, None, machine.digest)
                found = measure(artifact, bench.texts["test"], about, Path(folder) / "profile.log", Effort(seconds))
            except (Unsupported, ChildError) as e:
                records.append({"runtime": runtime.says(), "skipped": e.message})
                print(f"{runtime.says()}: {e.message}")
                continue
            print(line(found))
            records.append({
                "runtime": runtime.says(), "stages_over_whole_p50": found.adds_up.model_dump(mode="json"),
                "within_5_percent": abs(found.adds_up.value - 1) <= 0.05, "profile": found.model_dump(mode="json")})
    result = {"spec": spec.name, "weights": "random", "runtimes": records}
    path = RESULTS / f"profile_runtimes@{machine.digest}@{datetime.datetime.now(datetime.UTC).date().isoformat()}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"kept as {path}")


def settings(names: Sequence[str], threads: int) -> list[Runtime]:
    """Return the settings to profile of these runtimes, or of all but the fake, where they are installed."""
    found: list[Runtime] = []
    for name in names or [n for n in find.names("runtimes") if n != "null"]:
        cls = cast(type[Runtime], find.part("runtimes", name))
        try:
            if cls.missing() is None:
                found += [v for v in cls.variants(threads, "cpu") if v.build_s < QUICK_S]
        except Unsupported as e:
            print(f"{name}: {e.message}")
    return found


def line(found: Profile) -> str:
    """Return a profile in a line."""
    stages = ", ".join(f"{s.name} {s.p50_ms.value * 1000:.1f}" for s in found.stages)
    groups = ", ".join(f"{o.group} {o.share:.0%}" for o in found.operators) or found.operators_reason
    ratio = found.adds_up
    return (f"{found.artifact}: {ratio.value:.3f} ({ratio.low:.3f} to {ratio.high:.3f}) of whole requests at p50; "
            f"us of each stage: {stages}; operators: {groups}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("runtimes", nargs="*")
    parser.add_argument("--seconds", type=float, default=8.0, help="for the requests of each setting")
    given = parser.parse_args()
    main(given.spec, given.runtimes, given.seconds)
