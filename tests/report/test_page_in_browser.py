"""report.html in a browser: it opens by itself, the switch, hover and click work, and nothing leaves the file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from plimsoll.core.dossier import Dossier
from plimsoll.report import page as report

SCREENSHOTS = Path(__file__).parents[2] / "build" / "screenshots"
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
             "--disable-background-networking", "--disable-component-update", "--disable-sync"]
ATTACK = "<script>document.title='gone'</script><img src=x onerror=\"document.title='gone'\"> \x1b[31m"
VIEWS = ("technical", "tradeoffs", "impact")


def chromium(own: str) -> str:
    """Return the browser to start: CHROMIUM, one on the path, or the one that Playwright installed."""
    for name in (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome"):
        if name and (found := shutil.which(name)):
            return found
    if Path(own).exists():
        return own
    pytest.fail("no Chromium to open pages in: apt-get install chromium, or playwright install chromium, or set "
                "CHROMIUM to the path of one", pytrace=False)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        kind = playwright.chromium
        started = kind.launch(executable_path=chromium(kind.executable_path), args=ARGUMENTS)
        yield started
        started.close()


class Opened:
    """A page in the browser, with everything that it complained of and asked for."""

    def __init__(self, browser: Browser, file: Path, **context: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda m: self.wrong.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.wrong.append(str(e)))
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.url = file.as_uri()
        self.go()

    def go(self, hash_: str = "") -> None:
        self.page.goto(self.url + hash_)
        self.page.wait_for_selector("html[data-ready]", state="attached")

    def keep(self, name: str, *, whole: bool = True) -> None:
        """Take a picture for a person to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=whole)


@pytest.fixture
def opened(
    browser: Browser, make: Callable[..., Dossier], tmp_path: Path
) -> Iterator[Callable[..., Opened]]:
    """Return a function that opens the page of a dossier; in the end nothing may have gone wrong or been asked for."""
    pages: list[Opened] = []

    def of(dossier: Dossier | None = None, **context: Any) -> Opened:
        file = report.keep(dossier or make(), tmp_path)
        pages.append(Opened(browser, file, **context))
        return pages[-1]

    yield of
    for one in pages:
        assert one.wrong == []
        assert {url.partition("#")[0] for url in one.asked} == {one.url}
        one.context.close()


def test_every_chart_is_drawn_and_named_for_a_screen_reader(opened: Callable[..., Opened]) -> None:
    one = opened()
    charts = one.page.locator("[data-chart]")
    assert charts.count() >= 10
    assert one.page.locator("[data-chart][role='graphics-document'][aria-label] svg").count() == charts.count()
    assert one.page.locator("[data-chart] .absent").count() == 0
    one.keep("technical-1280")


def test_the_switch_shows_the_sections_of_a_view_and_the_address_keeps_it(opened: Callable[..., Opened]) -> None:
    one = opened()
    page = one.page
    expect(page.locator("#quality")).to_be_visible()
    expect(page.locator("#impact")).not_to_be_visible()
    page.get_by_text("Impact", exact=True).click()
    expect(page.locator("#impact")).to_be_visible()
    expect(page.locator("#quality")).not_to_be_visible()
    expect(page.locator("#limits")).to_be_visible()
    assert page.url.endswith("#impact")
    one.keep("impact-1280")
    page.reload()
    page.wait_for_selector("html[data-ready]", state="attached")
    expect(page.get_by_role("radio", name="Impact")).to_be_checked()
    expect(page.locator("#impact")).to_be_visible()


def test_the_switch_is_one_stop_of_the_keyboard_and_arrows_move_it(opened: Callable[..., Opened]) -> None:
    one = opened()
    page = one.page
    page.get_by_role("radio", name="Technical detail").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="Architecture trade-offs")).to_be_focused()
    expect(page.locator("#front")).to_be_visible()
    expect(page.locator("#machine")).not_to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#impact")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#machine")).to_be_visible()


def test_a_link_skips_to_the_content_and_keeps_the_view(opened: Callable[..., Opened]) -> None:
    one = opened()
    one.go("#impact")
    assert one.page.evaluate("document.querySelector('a, button, input').textContent") == "Skip to the content"
    one.page.get_by_role("link", name="Skip to the content").press("Enter")
    expect(one.page.locator("#impact")).to_be_visible()
    one.page.keyboard.press("Tab")
    assert one.page.evaluate("document.activeElement.closest('section').id") == "impact"


def test_an_address_with_a_section_opens_a_view_that_has_it(opened: Callable[..., Opened]) -> None:
    one = opened()
    one.go("#impact/front")
    expect(one.page.locator("#front")).to_be_in_viewport()
    assert one.page.evaluate("document.activeElement.id") == "front-title"
    one.page.locator("#sections").get_by_text("Machine", exact=True).click()
    expect(one.page.locator("#machine")).to_be_in_viewport()


def test_hover_shows_the_recipe_and_a_click_its_trial(
    opened: Callable[..., Opened], make: Callable[..., Dossier]
) -> None:
    one = opened(make(lambda name: f"{name} {ATTACK}"))
    page = one.page
    points = page.locator("[data-chart='front'] .mark-symbol.role-mark path[aria-roledescription='point']")
    assert points.count() == 8
    points.nth(2).scroll_into_view_if_needed()
    points.nth(2).hover()
    tooltip = page.locator("#vg-tooltip-element.visible")
    expect(tooltip).to_contain_text("finetune > augment file")
    expect(tooltip).to_contain_text("<script>")
    one.keep("hover-1280", whole=False)
    points.nth(2).click()
    panel = page.get_by_role("complementary")
    expect(panel).to_be_visible()
    expect(panel).to_contain_text("finetune > augment file")
    expect(panel).to_contain_text("peak memory")
    expect(panel).to_be_focused()
    one.keep("trial-1280", whole=False)
    page.keyboard.press("Escape")
    expect(panel).not_to_be_visible()
    assert page.title().startswith("met: ")
    assert page.evaluate("[document.scripts.length, document.images.length]") == [3, 0]


def test_a_trial_opens_from_a_table_by_keyboard_and_focus_comes_back(opened: Callable[..., Opened]) -> None:
    one = opened()
    page = one.page
    button = page.locator("#rejected button.link").nth(3)
    button.focus()
    page.keyboard.press("Enter")
    panel = page.get_by_role("complementary")
    expect(panel).to_contain_text("Where it broke")
    expect(panel).to_contain_text("in traceback4")
    page.get_by_role("button", name="Close").click()
    expect(panel).not_to_be_visible()
    expect(button).to_be_focused()


def test_the_decision_log_is_filtered_and_sorted(opened: Callable[..., Opened]) -> None:
    page = opened().page
    rows = page.locator("#rejected tbody tr")
    page.get_by_label("Filter").fill("rejected7")
    expect(page.locator("#count")).to_have_text("1 of 9 recipes")
    expect(rows.filter(has_text="rejected7")).to_be_visible()
    page.get_by_label("Filter").fill("")
    page.get_by_label("State").select_option("failed")
    expect(page.locator("#count")).to_have_text("2 of 9 recipes")
    page.get_by_label("State").select_option("")
    table = page.locator("#quality table.sortable").first
    table.get_by_role("button", name="recall").click()
    table.get_by_role("button", name="recall").click()
    expect(table.locator("tbody tr").first).to_contain_text("class-name-8")
    expect(table.locator("th[aria-sort='descending']")).to_have_count(1)


def test_machines_and_money_follow_from_what_is_filled_in(opened: Callable[..., Opened]) -> None:
    one = opened()
    one.go("#impact")
    page = one.page
    machines = page.locator("#bill [data-line='machines'] [data-who='chosen']")
    expect(machines).to_have_text("-")
    page.get_by_label("Requests a second", exact=True).fill("20000")
    page.get_by_label("Cores of a machine").fill("8")
    page.get_by_label("Price of a machine-hour").fill("0.5")
    page.get_by_label("Share of the cores").fill("50")
    per_core = 1000 / (1.1 * 0.7) / 2
    cores = 20000 / (per_core * 0.5)
    expect(page.locator("#bill [data-line='cores'] [data-who='chosen']")).to_have_text(f"{cores:.2f}")
    expect(machines).to_have_text("8")
    expect(page.locator("#bill [data-line='month'] [data-who='chosen']")).to_have_text(f"{8 * 0.5 * 730:,.0f}")
    expect(page.locator("#bill [data-line='machines'] [data-who='baseline']")).to_have_text("84")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_down_and_never_sideways(opened: Callable[..., Opened], scheme: Any) -> None:
    one = opened(viewport={"width": 390, "height": 844}, color_scheme=scheme, has_touch=True)
    for view in VIEWS:
        one.go(f"#{view}")
        assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
        one.keep(f"{view}-390-{scheme}")
    one.page.locator("#limits button.link, .recipe button.link").first.tap()
    expect(one.page.get_by_role("complementary")).to_be_visible()
    one.keep(f"trial-390-{scheme}", whole=False)


def test_the_charts_follow_the_page_into_the_dark(opened: Callable[..., Opened]) -> None:
    light, dark = opened(), opened(color_scheme="dark")
    colors = """() => [getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector("[data-chart='front'] .role-axis-title text")).fill]"""
    assert light.page.evaluate(colors) == ["rgb(255, 255, 255)", "rgb(86, 99, 111)"]
    assert dark.page.evaluate(colors) == ["rgb(16, 21, 26)", "rgb(155, 168, 179)"]
    dark.keep("technical-1280-dark")


def test_paper_gets_every_view_and_no_controls(opened: Callable[..., Opened]) -> None:
    one = opened(color_scheme="dark", viewport={"width": 718, "height": 1000})
    one.go("#impact")
    one.page.emulate_media(media="print")
    for section in one.page.locator("main > section").all():
        expect(section).to_be_visible()
    expect(one.page.locator(".bar")).not_to_be_visible()
    expect(one.page.locator("#filter")).not_to_be_visible()
    assert one.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 718
    one.keep("print")


def test_a_search_that_was_over_before_it_began_has_a_page_too(
    opened: Callable[..., Opened], ruled_out: Dossier
) -> None:
    one = opened(ruled_out)
    expect(one.page.get_by_role("heading", level=1)).to_contain_text("Not met")
    for view in VIEWS:
        one.go(f"#{view}")
    one.keep("ruled-out-1280")
