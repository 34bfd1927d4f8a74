"""A real browser on a real JupyterLab; one of each for the tests of a module."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab_page import LabPage, new_context
from lab_server import LabServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "browser: drives a real JupyterLab in Chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def _missing() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "the Python package playwright is missing"
    return "" if CHROMIUM.exists() else f"{CHROMIUM} is missing"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; where it is missing the tests are skipped, unless TS_REQUIRE names ``browser``."""
    missing = _missing()
    if missing and "browser" in os.environ.get("TS_REQUIRE", "").replace(",", " ").split():
        pytest.fail(f"TS_REQUIRE asks for a browser, and {missing}.")
    if missing:
        pytest.skip(f"No browser: {missing}.")
    from playwright.sync_api import sync_playwright

    # Its event loop lives on this thread until it is closed: one a module, never longer.
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def elsewhere() -> list[str]:
    """Addresses outside this computer that pages asked for; none was reached."""
    return []


@pytest.fixture(scope="module")
def context(browser: Browser, elsewhere: list[str]) -> Iterator[BrowserContext]:
    made = new_context(browser, elsewhere, viewport={"width": 1100, "height": 1000})
    yield made
    made.close()


@pytest.fixture(scope="module")
def disabled_extensions() -> tuple[str, ...]:
    """Front-end extensions that the module's JupyterLab goes without."""
    return ()


@pytest.fixture(scope="module")
def extension() -> bool:
    """Whether the module's JupyterLab has our own extension."""
    return True


@pytest.fixture(scope="module")
def server(
    browser: Browser,
    shared_home: Path,
    tmp_path_factory: pytest.TempPathFactory,
    disabled_extensions: tuple[str, ...],
    extension: bool,
) -> Iterator[LabServer]:
    """A JupyterLab whose kernels share one sandbox."""
    folder = tmp_path_factory.mktemp("lab") / "own"
    started = LabServer(folder, disabled=disabled_extensions, extension=extension).start()
    yield started
    started.stop()


@pytest.fixture(scope="module")
def open_page(server: LabServer, context: BrowserContext) -> Callable[[], LabPage]:
    """Opens tabs."""
    return lambda: LabPage(server, context)
