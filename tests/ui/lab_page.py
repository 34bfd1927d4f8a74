"""A JupyterLab page, used as a person uses it; measured by the scripts beside this file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lab_server import LabServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page

SCRIPTS = Path(__file__).parent
#: Where the pictures go that a person looks at.
PICTURES = Path(__file__).parents[2] / "build" / "ui"

TIMEOUT_S = 45.0


def new_context(browser: Browser, elsewhere: list[str], **options: Any) -> BrowserContext:
    """A browser context without network but for this computer.

    Args:
        elsewhere: takes the addresses that were asked for and not reached.
    """
    context = browser.new_context(service_workers="block", **options)
    context.set_default_timeout(TIMEOUT_S * 1000)
    context.add_init_script(path=SCRIPTS / "live_record.js")
    context.add_init_script(path=SCRIPTS / "page_checks.js")

    def only_here(route: Any) -> None:
        url = route.request.url
        if url.startswith(("http://127.0.0.1:", "data:", "blob:", "file:")):
            route.continue_()
        else:
            elsewhere.append(url)
            route.abort()

    context.route("**/*", only_here)
    return context


def picture(page: Page, name: str) -> None:
    """Keep what the page shows now, for people."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png")


class LabPage:
    """One browser tab with one notebook in front.

    Args:
        server: the running JupyterLab.
        context: from :func:`new_context`.
    """

    def __init__(self, server: LabServer, context: BrowserContext) -> None:
        self.server = server
        self.page: Page = context.new_page()

    def open(self, name: str, *, kernel: bool = True) -> LabPage:
        """Open a notebook and wait until it can be used.

        Args:
            kernel: else its kernel is shut down again, and only what was saved is left.
        """
        self.page.goto(self.server.address(name))
        self.ready()
        if not kernel:
            self.page.evaluate("live.notebook().sessionContext.shutdown()")
        return self

    def ready(self) -> None:
        """Wait for the application, the notebook's cells and its kernel."""
        self.page.wait_for_function("window.jupyterapp && window.jupyterapp.restored")
        self.page.wait_for_function("live.notebook()?.content?.widgets?.length > 0")
        self.page.evaluate("live.notebook().sessionContext.ready")
        if self.page.evaluate("!jupyterapp.shell.leftCollapsed"):
            self.command("application:toggle-left-area")

    def save(self) -> int:
        """Save the notebook as it is; how many cells it has."""
        cells: int = self.page.evaluate("live.save()")
        return cells

    def reload(self, *, save: bool = True) -> None:
        """Load the page again; the kernel goes on.

        Args:
            save: the notebook as it is, before; else what changed since it was saved is lost.
        """
        cells = (
            self.save() if save else self.page.evaluate("live.notebook().content.widgets.length")
        )
        self.page.reload()
        self.ready()
        self.page.wait_for_function(
            "cells => live.notebook().content.widgets.length === cells", arg=cells
        )

    def command(self, name: str, arguments: dict[str, object] | None = None) -> None:
        """Execute a JupyterLab command without waiting for what it starts."""
        self.page.evaluate(
            "([name, args]) => void jupyterapp.commands.execute(name, args)",
            [name, arguments or {}],
        )

    def theme(self, name: str) -> None:
        """Switch between ``light`` and ``dark``."""
        self.command("apputils:change-theme", {"theme": f"JupyterLab {name.capitalize()}"})
        light = str(name == "light").lower()
        self.page.wait_for_function(f"document.body.dataset.jpThemeLight === '{light}'")
        # The style sheet itself comes a moment after the attribute, behind a curtain.
        self.page.wait_for_function(
            "light => live.brightness('.jp-Notebook') > 127 === light", arg=name == "light"
        )
        self.page.locator("#jupyterlab-splash").wait_for(state="detached")

    def run(self, code: str, *, wait: bool = False) -> Cell:
        """Add a cell at the end and run it.

        Args:
            wait: for the kernel to have done it; an error fails the test.
        """
        index = self.page.evaluate("code => live.start(code)", code)
        cell = Cell(self, index)
        if wait:
            cell.finish()
            assert not cell.error, cell.text
        return cell

    def execute(self, index: int) -> Cell:
        """Run a cell that is there already."""
        self.page.evaluate(
            "index => { live.notebook().content.activeCellIndex = index;"
            " void jupyterapp.commands.execute('notebook:run-cell'); }",
            index,
        )
        return Cell(self, index)

    def cell(self, index: int) -> Cell:
        return Cell(self, index)

    def until_idle(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_function(
            "live.notebook().sessionContext.session?.kernel?.status === 'idle' && !live.busy()",
            timeout=timeout_s * 1000,
        )

    def picture(self, name: str) -> None:
        picture(self.page, name)


class Cell:
    """A cell of the notebook in front, by its place."""

    def __init__(self, lab: LabPage, index: int) -> None:
        self.lab = lab
        self.index = index
        self._node = lab.page.locator(".jp-Notebook .jp-Cell").nth(index)

    @property
    def outputs(self) -> Locator:
        return self._node.locator(".jp-OutputArea-output")

    @property
    def text(self) -> str:
        """What is seen of the outputs."""
        return "\n".join(self.outputs.all_inner_texts())

    @property
    def error(self) -> str:
        """The message of a traceback; empty without one."""
        found = self._node.locator('[data-mime-type="application/vnd.jupyter.stderr"]')
        return "\n".join(found.all_inner_texts())

    @property
    def saved(self) -> list[dict[str, Any]]:
        """The outputs as they would be saved."""
        found: list[dict[str, Any]] = self.lab.page.evaluate(
            "index => live.saved(index)", self.index
        )
        return found

    @property
    def stop_button(self) -> Locator:
        return self._node.get_by_role("button", name="Stop", exact=True)

    def record(self) -> None:
        """From now on, note what the outputs say and when."""
        self.lab.page.evaluate("index => live.record(index)", self.index)

    @property
    def record_so_far(self) -> dict[str, Any]:
        """``rounds`` in order, ``saidStopped``, ``idle`` and ``lastInput`` in milliseconds."""
        found: dict[str, Any] = self.lab.page.evaluate("live.recorded()")
        return found

    def until_round(self, number: int, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the recorded card shows that many rounds done."""
        self.lab.page.wait_for_function(
            "number => live.recorded().rounds.some(seen => seen >= number)",
            arg=number,
            timeout=timeout_s * 1000,
        )

    def until_text(self, words: str, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the outputs show these words."""
        self.outputs.filter(has_text=words).first.wait_for(timeout=timeout_s * 1000)

    def finish(self, timeout_s: float = TIMEOUT_S) -> None:
        """Wait until the kernel has executed it."""
        self.lab.page.wait_for_function(
            "index => live.done(index)", arg=self.index, timeout=timeout_s * 1000
        )
