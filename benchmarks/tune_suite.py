"""Run `plimsoll tune` on a benchmark's spec as a user would, and keep the decision as a result file.

    python benchmarks/tune_suite.py benchmarks/specs/banking77.toml [--keep FOLDER]

The run folder is kept with --keep, for what goes on from it, such as the peers. The result is
benchmarks/results/<suite>@<machine digest>@<date>.json: the command, its wall-clock minutes, its exit code, and
decision.json as the run left it. The run folder is a fresh one, so nothing is reused.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def main(spec: Path, *arguments: str) -> int:
    """Run one suite; returns the command's exit code."""
    kept = None
    if "--keep" in arguments:
        at = arguments.index("--keep")
        kept = Path(arguments[at + 1])
        arguments = (*arguments[:at], *arguments[at + 2 :])
        if kept.exists():
            sys.exit(f"{kept} is there already: a suite starts from nothing")
    with contextlib.ExitStack() as stack:
        out = kept or Path(stack.enter_context(tempfile.TemporaryDirectory())) / spec.stem
        began = time.monotonic()
        # the plimsoll beside this interpreter, whether or not its environment is activated
        code = subprocess.run(
            [str(Path(sys.executable).parent / "plimsoll"), "tune", str(spec), "--out", str(out), *arguments],
            check=False,
        ).returncode
        minutes = (time.monotonic() - began) / 60
        if code not in (0, 3):
            return code
        decision = json.loads((out / "decision.json").read_text())
    for path in ("task.train", "task.test", "task.validation"):
        table, key = path.split(".")
        if decision["spec"][table].get(key):  # where the data stood on this machine is nobody's business
            decision["spec"][table][key] = Path(decision["spec"][table][key]).name
    result = {
        "suite": spec.stem,
        "command": f"plimsoll tune {spec.name} {' '.join(arguments)}".strip(),
        "minutes": round(minutes, 2),
        "exit_code": code,
        "decision": decision,
    }
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = RESULTS / f"{spec.stem}@{decision['machine']['digest']}@{date}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{minutes:.1f} minutes in all; kept as {path}")
    return code


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/tune_suite.py SPEC [arguments of plimsoll tune]")
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
