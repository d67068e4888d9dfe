"""The site builds without a warning, has an entry for everything there is, and fetches nothing from elsewhere."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest

import plimsoll
from plimsoll.cli import app
from plimsoll.core import find
from plimsoll.core.spec import Budget

ROOT = Path(__file__).parents[2]

_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "audio": "src", "video": "src",
          "embed": "src", "object": "data", "use": "href"}
"""Elements that fetch what an attribute names; `link` does, too, but for a few relations."""
_ONLY_NAMES = {"canonical", "next", "prev", "alternate", "author", "license"}


class Loads(HTMLParser):
    """Collects every address that a page fetches by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        address = named.get("href") if tag == "link" and named.get("rel") not in _ONLY_NAMES else named.get(
            _LOADS.get(tag, ""))
        self.found += [address] if address else []
        self.found += re.findall(r"url\(\s*['\"]?([^'\")]+)", named.get("style") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site") / "site"
    done = subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING  -" not in done.stderr
    return out


def text(page: Path) -> str:
    """Return a page's text without its tags."""
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text()))


def headings(page: Path) -> set[str]:
    found = re.findall(r"<h2[^>]*>(.*?)</h2>", page.read_text(), re.S)
    return {html.unescape(re.sub(r"<[^>]+>", "", h)).strip("¶ \n") for h in found}


def test_every_verb_has_its_entry_with_its_options(site: Path) -> None:
    verbs = {name for name in app if not name.startswith("-")}
    assert {f"plimsoll {verb}" for verb in verbs} <= headings(site / "reference" / "verbs.html")
    page = text(site / "reference" / "verbs.html")
    for words in ("--set", "--out", "The TOML file with the task, the model and the limits.", "<name of the spec>"):
        assert words in page


@pytest.mark.parametrize("folder", ["moves", "runtimes", "tasks"])
def test_every_part_has_its_entry_with_its_fields(folder: Any, site: Path) -> None:
    page = site / "reference" / f"{folder}.html"
    shown = {name.replace("_", "-") if folder == "tasks" else name for name in find.names(folder)}
    assert shown <= headings(page)
    words = " ".join(text(page).split())
    for name in find.names(folder):
        cls = find.part(folder, name)
        for field, says in find.field_docs(cls).items():
            if field in cls.model_fields:
                assert f"{field}: " in words
                assert says.replace("`", "") in words


def test_the_spec_and_the_public_names_have_theirs(site: Path) -> None:
    page = " ".join(text(site / "reference" / "spec.html").split())
    for field, says in find.field_docs(Budget).items():
        assert f"{field}: " in page
        assert says.replace("`", "") in page
    names = text(site / "reference" / "python.html")
    assert all(f"plimsoll.{name}" in names for name in plimsoll.__all__)
    assert "UserError                2" in names


def test_decisions_and_stored_searches_are_listed_and_their_pages_are_there(site: Path) -> None:
    listed = (site / "decisions" / "index.html").read_text()
    for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"):
        assert f'href="{path.stem}.html"' in listed
        assert (site / "decisions" / f"{path.stem}.html").exists()
    gallery = (site / "gallery" / "index.html").read_text()
    stored = [p for p in (ROOT / "benchmarks" / "results").glob("*.json") if '"decision": {' in p.read_text()]
    links = re.findall(r'href="([^"/]+\d{4}-\d\d-\d\d-[0-9a-f]{8}\.html)"', gallery)
    assert len(set(links)) == len(stored) > 0
    assert all((site / "gallery" / link).exists() for link in links)


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        loads = Loads()
        loads.feed(page.read_text())
        for address in loads.found:
            assert not re.match(r"(?:[a-z][\w+.-]*:)?//", address), f"{page.relative_to(site)} fetches {address[:80]}"
            if not address.startswith(("data:", "#")) and page.name != "404.html":
                assert (page.parent / address.partition("#")[0].partition("?")[0]).exists(), f"{page}: no {address}"
    for sheet in site.rglob("*.css"):
        for address in re.findall(r"(?:url\(\s*['\"]?|@import\s+['\"])([^'\")]+)", sheet.read_text()):
            assert not address.startswith(("http:", "https:", "//")), f"{sheet.name} fetches {address}"


def test_what_is_not_for_readers_is_left_out(site: Path) -> None:
    assert not (site / "next.html").exists()
    assert not list(site.rglob("*.py"))


def test_markup_in_a_stored_decision_is_text_in_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs" / "hooks")
    import gallery

    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    evil = next(p for p in results if '"decision": {' in p.read_text()).read_text().replace(
        "AMD EPYC", "<script>alert(1)</script>|[x](y)")
    assert "<script>alert(1)" in evil
    (tmp_path / "evil@f00dfeed00000000@2026-01-01.json").write_text(evil)
    pages = cast(dict[str, str], gallery.pages(tmp_path))
    assert "<script>" not in pages["gallery/index.md"]
    assert pages["gallery/index.md"].splitlines()[-1].replace("\\|", "").count("|") == 8
    assert "<script>alert(1)" not in pages["gallery/evil-2026-01-01-f00dfeed.html"]
