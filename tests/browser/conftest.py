"""One JupyterLab for all tests here, and one headless Chromium a file; without them the tests say that they were skipped."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # driver, for the tests

import driver


@pytest.fixture(scope="session")
def chromium() -> str:
    """Where Chromium is; without it, or without Playwright, the tests are skipped."""
    pytest.importorskip("playwright", reason="NO BROWSER TEST: playwright is not installed")
    found = driver.chromium()
    if found is None:
        pytest.skip(f"NO BROWSER TEST: none of {', '.join(driver.BROWSERS)} is installed")
    return found


@pytest.fixture(scope="module")
def browser(chromium):
    """Closed after each file: as long as it is open, Playwright's event loop counts as running, for other tests too."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def lab(chromium, tmp_path_factory):
    with driver.jupyterlab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where pictures of the pages are kept: pytest's folder for temporary files keeps those of the last three runs."""
    return tmp_path_factory.mktemp("screenshots")


@pytest.fixture(scope="module")
def context(browser):
    """A window, with a clipboard."""
    context = browser.new_context(viewport={"width": 1280, "height": 1400}, permissions=["clipboard-read", "clipboard-write"])
    context.set_default_timeout(1000 * driver.PATIENCE)
    yield context
    context.close()
