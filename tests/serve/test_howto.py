"""What the how-to page asks with curl is answered, and its Python asks a server as it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from plimsoll.testing.server import Running, settings_of

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "serving.md").read_text()


def test_every_line_of_curl_is_answered(artifact: Path) -> None:
    lines = [shlex.split(line) for line in re.findall(r"(?m)^\$ (curl .*)$", PAGE)]
    assert len(lines) == 4
    with Running(settings_of(artifact, name="spec")) as running:
        for _, url, *more in lines:
            body = more[1].encode() if more[:1] == ["-d"] else None
            # what curl says of a body when it is not told otherwise
            kind = {"Content-Type": "application/x-www-form-urlencoded"} if body else {}
            path = url.removeprefix("http://127.0.0.1:8000")
            assert running.ask("POST" if body else "GET", path, body, kind).status == 200, url


def test_the_python_on_the_page_asks_a_server(served: Running) -> None:
    [code] = re.findall(r'```python title="ask.py"\n(.*?)```', PAGE, re.S)
    names: dict[str, object] = {}
    exec(compile(code, "ask.py", "exec"), names)
    ask = names["labels"]
    assert callable(ask)
    assert ask(served.url, ["w1 music", "light"]) == ["music", "light"]
