"""``truststram-lab demo`` and ``truststram-lab lab``: the first tutorial, run or opened."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .render import FOLD_MARK

__all__ = ["main"]

TUTORIAL = "01_three_cells.ipynb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="truststram-lab", description="Trustworthy federated learning inside the notebook."
    )
    parser.add_argument("--version", action="version", version=f"truststram-lab {__version__}")
    commands = parser.add_subparsers(dest="command", required=True)
    demo = commands.add_parser("demo", help="execute the first tutorial on a fresh sandbox")
    demo.add_argument("--notebook", type=Path, help="another notebook to execute")
    demo.add_argument("--save", type=Path, help="where to save the executed copy")
    lab = commands.add_parser("lab", help="open JupyterLab on the first tutorial")
    lab.add_argument("options", nargs=argparse.REMAINDER, help="passed on to JupyterLab")
    chosen = parser.parse_args(arguments)
    if chosen.command == "demo":
        return _demo(chosen.notebook or _tutorial(), chosen.save)
    return subprocess.call(  # noqa: S603 - our own interpreter and notebook
        [sys.executable, "-m", "jupyterlab", str(_tutorial()), *chosen.options]
    )


def _tutorial() -> Path:
    """The tutorial in the clone that this package was installed from, or in this folder."""
    for folder in (Path.cwd(), Path(__file__).resolve().parent.parent):
        found = folder / "notebooks" / TUTORIAL
        if found.is_file():
            return found
    raise SystemExit(
        f"notebooks/{TUTORIAL} is neither here nor beside the package; run this in a clone."
    )


def _demo(notebook: Path, save: Path | None) -> int:
    from .sandbox import stop

    with tempfile.TemporaryDirectory(prefix="truststram-demo-") as folder:
        former = os.environ.get("TRUSTSTRAM_HOME")
        os.environ["TRUSTSTRAM_HOME"] = str(Path(folder) / "home")
        try:
            return _execute(notebook, save, Path(folder))
        finally:
            stop()
            if former is None:
                del os.environ["TRUSTSTRAM_HOME"]
            else:
                os.environ["TRUSTSTRAM_HOME"] = former


def _execute(path: Path, save: Path | None, folder: Path) -> int:
    import nbformat
    from nbclient.exceptions import CellExecutionError

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = []
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    print(f"{path.name}: {len(code_cells)} cells on a fresh sandbox of this computer\n")
    started = time.monotonic()
    client = _printing_client(notebook, len(code_cells), folder)
    try:
        client.execute()
    except CellExecutionError as error:
        print(f"\nThe tutorial failed: {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    finally:
        _save(notebook, save)
    print(f"All cells ran in {time.monotonic() - started:.0f} s.")
    print("Open it in JupyterLab:  make lab")
    return 0


def _save(notebook: Any, save: Path | None) -> None:
    import nbformat

    notebook.metadata.pop("widgets", None)
    if save is not None:
        save.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, save)
        print(f"Saved with its outputs: {save}")


def _before_details(text: str) -> str:
    """What a card says before its details, which are for reading in the notebook."""
    return text.partition(f"\n{FOLD_MARK}")[0].rstrip()


def _printing_client(notebook: Any, total: int, folder: Path) -> Any:
    """A notebook client that prints each cell, its progress, and its results as text."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    class Printing(NotebookClient):
        """Shows how far a live card is, on one line of a terminal or a line a round."""

        number = 0
        progress = ""

        def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
            if msg["msg_type"] == "update_display_data":
                text = msg["content"]["data"].get("text/plain", "")
                self._show_progress(next(iter(text.splitlines()), "")[:100])
            return super().process_message(msg, cell, cell_index)

        def _show_progress(self, line: str) -> None:
            if sys.stdout.isatty():
                print(f"\r\x1b[K  {line}", end="", flush=True)
                return
            found = re.search(r"round \d+/\d+", line)
            if found and found[0] != self.progress:
                self.progress = found[0]
                print(f"  {line}", flush=True)

    def started(cell: Any, **_: Any) -> None:
        if cell.cell_type == "code":
            client.number += 1
            print(f"[{client.number}/{total}]")
            for line in cell.source.splitlines():
                print(f"    {line}")
            sys.stdout.flush()

    def executed(cell: Any, **_: Any) -> None:
        if sys.stdout.isatty():
            print("\r\x1b[K", end="")
        for output in cell.get("outputs", []):
            text = output.get("text") or output.get("data", {}).get("text/plain", "")
            if text.strip():
                print(f"\n{_before_details(text)}")
        print(flush=True)

    client = Printing(
        notebook,
        # Files instead of ports: nobody else on this computer can listen.
        config=Config({"KernelManager": {"transport": "ipc", "ip": str(folder / "kernel")}}),
        timeout=600,
        kernel_name="python3",
        resources={"metadata": {"path": str(Path.cwd())}},
    )
    client.on_cell_execute = started
    client.on_cell_executed = executed
    return client


if __name__ == "__main__":
    raise SystemExit(main())
