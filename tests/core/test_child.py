"""A child process answers, reports, fails as data, and dies with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from plimsoll.core.child import Child
from plimsoll.core.errors import ChildError, StoreError, Unsupported

HANDLERS = """
    import os, sys, time
    from plimsoll.core.child import serve
    from plimsoll.core.errors import Unsupported

    def refuse(q, report):
        raise Unsupported("no such precision", "use fp32")

    def chatter(q, report):
        print("a library prints to stdout")
        report({"stage": "x", "done": 1, "total": 2})
        return {"pid": os.getpid(), "stdin": sys.stdin.read(), "threads": os.environ["OMP_NUM_THREADS"]}

    def full(q, report):
        raise OSError(28, "No space left on device")

    serve({"refuse": refuse, "chatter": chatter, "full": full, "crash": lambda q, r: os.abort(),
           "raise": lambda q, r: 1 / 0, "sleep": lambda q, r: time.sleep(60)})
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "some_handlers.py").write_text(textwrap.dedent(HANDLERS))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "some_handlers"


def test_it_answers_and_what_libraries_print_goes_to_the_log(module: str, tmp_path: Path) -> None:
    events = []
    with Child(module, tmp_path / "log", threads=3) as child:
        answer = child.call({"do": "chatter"}, events.append)
        assert answer["stdin"] == ""
        assert answer["threads"] == "3"
        assert child.call({"do": "chatter"})["pid"] == answer["pid"]
    assert events == [{"stage": "x", "done": 1, "total": 2}]
    assert "a library prints" in (tmp_path / "log").read_text()


def test_our_errors_come_back_as_themselves_and_others_as_child_errors(module: str, tmp_path: Path) -> None:
    with Child(module, tmp_path / "log", threads=1) as child:
        with pytest.raises(Unsupported, match="no such precision") as refused:
            child.call({"do": "refuse"})
        assert refused.value.hint == "use fp32"
        with pytest.raises(ChildError, match="ZeroDivisionError: division by zero") as broke:
            child.call({"do": "raise"})
        assert "Traceback" in broke.value.traceback
        with pytest.raises(StoreError):
            child.call({"do": "full"})
        assert child.call({"do": "chatter"})["stdin"] == ""


def test_a_crash_says_how_it_ended(module: str, tmp_path: Path) -> None:
    with Child(module, tmp_path / "log", threads=1) as child:
        with pytest.raises(ChildError, match="killed by SIGABRT"):
            child.call({"do": "crash"})
        with pytest.raises(ChildError, match="killed by SIGABRT"):
            child.call({"do": "chatter"})


def test_it_dies_with_its_parent_even_when_stopped(module: str, tmp_path: Path) -> None:
    code = (
        f"from plimsoll.core.child import Child\nfrom pathlib import Path\nimport time\n"
        f"c = Child({module!r}, Path({str(tmp_path / 'log')!r}), 1)\n"
        "print(c.call({'do': 'chatter'})['pid'], flush=True)\nc.pause()\ntime.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists() or _is_zombie(pid):
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the child outlived its parent")


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True
