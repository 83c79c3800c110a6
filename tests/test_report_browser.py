"""The report as a reader meets it: opened from disk in a browser, light, dark, narrow and by keyboard."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import msgspec
import pytest
from synthetic_rows import PRICES as SYNTHETIC
from synthetic_rows import SIZES, study_rows

from joulewise import report
from joulewise.background import Background
from joulewise.devices import describe, load_device
from joulewise.pricefile import DevicePrices, PriceList, TensorLine

axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
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
TENSORS = tuple(TensorLine(f"layer{place}.weight", "linear", size) for place, size in enumerate(SIZES))
PRICES = DevicePrices(
    unit="relative",
    boundary="synthetic",
    value_bits=32,
    density=0.01,
    fixed=0.0,
    per_kept=SYNTHETIC,
    terms={"synthetic": SYNTHETIC},
)
BACKGROUND = Background(
    numbers={"synthetic-kind-10": describe(load_device("synthetic-kind-10"))},
    prices=PriceList(tensors=TENSORS, devices={"synthetic-kind-10": PRICES}),
)
SCHEMES = ("light", "dark")
FRONTIER_POINTS = "#frontier-0 g.mark-symbol.role-mark > path"


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    rows = [
        msgspec.structs.replace(row, settings=row.settings | {"devices": "synthetic-kind-10", "clients": 2})
        for row in study_rows(densities=(0.05, 0.1), rounds=4, clients=2)
    ]
    return written(rows, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def long_address(tmp_path_factory) -> str:
    """A report on 40 arms whose names are long."""
    rows = [
        msgspec.structs.replace(row, arm=f"{row.arm} {word}", settings=row.settings | {"partition": partition})
        for row in study_rows(densities=(0.05, 0.1, 0.2), rounds=2, clients=1)
        for partition in ("IID", *(f"Dirichlet alpha={alpha} least_examples_of_a_client=10" for alpha in (0.1, 0.3, 1)))
        for word in [f"partition={partition}"]
    ]
    return written(rows, tmp_path_factory.mktemp("long"))


def written(rows, out: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "_figures", lambda *_: [])
        page, *_ = report.write(rows, out, "rounds = 4", "run", (), {"quickstart": BACKGROUND})
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

    def open_with(address=address, **settings):
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
    assert page.locator(".chart svg.marks").count() == 5
    assert page.locator(FRONTIER_POINTS).count() == 7
    assert page.locator("#curve-0-0 g.mark-line.role-mark path").count() == 4
    cells = page.locator("#kept-0 g.mark-rect.role-mark path")
    first = study_rows(densities=(0.05,), rules=("TopK",), dense=False, rounds=4, clients=2)
    kept = {(row.round, at) for row in first for one in row.clients for at, n in enumerate(one.kept_by_tensor) if n}
    assert cells.count() == len(kept) < 4 * len(SIZES)
    page.locator('select[data-chart="kept-0"]').select_option(label="Dense")
    page.wait_for_function(
        f"document.querySelectorAll('#kept-0 g.mark-rect.role-mark path').length === {4 * len(SIZES)}"
    )
    assert page.locator("#split-0 g.mark-rect.role-mark path").count() == 3 * 7


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


CUT = """() => [...document.querySelectorAll('.chart svg.marks')].flatMap((svg) => {
    const edge = svg.getBoundingClientRect();
    return [...svg.querySelectorAll('text')].filter((text) => {
        const box = text.getBoundingClientRect();
        return box.width && (box.left < edge.left - 1 || box.right > edge.right + 1);
    }).map((text) => text.textContent);
})"""


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_a_page_never_scrolls_sideways_and_no_chart_is_cut(opened, width):
    page = opened(viewport={"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(CUT) == []


def test_long_names_fit_a_phone(opened, long_address):
    page = opened(long_address, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


SHEET = {"width": 703, "height": 1016}
"""A4 without the page's margins, in pixels."""


def print_out(page) -> list[float]:
    """Lays the page out as a browser does that prints it, and tells how wide charts were drawn before."""
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    drawn = page.locator(".chart svg.marks").evaluate_all("(all) => all.map((svg) => svg.viewBox.baseVal.width)")
    page.emulate_media(media="print")
    page.set_viewport_size(SHEET)
    return drawn


@pytest.mark.parametrize(("long", "width"), [(False, 1280), (True, 390)])
def test_in_print_all_is_within_the_sheet_and_charts_are_not_shrunk(opened, request, long, width):
    settings = {"address": request.getfixturevalue("long_address")} if long else {}
    page = opened(viewport={"width": width, "height": 800}, **settings)
    drawn = print_out(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= SHEET["width"]
    assert page.evaluate(CUT) == []
    sizes = page.evaluate(
        """() => [...document.querySelectorAll('.chart svg.marks')].map((svg) => {
            const box = svg.getBoundingClientRect();
            return [box.width, box.height];
        })"""
    )
    assert all(height < 0.85 * SHEET["height"] for _, height in sizes)
    tall = 0.75 * SHEET["height"]  # may be shrunk to fit
    assert all(0.97 < now / was < 1.03 for was, (now, height) in zip(drawn, sizes, strict=True) if height < tall)
    assert all(width > 300 for width, _ in sizes)


def test_in_print_no_control_is_left_and_what_was_folded_is_open(opened):
    page = opened()
    print_out(page)
    shown = "(all) => all.filter((one) => one.checkVisibility()).map((one) => one.outerHTML)"
    assert page.locator("nav, .skip, .vega-embed summary, .screen").evaluate_all(shown) == []
    boxed = "(all) => all.filter((one) => getComputedStyle(one).borderTopStyle !== 'none').map((one) => one.outerHTML)"
    assert page.locator("select, pre").evaluate_all(boxed) == []
    assert (
        page.locator("main select").evaluate_all("(all) => all.map((one) => getComputedStyle(one).appearance)")
        == ["none"] * page.locator("main select").count()
    )
    assert page.get_by_role("table", name="on the way").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not page.get_by_role("table", name="on the way").is_visible()


def test_every_control_is_reached_by_keyboard_and_shows_its_focus(opened):
    page = opened()
    wanted = page.locator("a, select, .scroll, pre, main summary:visible").count()
    focused = """() => {
        const one = document.activeElement;
        one.dataset.reached = "yes";
        return one === document.body ? null : getComputedStyle(one).outlineStyle;
    }"""
    rings = []
    while len(rings) <= 2 * wanted:
        page.keyboard.press("Tab")
        ring = page.evaluate(focused)
        if ring is None:
            break
        rings.append(ring)
    assert set(rings) == {"solid"}
    left = page.locator("select:not([data-reached]), .scroll:not([data-reached]), summary:not([data-reached])")
    assert left.evaluate_all("(all) => all.filter((one) => one.checkVisibility()).map((one) => one.outerHTML)") == []


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


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_serious_fault(opened, scheme, width):
    page = opened(color_scheme=scheme, viewport={"width": width, "height": 800})
    page.evaluate("document.querySelectorAll('main details').forEach((part) => { part.open = true; })")
    found = axe.Axe().run(page).response["violations"]
    serious = [one for one in found if one["impact"] in {"serious", "critical"}]
    told = [(one["id"], node["target"], node.get("failureSummary")) for one in serious for node in one["nodes"]]
    assert told == []


def test_the_map_follows_its_switch_by_keyboard(opened):
    page = opened()
    cells = page.locator("#kept-0 g.mark-rect.role-mark path")
    before = cells.evaluate_all("(all) => all.map((one) => one.getAttribute('fill'))")
    page.get_by_role("combobox", name="Arm", exact=True).focus()
    page.keyboard.press("ArrowDown")
    page.wait_for_function(
        """(before) => {
            const cells = [...document.querySelectorAll('#kept-0 g.mark-rect.role-mark path')];
            return cells.length && cells.some((one, place) => one.getAttribute('fill') !== before[place]);
        }""",
        arg=before,
    )
    names = page.locator("#kept-0 .role-axis-label text").all_text_contents()
    assert {"layer0.weight", "layer5.weight"} <= set(names)


def test_assumed_numbers_and_the_share_of_parameters_at_each_price_are_in_tables(opened):
    page = opened()
    origins = page.get_by_role("table", name="where they come from")
    assert origins.get_by_role("mark").or_(origins.locator("mark")).count() == 4
    shares = page.get_by_role("table", name="how many parameters cost that")
    assert shares.get_by_role("row").count() == 3


@pytest.mark.parametrize(
    ("name", "width", "scheme"), [("desktop", 1280, "light"), ("phone", 390, "light"), ("dark", 1280, "dark")]
)
def test_labels_of_the_frontier_lie_over_no_other(opened, name, width, scheme, tmp_path):
    page = opened(color_scheme=scheme, viewport={"width": width, "height": 800})
    folder = Path(os.environ.get("JOULEWISE_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    picture = folder / f"report-{name}.png"
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 50_000
    boxes = page.evaluate(
        """() => [...document.querySelectorAll('#frontier-0 g.mark-text.role-mark text')]
            .filter((text) => text.textContent && getComputedStyle(text).opacity !== '0')
            .map((text) => text.getBoundingClientRect()).map((box) => [box.left, box.top, box.right, box.bottom])"""
    )
    assert boxes
    assert not [
        (a, b)
        for a in boxes
        for b in boxes
        if a < b and a[0] < b[2] and b[0] < a[2] and a[1] + 3 < b[3] and b[1] + 3 < a[3]
    ]
