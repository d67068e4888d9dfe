"""The steps of a Containerfile that `plimsoll package` wrote, in a fresh environment instead of an image.

    python benchmarks/package_steps.py runs/banking77

Its `pip install` line is run as it stands, with the folder for /install; then its ENTRYPOINT, with the folder for
/artifact and a port that is free; then its HEALTHCHECK; then a text is asked. SIGTERM must end the server with code 0.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

from serving.processes import free_port  # noqa: E402

import plimsoll  # noqa: E402
from plimsoll.serve.package import write  # noqa: E402

_READY_S = 120.0


def main() -> int:
    """Go through the steps; return 0 when the server answered and ended as it should."""
    run = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as scratch:
        image, home = Path(scratch) / "image", Path(scratch) / "venv"
        print(", ".join(write(run, image, keys=False)), flush=True)
        text = (image / "Containerfile").read_text()
        venv.create(home, with_pip=True)
        [install] = re.findall(r"(?m)^RUN (pip install .*)$", text)
        steps = shlex.split(install.replace("/install/", f"{image}/"))
        clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}  # what stands there is not in an image
        subprocess.run([str(home / "bin" / steps[0]), *steps[1:]], check=True, env=clean, stdout=subprocess.DEVNULL)
        [start] = (json.loads(found) for found in re.findall(r"(?m)^ENTRYPOINT (.*)$", text))
        [check] = (json.loads(found) for found in re.findall(r"(?m)^HEALTHCHECK .*? CMD (.*)$", text))
        port = str(free_port())
        swap = {"/artifact": str(image / "artifact"), "8000": port, "0.0.0.0": "127.0.0.1"}
        command = [str(home / "bin" / start[0]), *(swap.get(word, word) for word in start[1:])]
        size = sum(p.stat().st_size for p in home.rglob("*") if p.is_file() and not p.is_symlink()) / 1e6
        print(f"installed {size:.0f} MB", flush=True)
        with subprocess.Popen(command, env=clean, cwd=scratch) as server:
            try:
                asked = [str(home / "bin" / check[0]), check[1], check[2].replace(":8000/", f":{port}/")]
                end = time.monotonic() + _READY_S
                while subprocess.run(asked, env=clean, stderr=subprocess.DEVNULL, check=False).returncode:
                    if server.poll() is not None or time.monotonic() > end:
                        print("the server did not get ready", file=sys.stderr)
                        return 1
                    time.sleep(0.5)
                with plimsoll.Client(f"http://127.0.0.1:{port}") as client:
                    print(client.predict(["where is my card?"])[0].record(), flush=True)
            finally:
                server.send_signal(signal.SIGTERM)
                code = server.wait(60)
        print(f"SIGTERM: exit code {code}")
        return code


if __name__ == "__main__":
    sys.exit(main())
