"""Reports opened in a real browser, Chromium without a window."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from report_lines import digits, sgd, study_results, tanh_net
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait
from torch import nn

import autoinit
from autoinit.reports.reporting import report

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
MANY = 302
"""Runs of the selection: the table of all of them once made a page of 17,000 points."""

EXPECTED = {
    "study": {"gains-probe", "gains-long", "curves", "heat-map", "gain-map", "importance", "layers"},
    "selection": {"pairs", "race", "layers", "trials"},
    "diagnosis": {"layers"},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    found = autoinit.select(
        deep_net(), digits(), optimizer=sgd, budget=autoinit.Budget(steps=400), executor="sequential"
    )
    many = pd.concat([found.trials] * 40, ignore_index=True).head(MANY)
    for name, what in (
        ("study", study_results()),
        ("selection", dataclasses.replace(found, trials=many)),
        ("diagnosis", autoinit.diagnose(tanh_net(), digits())),
    ):
        report(what, folder / f"{name}.html")
    return {name: folder / f"{name}.html" for name in EXPECTED}


@pytest.fixture(scope="module", params=[390, 1200], ids=["phone", "desktop"])
def browser(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    # A window cannot be made as narrow as a phone's; its screen can be emulated.
    screen = {"width": request.param, "height": 844, "pixelRatio": 1.0}
    options.add_experimental_option("mobileEmulation", {"deviceMetrics": screen})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.binary_location = str(CHROMIUM)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def deep_net() -> nn.Module:
    """Fifteen layers that do not train from PyTorch's own weights, so that others are chosen."""
    torch.manual_seed(0)
    hidden = [nn.Sequential(nn.Linear(64, 64), nn.Tanh()) for _ in range(14)]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def open_page(browser: webdriver.Chrome, page: Path) -> None:
    """Opens a page and waits until its figures are drawn, or cannot be."""
    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(lambda seen: seen.execute_script("return document.documentElement.dataset.drawn"))  # type: ignore[no-untyped-call]


def drawn(browser: webdriver.Chrome) -> set[str]:
    """Returns the ids of the figures that plotly has drawn something in."""
    figures = browser.find_elements(By.CSS_SELECTOR, ".figure")
    marks = ".main-svg .points path, .main-svg .js-line, .main-svg .hm image"
    return {figure.get_attribute("id") or "" for figure in figures if figure.find_elements(By.CSS_SELECTOR, marks)}


def severe(browser: webdriver.Chrome) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def requests(browser: webdriver.Chrome, page: str) -> set[str]:
    """Returns every address that a page asked for, its own among them; the browser's start page has others."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [message["params"] for message in messages if message["method"] == "Network.requestWillBeSent"]
    return {params["request"]["url"] for params in sent if params["documentURL"] == page}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_page_is_drawn_without_errors_or_network(name: str, browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    open_page(browser, pages[name])
    found = drawn(browser)
    assert found >= EXPECTED[name]
    assert found == {figure.get_attribute("id") for figure in browser.find_elements(By.CSS_SELECTOR, ".figure")}
    assert severe(browser) == []
    asked = requests(browser, pages[name].as_uri())
    assert pages[name].as_uri() in asked
    assert {address for address in asked if not address.startswith(("data:", "blob:"))} == {pages[name].as_uri()}
    width, inner = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")  # type: ignore[no-untyped-call]
    assert width <= inner, "nothing may stick out to the right"


def test_window_of_the_phone_is_as_narrow_as_it_says(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    open_page(browser, pages["study"])
    assert browser.execute_script("return window.innerWidth") in (390, 1200)  # type: ignore[no-untyped-call]


def test_choosing_a_task_draws_its_curves(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    open_page(browser, pages["study"])
    choice = Select(browser.find_element(By.CSS_SELECTOR, "select[data-figure=curves]"))
    assert len(choice.options) == 4
    line = "#curves .main-svg .js-line"
    before = browser.find_element(By.CSS_SELECTOR, line).get_attribute("d")
    choice.select_by_visible_text("relu.digits.sgd (long trainings)")
    after = browser.find_element(By.CSS_SELECTOR, line).get_attribute("d")
    assert after
    assert after != before
    assert severe(browser) == []


def test_traceback_opens_on_a_click(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    open_page(browser, pages["study"])
    [part] = [p for p in browser.find_elements(By.TAG_NAME, "details") if p.text.startswith("broken.digits.sgd")]
    assert "Traceback" not in part.text
    part.find_element(By.TAG_NAME, "summary").click()
    assert "Traceback" in part.text


def test_an_error_in_a_page_would_be_seen(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    """The console that the other tests look at does tell of a script that fails."""
    broken = pages["study"].with_name("broken.html")
    page = pages["study"].read_text()
    broken.write_text(page.replace("for (const figure of figures) {", "for (const figure of missing) {"))
    open_page(browser, broken)
    assert any("missing is not defined" in message for message in severe(browser))
    assert drawn(browser) == set()


@pytest.mark.parametrize("name", list(EXPECTED))
def test_nothing_of_a_table_is_cut(name: str, browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    """On a phone every cell of every table is seen without scrolling sideways, folded ones opened."""
    open_page(browser, pages[name])
    width, rights = browser.execute_script(  # type: ignore[no-untyped-call]
        "document.querySelectorAll('details').forEach(part => { part.open = true; });"
        "const seen = [...document.querySelectorAll('td, pre, .figure')].map(e => e.getBoundingClientRect().right);"
        "return [window.innerWidth, seen]"
    )
    assert rights
    assert max(rights) <= width
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width  # type: ignore[no-untyped-call]


def test_runs_are_folded_and_paged(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    open_page(browser, pages["selection"])
    height = browser.execute_script("return document.documentElement.scrollHeight")  # type: ignore[no-untyped-call]
    assert height < 7000
    [part] = [p for p in browser.find_elements(By.TAG_NAME, "details") if p.text.startswith(f"All {MANY} runs")]
    assert not [row for row in part.find_elements(By.TAG_NAME, "tr") if row.is_displayed()]
    browser.execute_script("arguments[0].open = true", part)  # type: ignore[no-untyped-call]

    def shown() -> list[str]:
        rows = part.find_elements(By.CSS_SELECTOR, "tbody tr")
        return [row.find_elements(By.TAG_NAME, "td")[1].text for row in rows if row.is_displayed()]

    first = shown()
    assert len(first) == 20
    back, further = part.find_elements(By.TAG_NAME, "button")
    assert not back.is_enabled()
    browser.execute_script("arguments[0].click()", further)  # type: ignore[no-untyped-call]
    assert len(shown()) == 20
    assert "21 to 40 of 302" in part.text
    for _ in range(14):
        browser.execute_script("arguments[0].click()", further)  # type: ignore[no-untyped-call]
    assert len(shown()) == 2
    assert not further.is_enabled()


def luminance(colour: str) -> float:
    """Returns how bright a colour such as "rgb(28, 34, 41)" is, from 0 to 255."""
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 3


def test_dark_pages_have_dark_figures_and_are_printed_light(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    look = (
        "const colour = (place, key) => getComputedStyle(document.querySelector(place))[key];"
        "return [colour('body', 'backgroundColor'), colour('#race .main-svg', 'backgroundColor'),"
        " colour('body', 'color'), colour('#race .xtick text', 'fill')]"
    )
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    open_page(browser, pages["selection"])
    try:
        *backs, ink, ticks = map(luminance, browser.execute_script(look))  # type: ignore[no-untyped-call]
        assert min(backs) > 200 > 90 > max(ink, ticks)
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", dark)
        WebDriverWait(browser, 20).until(lambda seen: luminance(seen.execute_script(look)[1]) < 60)  # type: ignore[no-untyped-call]
        *backs, ink, ticks = map(luminance, browser.execute_script(look))  # type: ignore[no-untyped-call]
        assert max(backs) < 60 < 180 < min(ink, ticks)
        browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")  # type: ignore[no-untyped-call]
        assert luminance(browser.execute_script(look)[1]) > 200  # type: ignore[no-untyped-call]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_selection_is_printed_on_a_few_sheets(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    open_page(browser, pages["selection"])
    printed = base64.b64decode(browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"])
    assert printed.startswith(b"%PDF")
    sheets = len(re.findall(rb"/Type\s*/Page\b", printed))
    assert 2 <= sheets <= 6
    assert severe(browser) == []
