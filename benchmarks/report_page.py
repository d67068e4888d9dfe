"""How long the page of a run takes to open, and what it weighs, with its trials repeated until there are 300.

    python benchmarks/report_page.py RUN

A trial more has another id and is a little slower on the front; everything else is the run's. The page is opened from
its file in a fresh headless Chromium, five times; its time is from the start of navigation to the mark that the page sets
when every chart is drawn. The result is benchmarks/results/report_page@<machine digest>@<date>.json.
"""

from __future__ import annotations

import datetime
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from plimsoll.bench.machine import fingerprint
from plimsoll.core.decision import Rejected
from plimsoll.core.dossier import Dossier
from plimsoll.report import page
from plimsoll.search.dossier import gathered

RESULTS = Path(__file__).parent / "results"
TRIALS, TIMES = 300, 5
_BROWSERS = (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def main(run: Path) -> None:
    """Measure, print, and keep."""
    began = time.perf_counter()
    text = page.write(crowded(gathered(run)))
    write_s = time.perf_counter() - began
    began = time.perf_counter()
    page.write(crowded(gathered(run)))
    again_s = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.html"
        file.write_text(text, encoding="utf-8")
        ready_s, version = opened(file)
    result = {
        "run": run.name, "trials": TRIALS, "megabytes": len(text.encode()) / 1e6, "ready_s": ready_s,
        "ready_median_s": statistics.median(ready_s), "write_s": write_s, "write_again_s": again_s,
        "browser": version, "machine": fingerprint().model_dump(mode="json"),
    }
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = RESULTS / f"report_page@{fingerprint().digest}@{day}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{TRIALS} trials: {result['megabytes']:.2f} MB, ready after {result['ready_median_s']:.2f} s (median of "
          f"{TIMES}, {min(ready_s):.2f} to {max(ready_s):.2f}); written in {write_s:.1f} s, again in {again_s:.1f} s\n"
          f"kept as {path}")


def crowded(dossier: Dossier) -> Dossier:
    """Return the dossier with its rejected trials repeated, each a little slower, until there are `TRIALS`."""
    decision = dossier.decision
    by_id = {t.id: t for t in dossier.trials}
    front = {f.trial: f for f in decision.front}
    trials, rejected, timed = list(dossier.trials), list(decision.rejected), list(decision.front)
    for i in range(TRIALS - len(trials)):
        model = decision.rejected[i % len(decision.rejected)]
        name = f"{model.trial}-{i}"
        trials.append(by_id[model.trial].model_copy(update={"id": name, "baseline": False}))
        rejected.append(Rejected(trial=name, recipe=model.recipe, state=model.state, reason=model.reason,
                                 evidence=f"trials/{name}.json"))
        if model.trial in front:
            slower = front[model.trial].p95_ms * (1 + i / TRIALS)
            timed.append(front[model.trial].model_copy(update={"trial": name, "p95_ms": slower}))
    return dossier.model_copy(update={"trials": tuple(trials), "decision": decision.model_copy(
        update={"rejected": tuple(rejected), "front": tuple(timed)})})


def opened(file: Path) -> tuple[list[float], str]:
    """Return the seconds until the page was ready, each time in a browser of its own, and the browser's version."""
    found = next((path for name in _BROWSERS if name and (path := shutil.which(name))), None)
    if found is None:
        sys.exit("no Chromium to open the page in: install one, or set CHROMIUM")
    seconds: list[float] = []
    version = ""
    with sync_playwright() as playwright:
        for _ in range(TIMES):
            browser = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
            one = browser.new_page(viewport={"width": 1280, "height": 900})
            one.goto(file.as_uri())
            one.wait_for_selector("html[data-ready]", state="attached")
            seconds.append(one.evaluate("performance.getEntriesByName('ready')[0].startTime / 1000"))
            version = browser.version
            browser.close()
    return seconds, version


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python benchmarks/report_page.py RUN")
    main(Path(sys.argv[1]))
