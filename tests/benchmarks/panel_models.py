"""The side panel with a thousand models: from an event of the platform to the row that shows it.

Both moments are noted in the page: when the event's bytes arrived there, and when the row said
it. A round of a run is in the event itself; of a model the panel reads the new state first.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .chromium import chromium, private_home

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from truststram_lab.client import TrustStramClient

TITLE = "The side panel with 1,000 models"
MODELS = 1000
UPDATES = 30
ROUNDS = 60
PANEL = "#truststram-lab-panel"
_SCRIPT = Path(__file__).with_name("panel_events.js")


def _versions(client: TrustStramClient, names: list[str], base: str, count: int) -> None:
    """Register a version of one model after the other, as trainings that end would."""
    from truststram_lab.schemas.registry import CreateVersion

    known = client.models.version(base)
    version = CreateVersion(
        weights_sha256=known.weights_sha256,
        architecture=known.architecture,
        signature=known.signature,
        statistics=known.statistics,
    )
    for number in range(count):
        client.models.create_version(names[number % len(names)], version)
        time.sleep(0.4)


def _all_loaded(page: Page, total: int) -> None:
    """Scroll to the end until every model is loaded, then to the top again."""
    page.wait_for_function(
        """([panel, label]) => {
          const grid = document.querySelector(panel + ' .ts-grid');
          const rows = [...grid.querySelectorAll('[role=row]')];
          if (Number(grid.getAttribute('aria-rowcount')) >= label) { return true; }
          grid.scrollTop = grid.scrollHeight;
          return false;
        }""",
        arg=[PANEL, total],
        polling=200,
        timeout=60_000,
    )
    page.evaluate(f"document.querySelector('{PANEL} .ts-grid').scrollTop = 0")


def _delays(page: Page, kind: str, words: Callable[[dict[str, Any]], str]) -> list[float]:
    """Milliseconds from each event of a kind to the first row after it that begins so.

    Args:
        words: how the row's label begins, from what the event says.
    """
    received, shown = page.evaluate("[panelEvents.received(), panelEvents.shown()]")
    found = []
    for note in received:
        if note["type"] == kind:
            begin = words(note["event"]["data"])
            later = [
                each["at"]
                for each in shown
                if each["at"] >= note["at"] and each["words"].startswith(begin)
            ]
            found += [min(later) - note["at"]] if later else []
    return found


def run(quick: bool = False) -> dict[str, object]:
    """Milliseconds of each update, and the most rows that were in the page."""
    from lab_page import SCRIPTS, LabPage
    from lab_server import LabServer

    from truststram_lab import verbs

    models, updates, rounds = (50, 3, 10) if quick else (MODELS, UPDATES, ROUNDS)
    with private_home() as folder, chromium() as browser:
        verbs.login(sandbox=True)
        client = verbs.session.require("measuring").client
        verbs.federate("breast-cancer", rounds=1, epochs=1, name="base", background=True).wait()
        names = [f"model-{number:04}" for number in range(models)]
        for name in names:
            client.models.create(name)
        server = LabServer(folder / "lab").start()
        try:
            # Without the tests' watch over requests: each would wait for this process.
            context = browser.new_context(viewport={"width": 1100, "height": 1000})
            for script in (SCRIPTS / "live_record.js", _SCRIPT):
                context.add_init_script(path=script)
            lab = LabPage(server, context).open(server.add_notebook("many.ipynb", ["# many"]))
            lab.command("truststram-lab:show")
            page = lab.page
            page.locator(PANEL).get_by_role("row", name="Models, ").wait_for()
            page.evaluate(f"panelEvents.watch('{PANEL}')")
            _all_loaded(page, models)
            # The newest are listed first: their rows are in view.
            _versions(client, names[-5:], "base", updates)
            page.wait_for_timeout(1000)
            by_model = _delays(
                page, "model.version_created", lambda data: f"Model {data['model']}, "
            )
            training = verbs.federate(
                "breast-cancer", clients=3, rounds=rounds, epochs=1, name="seen", background=True
            )
            training.wait()
            page.wait_for_timeout(1000)
            return {
                "models": models,
                "rows_in_the_grid": int(
                    page.locator(f"{PANEL} .ts-grid").get_attribute("aria-rowcount") or 0
                ),
                "most_rows_in_the_page": page.evaluate("panelEvents.mostRows()"),
                "round_ms": _delays(
                    page,
                    "round.closed",
                    lambda data: f"Run {training.name}, round {data['number']}/",
                ),
                "version_ms": by_model,
                "versions_made": updates,
            }
        finally:
            server.stop()
            verbs.logout()


def report(found: dict) -> str:
    lines = ["| Event | median | largest | seen |", "|---|---:|---:|---:|"]
    for name, key in (
        ("a round was closed, until its run's row says so", "round_ms"),
        ("a version was registered, until its model's row says so", "version_ms"),
    ):
        values = found[key]
        lines.append(
            f"| {name} | {statistics.median(values):.1f} ms | {max(values):.1f} ms "
            f"| {len(values)} |"
        )
    return "\n".join(lines) + (
        f"\n\nThe list has {found['rows_in_the_grid']:,} rows; at most "
        f"{found['most_rows_in_the_page']} of them were in the page."
    )
