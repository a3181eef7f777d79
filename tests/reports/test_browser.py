"""Reports opened in a real browser, Chromium without a window."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_lines import digits, study_results, tanh_net
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

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
EXPECTED = {
    "study": {"gains-probe", "gains-long", "curves", "heat-map", "gain-map", "importance", "layers"},
    "selection": {"losses", "trials"},
    "diagnosis": {"layers"},
}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(None in (CHROMIUM, DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    selection = autoinit.select(tanh_net(), digits(), budget=autoinit.Budget(steps=400), executor="sequential")
    for name, what in (
        ("study", study_results()),
        ("selection", selection),
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
    browser.get(pages[name].as_uri())
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
    browser.get(pages["study"].as_uri())
    assert browser.execute_script("return window.innerWidth") in (390, 1200)  # type: ignore[no-untyped-call]


def test_choosing_a_task_draws_its_curves(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    browser.get(pages["study"].as_uri())
    choice = Select(browser.find_element(By.CSS_SELECTOR, "select[data-figure=curves]"))
    assert len(choice.options) == 4
    line = "#curves .main-svg .js-line"
    before = browser.find_element(By.CSS_SELECTOR, line).get_attribute("d")
    choice.select_by_visible_text("tanh.digits.sgd (probe)")
    after = browser.find_element(By.CSS_SELECTOR, line).get_attribute("d")
    assert after
    assert after != before
    assert severe(browser) == []


def test_traceback_opens_on_a_click(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    browser.get(pages["study"].as_uri())
    [part] = [p for p in browser.find_elements(By.TAG_NAME, "details") if p.text.startswith("broken.digits.sgd")]
    assert "Traceback" not in part.text
    part.find_element(By.TAG_NAME, "summary").click()
    assert "Traceback" in part.text


def test_an_error_in_a_page_would_be_seen(browser: webdriver.Chrome, pages: dict[str, Path]) -> None:
    """The console that the other tests look at does tell of a script that fails."""
    broken = pages["study"].with_name("broken.html")
    page = pages["study"].read_text()
    broken.write_text(page.replace("for (const figure of figures) {", "for (const figure of missing) {"))
    browser.get(broken.as_uri())
    assert any("missing is not defined" in message for message in severe(browser))
    assert drawn(browser) == set()
