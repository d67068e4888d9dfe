"""What the how-to pages show is true: their commands run, their specs parse, their Python runs, in the page's order.

The spec.toml in the folder where a page runs is that of the fake runtime, whose search takes a moment. A block that
would train for minutes stands below a comment `<!-- only read: why -->`, which no reader sees: its commands are parsed
and not run.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plimsoll import cli
from plimsoll.core.spec import Spec

ROOT = Path(__file__).parents[2]
PAGES = [*sorted((ROOT / "docs" / "howto").glob("*.md")), ROOT / "docs" / "index.md"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

SPEC = """
[task]
kind = "text-classification"
train = "train.jsonl"
test = "test.jsonl"
[model]
name = "model"
[budget]
min_speedup = 2
quality_drop = 0.02
[target]
threads = 1
runtimes = ["null"]
baseline = {runtime = "null", delay_ms = 1.5}
[search]
moves = []
"""

# MLflow's own tables, under SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

Block = tuple[str, str, str, str]
"""Language, title, text, and why it is only read."""


def blocks(page: Path) -> list[Block]:
    found = re.findall(r'^(?:<!-- only read: ([^\n]+) -->\n)?```(\w+)(?: title="([^"]+)")?\n(.*?)^```$',
                       page.read_text(), re.S | re.M)
    return [(language, title, text, why) for why, language, title, text in found]


def commands(text: str) -> list[list[str]]:
    lines = text.splitlines()
    assert all(line.startswith("$ ") for line in lines), "a console block shows commands, not what they print"
    return [shlex.split(line.removeprefix("$ ")) for line in lines]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where every page runs: a spec names its rows by their whole path, so a finished run belongs to one place."""
    return tmp_path_factory.mktemp("howto") / "home"


@pytest.fixture
def home(null_folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with what the pages name: rows, rows of another task, a spec and a finished run of it."""
    kept, first = place.with_name("kept"), not place.exists()
    if first:
        shutil.copytree(null_folder, place)
        rows = (place / "test.jsonl").read_text().splitlines(keepends=True)
        (place / "test.jsonl").write_text("".join(rows[:300]))
        (place / "other.jsonl").write_text("".join(rows[300:]))
        (place / "spec.toml").write_text(SPEC)
        shutil.copytree(ROOT / "benchmarks" / "results", place / "benchmarks" / "results")
    else:
        shutil.rmtree(place)
        shutil.copytree(kept, place)
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    before = set(sys.modules)
    if first:
        assert cli.run(["tune", "spec.toml"]) == 0
        shutil.copytree(place, kept)
    yield place
    for name in set(sys.modules) - before:  # those the page itself wrote
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(place)):
            del sys.modules[name]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_is_true(page: Path, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for language, title, text, why in blocks(page):
        if language == "console":
            for command in commands(text):
                _known(command)
                if not why and command[0] == "plimsoll":
                    code = cli.run(command[1:])
                    assert code in (0, 3), f"{shlex.join(command)} exits with {code}: {capsys.readouterr().err}"
        elif language == "toml":
            tables = tomllib.loads(text)
            if "project" in tables:
                groups = {f"plimsoll.{folder}" for folder in ("moves", "runtimes", "tasks")}
                assert set(tables["project"]["entry-points"]) <= groups
            elif not why:
                Spec.parse(tables if "task" in tables else tomllib.loads(SPEC) | tables)
        elif language == "python" and title:
            (home / title).write_text(text)
            _run_file(home / title)
        else:
            assert language == "python", f"a block of {language} is of no kind that is tried"
            exec(compile(text, page.name, "exec"), names)


def test_the_pages_have_blocks_of_every_kind_and_what_is_only_read_says_why() -> None:
    found = [block for page in PAGES for block in blocks(page)]
    assert {language for language, *_ in found} == {"console", "toml", "python"}
    fences = sum(page.read_text().count("\n```") for page in PAGES)
    assert len(found) * 2 == fences
    assert sum("<!--" in page.read_text() for page in PAGES) <= len(found)
    assert sum(bool(why) for *_, why in found) < len(found) / 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_in_the_navigation(page: Path) -> None:
    assert f": {page.relative_to(ROOT / 'docs')}" in (ROOT / "mkdocs.yml").read_text()


def _known(command: list[str]) -> None:
    """Raise when a command names a verb, an option, an extra, a file or a target that does not exist."""
    match command:
        case ["plimsoll", *arguments]:
            cli.app.parse_args(arguments, exit_on_error=False, print_error=False)
        case ["pip", "install", what]:
            extras = re.fullmatch(rf"{PROJECT['name']}\[([\w,]+)\]", what)
            assert extras, f"{what} is not this package with an extra"
            assert set(extras[1].split(",")) <= set(PROJECT["optional-dependencies"])
        case ["make", target, *_]:
            assert re.search(rf"(?m)^{target}:", (ROOT / "Makefile").read_text()), f"no target {target}"
        case ["python", file, *_]:
            assert (ROOT / file).exists(), f"no {file}"
        case _:
            pytest.fail(f"a command of no kind that is tried: {shlex.join(command)}")


def _run_file(file: Path) -> None:
    """Import a file that a page names; run the tests in it, if it is one of tests."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    for name, test in vars(module).items():
        if name.startswith("test_") and inspect.isfunction(test):
            (file.parent / name).mkdir()
            test(file.parent / name)
