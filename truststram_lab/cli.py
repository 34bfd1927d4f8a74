"""``truststram-lab``: the first tutorial run or opened, a team's platform, and a report.

truststram-lab demo | lab              the first tutorial, executed or in JupyterLab
truststram-lab serve --home DIR ...    a standing platform for a team
truststram-lab setup --url URL         become its first administrator, or the next after
                                       serve --reset-administrator (a lost key)
truststram-lab openapi | doctor        the API's description; a report that is safe to paste
"""

from __future__ import annotations

import argparse
import getpass
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from . import __version__
from .exceptions import InvalidInputError, TrustStramException
from .render import FOLD_MARK

if TYPE_CHECKING:
    from .schemas.setup import SetUp

__all__ = ["main"]

TUTORIAL = "01_three_cells.ipynb"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["serve"]:
        _become_platform(given)  # which parses its own options
    chosen = _parser().parse_args(given)
    try:
        if chosen.command == "demo":
            return _demo(chosen.notebook or _tutorial(), chosen.save)
        if chosen.command == "setup":
            return _set_up(chosen.url, chosen.name)
        if chosen.command == "doctor":
            return _doctor()
    except TrustStramException as error:
        print(error.message, file=sys.stderr)
        return 1
    if chosen.command == "openapi":
        _become_platform(["--openapi"])
    # In a container everything is the administrator's, and JupyterLab wants to be told.
    root = ["--allow-root"] if os.geteuid() == 0 else []
    return subprocess.call(  # noqa: S603 - our own interpreter and notebook
        [sys.executable, "-m", "jupyterlab", str(_tutorial()), *root, *chosen.options]
    )


def _parser() -> argparse.ArgumentParser:
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
    commands.add_parser("serve", help="a standing platform for a team (see serve --help)")
    setup = commands.add_parser(
        "setup",
        aliases=["admin-key"],
        help="become a new platform's first administrator; prints the API key",
        description="Asks for the setup token that the platform's terminal shows at its first "
        "start, and prints the administrator's API key once.",
    )
    setup.set_defaults(command="setup")
    setup.add_argument("--url", required=True, help="address of the platform")
    setup.add_argument("--name", help="your name there (default: your login name)")
    commands.add_parser("openapi", help="print the API's OpenAPI document")
    commands.add_parser("doctor", help="print an environment report that is safe to paste")
    return parser


def _become_platform(arguments: Sequence[str]) -> NoReturn:
    """Replace this process by the platform's, which is never imported here."""
    package = str(Path(__file__).resolve().parent.parent)
    paths = [package, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    # A key to another platform is none of this one's business.
    inherited = {name: text for name, text in os.environ.items() if name != "TRUSTSTRAM_API_KEY"}
    environment = {**inherited, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}
    sys.stdout.flush()
    os.execve(  # noqa: S606 - our own module, no shell
        sys.executable,
        [sys.executable, "-P", "-m", "truststram_lab.server", *arguments],
        environment,
    )


def _set_up(url: str, name: str | None) -> int:
    from .schemas.setup import Administrator
    from .transport import Call, Target
    from .transport.drivers import HttpDriver

    target = Target(url)
    driver = HttpDriver(target)
    # No key for a repetition: the token itself serves once.
    call = Call[Administrator](
        "POST", "/api/v1/setup", Administrator, json=_asked(name), idempotency_key=""
    )
    try:
        made = driver.send(call)
    finally:
        driver.close()
    print(f"{made.identity.name} is the administrator of {target.base_url}. The API key,")
    print("which is shown this once (the platform keeps only its hash):")
    print(f"\n    {made.api_key}\n")
    print(f"In a notebook: set TRUSTSTRAM_API_KEY, then %ts_login --url {target.base_url}")
    return 0


def _asked(name: str | None) -> SetUp:
    """The request, with the token typed unseen, or read from a pipe."""
    from pydantic import ValidationError

    from .schemas.setup import SetUp

    typed = getpass.getpass("Setup token: ") if sys.stdin.isatty() else sys.stdin.readline()
    if not typed.strip():
        raise InvalidInputError(
            "No setup token was given; the platform's terminal shows it.", field="token"
        )
    try:
        return SetUp(token=typed.strip(), name=name or getpass.getuser())
    except ValidationError as error:
        # Pydantic would show the token.
        field = str(error.errors(include_input=False)[0]["loc"][0])
        raise InvalidInputError(
            "The token or the name is not well-formed; give --name 1 to 100 characters on one "
            "line, and the token as the platform's terminal shows it.",
            field=field,
        ) from None


def _doctor() -> int:
    from . import sandbox
    from .client import TrustStramClient
    from .client.diagnostics import environment_report
    from .config import setting
    from .render import doctor_card

    client, refused = None, None
    if setting("BASE_URL").value is not None:
        try:
            client = TrustStramClient()
        except TrustStramException as error:
            refused = f"no: {type(error).__name__}"
    report = environment_report(client)
    if client is not None:
        client.close()
    if refused is not None:
        report["Platform"]["signed in"] = refused
    state = sandbox.status()
    running = "not running" if state is None else f"runs, version {state.version}"
    report["Platform"]["sandbox"] = running
    print(doctor_card(report).text)
    return 0


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
