"""What the extension adds to JupyterLab's start: with it, and without it.

Two servers, one with the extension and one that does not find it (one that is only disabled is
loaded all the same); their pages are loaded in turn, each in a browser profile without a cache,
until the application says it is restored.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from .chromium import chromium, private_home
from .pairs import difference, in_turn, percent, ratio

if TYPE_CHECKING:
    from lab_server import LabServer
    from playwright.sync_api import Browser

TITLE = "JupyterLab's start"
PAIRS = 8

#: Notes when the application was ready, in ms since the navigation began.
_READY = """
(() => {
  const look = () => {
    const app = window.jupyterapp;
    if (!app?.restored) return void setTimeout(look, 2);
    app.restored.then(() => { window.readyAt = performance.now(); });
  };
  look();
})();
"""


def _hide_ours(server: LabServer) -> None:
    """Let the server see every front-end extension of this environment but ours."""
    from lab_server import OURS

    seen = server.folder / "labextensions"
    seen.mkdir()
    for each in (Path(sys.prefix) / "share" / "jupyter" / "labextensions").iterdir():
        if each.name != OURS:
            (seen / each.name).symlink_to(each)
    settings = server.folder / "config" / "jupyter_lab_config.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps({"LabApp": {"labextensions_path": [str(seen)]}}))


def ready_ms(browser: Browser, server: LabServer) -> float:
    """Milliseconds from the navigation until the application is restored."""
    context = browser.new_context(service_workers="block")
    try:
        context.add_init_script(_READY)
        page = context.new_page()
        page.goto(server.address("").replace("/lab/tree/", "/lab"))
        page.wait_for_function("window.readyAt", timeout=90_000)
        found: float = page.evaluate("readyAt")
        return found
    finally:
        context.close()


def run(quick: bool = False) -> dict[str, object]:
    """Milliseconds of each load of each pair."""
    from lab_server import LabServer

    taken: dict[bool, list[float]] = {True: [], False: []}
    with private_home() as folder, chromium() as browser:
        servers = {there: LabServer(folder / f"lab-{there}", extension=there) for there in taken}
        _hide_ours(servers[False])
        try:
            for server in servers.values():
                server.start()
                ready_ms(browser, server)
            for there in in_turn(3 if quick else PAIRS):
                taken[there].append(ready_ms(browser, servers[there]))
        finally:
            for server in servers.values():
                server.stop()
    return {"with_ms": taken[True], "without_ms": taken[False]}


def report(found: dict) -> str:
    seen, unseen = found["with_ms"], found["without_ms"]
    mean, low, high = difference(seen, unseen)
    return (
        f"Until the page is ready: median {statistics.median(seen):,.0f} ms with the extension, "
        f"{statistics.median(unseen):,.0f} ms without it. The extension adds {mean:+,.0f} ms "
        f"(95 % interval {low:+,.0f} to {high:+,.0f} ms), {percent(ratio(seen, unseen))}; "
        f"{len(seen)} pairs."
    )
