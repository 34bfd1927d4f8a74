"""The tutorials that come with the package, and a copy of one to work in."""

from __future__ import annotations

import asyncio
import json
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jupyter_core.utils import ensure_async
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from tornado import web

import truststram_lab
from truststram_lab.exceptions import NotFoundError, PlatformError, TrustStramException, nearest

__all__ = ["Tutorial", "TutorialHandler", "TutorialsHandler", "tutorials"]

_NAME = re.compile(r"[0-9]{2}_[a-z0-9_]+")
_INSTALLED = Path("share", "truststram-lab", "tutorials")


@dataclass(frozen=True)
class Tutorial:
    """A notebook of the package; ``title`` is its first heading."""

    name: str
    title: str
    path: Path

    def read(self) -> dict[str, Any]:
        """The notebook's content."""
        content: dict[str, Any] = json.loads(self.path.read_text(encoding="utf-8"))
        return content


def tutorials() -> list[Tutorial]:
    """All tutorials by name: of the clone that the package runs from, else the installed ones."""
    for folder in _folders():
        found = [path for path in sorted(folder.glob("*.ipynb")) if _NAME.fullmatch(path.stem)]
        if found:
            return [Tutorial(path.stem, _title(path), path) for path in found]
    return []


def _folders() -> Iterator[Path]:
    clone = Path(truststram_lab.__file__).resolve().parent.parent
    # Beside an installed package there may be a folder of somebody else's by that name.
    if (clone / "pyproject.toml").is_file():
        yield clone / "notebooks"
    for scheme in (sysconfig.get_default_scheme(), sysconfig.get_preferred_scheme("user")):
        yield Path(sysconfig.get_path("data", scheme)) / _INSTALLED


def _title(path: Path) -> str:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        heading = re.match(r"# (.+)", "".join(cell["source"]))
        if cell["cell_type"] == "markdown" and heading:
            return heading[1].strip()
    return path.stem.partition("_")[2].replace("_", " ").capitalize()


class TutorialsHandler(APIHandler):
    """``GET truststram/tutorials``"""

    auth_resource = "truststram"

    @web.authenticated
    @authorized
    async def get(self) -> None:
        """Answer with the names and titles."""
        found = await asyncio.to_thread(tutorials)
        self.finish(json.dumps([{"name": one.name, "title": one.title} for one in found]))


class TutorialHandler(APIHandler):
    """``POST truststram/tutorials/NAME``"""

    # Who may not write files through Jupyter may not write this one.
    auth_resource = "contents"

    @web.authenticated
    @authorized
    async def post(self, name: str) -> None:
        """Copy the tutorial into the server's root; a file of that name stays as it is."""
        try:
            self.finish({"path": await self._copy(name)})
        except TrustStramException as error:
            self.set_status(error.status)
            body = json.dumps(error.to_problem())
            self.finish(body, set_content_type="application/problem+json")

    async def _copy(self, name: str) -> str:
        known = {one.name: one for one in await asyncio.to_thread(tutorials)}
        if name not in known:
            near = nearest(name, known)
            way = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}."
            raise NotFoundError(f"No tutorial is named {name!r}; {way}", name=name, choices=near)
        path = f"{name}.ipynb"
        contents = self.contents_manager
        exists = contents.file_exists(path)
        if not await ensure_async(exists):
            content = await asyncio.to_thread(known[name].read)
            model = {"type": "notebook", "format": "json", "content": content}
            try:
                saved = contents.save(model, path)
                await ensure_async(saved)
            except (web.HTTPError, OSError) as error:
                raise PlatformError(
                    f"{path} cannot be written to Jupyter's folder; start Jupyter in a folder "
                    "of your own."
                ) from error
        return path
