"""Every way to tune, compared on one task as `plimsoll train` does, and the comparison kept.

    python benchmarks/methods.py benchmarks/specs/banking77_methods.toml [--methods finetune lora] [--out RUN]

The result is benchmarks/results/methods-<spec>@<machine digest>@<date>.json, the run's own record; the same command on
the same `--out` goes on where it stopped.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from plimsoll.core.spec import Spec
from plimsoll.report import methods as report
from plimsoll.report.progress import Screen
from plimsoll.search import methods
from plimsoll.search.tune import prepared

RESULTS = Path(__file__).parent / "results"


def main(spec_file: Path, names: list[str], out: Path) -> None:
    """Compare, print, and keep the record."""
    console = Console(width=None if sys.stdout.isatty() else 200)
    spec = Spec.read(spec_file)
    with Screen(console) as screen, prepared(spec, out, screen.show) as (bench, machine):
        compared = methods.compare(bench, machine, names, spec.budget.search_minutes)
    report.keep(compared, out)
    report.show(compared, console)
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = RESULTS / f"methods-{spec_file.stem}@{machine.digest}@{day}.json"
    # where the models lay is of no use to anybody else
    probes = tuple(p.model_copy(update={"model": ""}) for p in compared.probes)
    path.write_text(compared.model_copy(update={"run": "", "probes": probes}).to_json())
    console.print(f"kept as {path}", markup=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spec", type=Path)
    parser.add_argument("--methods", nargs="*", default=[])
    parser.add_argument("--out", type=Path, help="a run folder to keep; default one that is thrown away")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        main(given.spec, given.methods, given.out or Path(folder) / "run")
