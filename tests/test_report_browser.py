"""The report as a reader meets it: opened from disk in a browser, light, dark, narrow and by keyboard."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from synthetic_rows import study_rows

from joulewise import report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytest.importorskip("altair", reason="the report extra is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="this system has no Chromium")

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
FRONTIER_POINTS = "#frontier-0 g.mark-symbol.role-mark > path"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_figures", lambda *_: [])
        rows = study_rows(densities=(0.05, 0.1), rounds=4, clients=2)
        page, *_ = report.write(rows, tmp_path_factory.mktemp("report"), study_text="rounds = 4", command="run")
    return Path(page).as_uri()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def opened(browser, address):
    """Opens the report; fails when the page asks the network for anything or says anything on its console."""
    contexts, troubles = [], []

    def open_with(**settings):
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: troubles.append(request.url) if request.url != address else None)
        page.goto(address)
        page.wait_for_selector("html[data-ready=yes]", timeout=30_000)
        return page

    yield open_with
    for context in contexts:
        context.close()
    assert [trouble for trouble in troubles if not trouble.startswith("data:")] == []


def test_every_chart_is_drawn_with_every_arm(opened):
    page = opened()
    assert page.locator(".chart svg.marks").count() == 3
    assert page.locator(FRONTIER_POINTS).count() == 7
    assert page.locator("#curve-0-0 g.mark-line.role-mark path").count() == 4


def test_the_switches_change_axis_and_scale_by_keyboard(opened):
    page = opened()
    axis = page.locator('#frontier-0 [aria-roledescription="axis"]').first
    assert re.search("Uplink energy, modelled.*log scale", axis.get_attribute("aria-label"))
    page.get_by_role("combobox", name="Horizontal axis").focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#frontier-0 [aria-label*='Uplink bytes'][aria-label*='log scale']")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#frontier-0 [aria-label*='Uplink bytes'][aria-label*='linear scale']")
    assert page.locator(FRONTIER_POINTS).count() == 7


def test_a_point_under_the_pointer_tells_its_numbers(opened):
    page = opened()
    page.locator(FRONTIER_POINTS).first.hover()
    tip = page.locator("#vg-tooltip-element.visible")
    tip.wait_for()
    assert "Dense" in tip.inner_text()
    assert "relative units" in tip.inner_text()


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_a_page_never_scrolls_sideways_and_no_chart_is_cut(opened, width):
    page = opened(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    cut = page.evaluate(
        """() => [...document.querySelectorAll('.chart svg.marks')].flatMap((svg) => {
            const edge = svg.getBoundingClientRect();
            return [...svg.querySelectorAll('text')].filter((text) => {
                const box = text.getBoundingClientRect();
                return box.width && (box.left < edge.left - 1 || box.right > edge.right + 1);
            }).map((text) => text.textContent);
        })"""
    )
    assert cut == []


def test_ink_and_paper_follow_the_readers_choice_and_print_is_light(opened):
    page = opened(color_scheme="dark")
    read = """() => {
        const [body, title] = ['body', '#frontier-0 svg .role-axis-title text'].map(
            (selector) => getComputedStyle(document.querySelector(selector)));
        return [body.backgroundColor, body.color, title.fill];
    }"""
    assert page.evaluate(read) == ["rgb(20, 23, 27)", "rgb(231, 234, 238)", "rgb(231, 234, 238)"]
    page.emulate_media(media="print")
    assert page.evaluate(read) == ["rgb(255, 255, 255)", "rgb(0, 0, 0)", "rgb(0, 0, 0)"]
    page.emulate_media(media="screen", color_scheme="light")
    assert page.evaluate(read) == ["rgb(255, 255, 255)", "rgb(27, 31, 36)", "rgb(27, 31, 36)"]


def test_a_reader_without_sight_finds_headings_tables_and_named_charts(opened):
    page = opened()
    assert page.get_by_role("heading", level=1).count() == 1
    assert page.get_by_role("group", name="final accuracy of each arm against").count() == 1
    table = page.get_by_role("table", name="accuracy after 4 rounds")
    assert table.get_by_role("rowheader").count() == 7
    assert page.evaluate("document.documentElement.lang") == "en"
