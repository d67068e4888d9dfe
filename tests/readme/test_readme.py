"""What the README shows is true: its spec parses, its Python runs, its table names every runtime."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import plimsoll
from plimsoll.core import find
from plimsoll.core.spec import Spec

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.S)


def test_the_spec_is_a_spec() -> None:
    (block,) = blocks("toml")
    assert Spec.parse(tomllib.loads(block)).budget.p95_ms == 3.0


def test_the_python_runs(
    null_folder: Path, null_tables: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(null_folder)
    (null_folder / "spec.toml").write_text(
        '[task]\nkind = "text-classification"\ntrain = "train.jsonl"\ntest = "test.jsonl"\n'
        f'[model]\nname = "{null_tables["model"]["name"]}"\n[budget]\nmin_speedup = 2\nquality_drop = 0.02\n'
        '[target]\nthreads = 1\nruntimes = ["null"]\n'
        'baseline = {runtime = "null", delay_ms = 1.5}\n[search]\nmoves = []\n'
    )
    (block,) = blocks("python")
    exec(compile(block, "README.md", "exec"), {})
    verdict, label = capsys.readouterr().out.splitlines()
    assert verdict.startswith("met ")
    assert label in ("light", "music", "weather")


@pytest.mark.parametrize("folder", ["runtimes", "moves"])
def test_the_table_of_parts_is_whole(folder: Any) -> None:
    (section,) = re.findall(rf"## {folder.title()}\n(.*?)\n## ", README, re.S)
    named = set(re.findall(r"^\| `(\w+)` \|", section, re.M))
    assert named == set(find.names(folder)) - {"null"}


def test_the_verbs_exist() -> None:
    from plimsoll.cli import app

    for verb in re.findall(r"^plimsoll (\w+)", README, re.M):
        assert app[verb]
    assert plimsoll.__all__
