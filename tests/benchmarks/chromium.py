"""JupyterLab and Chromium for the benchmarks: those of the browser tests."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from truststram_lab import sandbox

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_UI = Path(__file__).parents[1] / "ui"
# As in the tests there, which are no package.
sys.path.insert(0, str(_UI))

CHROMIUM = Path("/usr/bin/chromium")
_ARGUMENTS = ("--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu")


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; RuntimeError without one."""
    from playwright.sync_api import sync_playwright

    if not CHROMIUM.exists():
        raise RuntimeError(f"{CHROMIUM} is missing; this part measures in a browser.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(_ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def private_home() -> Iterator[Path]:
    """A folder in which this process and its children keep the platform's state."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(("TRUSTSTRAM_", "EDGEML_"))}
    for name in kept:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TRUSTSTRAM_HOME"] = str(Path(folder) / "sandbox")
        os.environ["TRUSTSTRAM_TOKEN_STORAGE"] = "memory"
        try:
            yield Path(folder)
        finally:
            sandbox.stop(Path(folder) / "sandbox")
            for name in ("TRUSTSTRAM_HOME", "TRUSTSTRAM_TOKEN_STORAGE"):
                del os.environ[name]
            os.environ.update(kept)
