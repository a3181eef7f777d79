"""The site that `make docs` builds: whole, without a dead end, and read without a network."""

from __future__ import annotations

import inspect
import json
import os
import posixpath
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown_it import MarkdownIt
from once import alone, run_folder
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

import autoinit

ROOT = Path(__file__).parent.parent
PAGES = {
    page: re.sub(r"(README)?\.md$", lambda name: "index.html" if name[1] else ".html", page.removeprefix("docs/"))
    for pattern in ("*.md", "docs/*.md", "benchmarks/*.md", "benchmarks/results/*.md", "studies/*.md")
    for page in sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(pattern))
}
"""Where the site has each page of the repository."""

TUTORIALS = sorted((ROOT / "docs/tutorials").glob("*.ipynb"))

STRUCTURE = ("h2", "h3", "ul", "ol", "li", "table", "tr", "td", "th", "pre", "strong", "em")

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
NO_NETWORK = "--host-resolver-rules=MAP * ~NOTFOUND"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of the site, built once for a run of the tests."""
    folder = run_folder(tmp_path_factory) / "site"
    with alone(folder.with_name("site-lock")):
        if not (folder / "index.html").exists():
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
            environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
            built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
            assert built.returncode == 0, built.stdout + built.stderr
    return folder


class Html(HTMLParser):
    """What a page names: its anchors, its links, what it loads, and how many there are of each tag in its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.tags: Counter[str] = Counter()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = {name: value or "" for name, value in attrs}
        self.anchors |= {named[name] for name in ("id", "name") if name in named}
        self.tags[tag] += 1
        if tag == "a" and "href" in named:
            self.links.append(named["href"])
        elif "src" in named or (tag == "link" and named.get("rel") != "prev next"):
            self.loaded.append(named.get("src", named.get("href", "")))


@cache
def read(path: Path) -> Html:
    return Html(path.read_text())


def pages_of(site: Path) -> list[Path]:
    """Returns every page, apart from the one that a server shows where there is none."""
    return [path for path in sorted(site.rglob("*.html")) if path.name != "404.html"]


def article(path: Path) -> str:
    text = path.read_text()
    return text[text.index("<article") : text.index("</article>")]


# What is there


def test_every_page_is_in_the_site(site: Path) -> None:
    tutorials = {f"tutorials/{notebook.stem}.html" for notebook in TUTORIALS}
    assert len(tutorials) == 2
    assert {page for page in {*PAGES.values(), *tutorials} if not (site / page).exists()} == set()


def test_every_page_of_docs_is_in_the_menu(site: Path) -> None:
    menu = set(read(site / "index.html").links)
    wanted = {place for page, place in PAGES.items() if "/results/" not in page}
    wanted |= {f"tutorials/{notebook.stem}.html" for notebook in TUTORIALS}
    assert wanted - menu - {"index.html"} == set()


def test_every_public_name_is_documented(site: Path) -> None:
    described = set().union(*(read(page).anchors for page in (site / "api").glob("*.html")))
    names = {name for name in dir(autoinit) if not name.startswith("_")}
    assert {name for name in names if f"autoinit.{name}" not in described} == set()
    draws = {name for name, thing in vars(autoinit.init).items() if name.endswith("_") and inspect.isfunction(thing)}
    draws = {name for name in draws if vars(autoinit.init)[name].__module__ == "autoinit.init"}
    assert {name for name in draws if f"autoinit.init.{name}" not in described} == set()


def test_examples_of_docstrings_are_shown_as_code(site: Path) -> None:
    shown = article(site / "api/functions.html")
    functions = len(re.findall(r'<h2 id="autoinit\.', shown))
    assert functions == shown.count("Examples:") > 5
    assert "<blockquote>" not in shown


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_the_parts_that_it_has_in_the_repository(site: Path, page: str) -> None:
    """Lists, tables and blocks are written in GitHub's dialect, from which the site's is another."""
    shown, meant = (
        Html(article(site / PAGES[page])),
        Html(MarkdownIt("gfm-like", {"linkify": False}).render(text(page))),
    )
    assert {tag: shown.tags[tag] for tag in STRUCTURE} == {tag: meant.tags[tag] for tag in STRUCTURE}


def text(page: str) -> str:
    return (ROOT / page).read_text()


@pytest.mark.parametrize("notebook", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_is_shown_with_its_output(site: Path, notebook: Path) -> None:
    cells = json.loads(notebook.read_text())["cells"]
    shown = Html(article(site / "tutorials" / f"{notebook.stem}.html"))
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    pictures = sum("image/png" in output.get("data", {}) for output in outputs)
    assert pictures == shown.tags["img"] == 1
    assert shown.tags["pre"] == sum(cell["cell_type"] == "code" for cell in cells) + len(outputs) - pictures


# Where it leads


def test_every_link_leads_somewhere(site: Path) -> None:
    broken = []
    for page in pages_of(site):
        for link in read(page).links + read(page).loaded:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = unquote(link).partition("#")
            target = page if not path else Path(posixpath.normpath(page.parent / path))
            target = target / "index.html" if target.is_dir() else target
            if not target.exists() or (anchor and target.suffix == ".html" and anchor not in read(target).anchors):
                broken.append(f"{page.relative_to(site)}: {link}")
    assert broken == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    loaded = {link for page in pages_of(site) for link in read(page).loaded}
    styles = {
        link
        for path in site.rglob("*.css")
        for link in re.findall(r"(?:url\(|@import)\s*['\"]?([^'\")]+)", path.read_text())
    }
    assert {link for link in loaded | styles if re.match(r"(https?:)?//", link)} == set()


def test_no_page_has_what_the_theme_fetches_a_script_for(site: Path) -> None:
    """The theme's script loads a program for diagrams where a page has one."""
    assert [page.name for page in pages_of(site) if 'class="mermaid"' in page.read_text()] == []


# In a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", NO_NETWORK):
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_no_page_is_wider_than_a_phone(site: Path, browser: webdriver.Chrome) -> None:
    screen = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    wide = []
    for page in [page for page in pages_of(site) if page.parent.name != "results"]:
        browser.get(page.as_uri())
        if browser.execute_script("return document.documentElement.scrollWidth") > 390:
            wide.append(page.relative_to(site).as_posix())
    assert wide == []


def test_a_page_loads_files_only(site: Path, browser: webdriver.Chrome) -> None:
    page = (site / "tutorials/which_start.html").as_uri()
    browser.get(page)
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
    asked = {params["request"]["url"] for params in sent if params["documentURL"] == page}  # the start page has others
    assert any(url.endswith(".css") for url in asked)
    assert {url for url in asked if not url.startswith(("file:", "data:"))} == set()
    assert [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_search_finds_in_pages_opened_from_files(site: Path, browser: webdriver.Chrome) -> None:
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.set_window_size(1280, 900)
    browser.get((site / "index.html").as_uri())
    field = browser.find_element(By.CSS_SELECTOR, "input.md-search__input")
    field.click()
    field.send_keys("accelerate")
    found = WebDriverWait(browser, 20).until(lambda it: it.find_elements(By.CSS_SELECTOR, ".md-search-result__item a"))
    assert any("frameworks.html" in (link.get_attribute("href") or "") for link in found)
