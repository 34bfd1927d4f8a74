"""Every Python block of the two documents, byte for byte, in a plain interpreter and a kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from documents import EDGEML, TRUSTSTRAM, blocks, folder, unbound
from jupyter_client import KernelManager
from stories import NOT_YET, STORIES, Story
from worlds import WORLDS

import truststram_lab

needs_documents = pytest.mark.skipif(folder() is None, reason="the documents are not here")
COMPAT = Path(truststram_lab.__file__).parent / "compat"
TIMEOUT_S = 150

#: hands the names of ``given`` to the blocks and leaves nothing else behind
_GIVE = """
_own = {{}}
exec(compile({source!r}, 'given', 'exec'), _own)
assert not [n for n, v in _own['given'].items() if 'truststram' in str(type(v).__module__)]
globals().update(_own['given'])
del _own
"""


def steps(story: Story) -> list[dict[str, str]]:
    found = blocks(story.document)
    return [
        {"name": "given", "source": _GIVE.format(source=story.given)},
        *({"name": found[n].name, "source": found[n].source} for n in story.blocks),
        {"name": "check", "source": story.check},
    ]


def environment(world: dict[str, str]) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("TRUSTSTRAM_", "EDGEML_"))}
    path = os.pathsep.join([str(COMPAT.parent.parent), str(COMPAT)])
    return {**kept, **world, "PYTHONPATH": path}


@needs_documents
def test_every_block_is_told_or_stands_in_the_list_of_what_is_not_built() -> None:
    everything = {(d, b.number) for d in (TRUSTSTRAM, EDGEML) for b in blocks(d)}
    told = {(story.document, number) for story in STORIES for number in story.blocks}
    assert told | set(NOT_YET) == everything
    assert not told & set(NOT_YET)


@needs_documents
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_a_story_is_given_only_what_the_text_leaves_unbound(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # what is given may be files
    own: dict[str, object] = {}
    exec(compile(story.given, "given", "exec"), own)
    given = own["given"]
    assert isinstance(given, dict)
    open_names = {n for k in story.blocks for n in unbound(blocks(story.document)[k].source)}
    assert set(given) <= open_names


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One platform for all stories that only predict."""
    with WORLDS["models"](tmp_path_factory.mktemp("models")) as world:
        yield world


@pytest.fixture
def enter(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Callable[[str], AbstractContextManager[dict[str, str]]]:
    """Enters a world by name."""

    def entered(name: str) -> AbstractContextManager[dict[str, str]]:
        if name == "models":
            return nullcontext(request.getfixturevalue("models"))
        return WORLDS[name](tmp_path)

    return entered


@needs_documents
@pytest.mark.parametrize(
    "story",
    [pytest.param(s, marks=[pytest.mark.long] * s.long, id=s.name) for s in STORIES],
)
def test_a_plain_interpreter_runs_it(story: Story, tmp_path: Path, enter: Any) -> None:
    (tmp_path / "steps.json").write_text(json.dumps(steps(story)))
    script = Path(__file__).with_name("plain_interpreter.py")
    with enter(story.world) as world:
        done = subprocess.run(
            [sys.executable, str(script), str(tmp_path / "steps.json")],
            cwd=tmp_path,
            env=environment(world),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_documents
@pytest.mark.long
@pytest.mark.kernel
@pytest.mark.parametrize("story", [s for s in STORIES if s.kernel], ids=lambda story: story.name)
def test_a_notebook_runs_it(story: Story, tmp_path: Path, enter: Any) -> None:
    with enter(story.world) as world:
        manager = KernelManager(kernel_name="python3")
        manager.start_kernel(
            env={**environment(world), "IPYTHONDIR": str(tmp_path / "ipython")},
            cwd=str(tmp_path),
            stderr=subprocess.DEVNULL,
        )
        client = manager.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=60)
            for step in steps(story):
                reply = client.execute_interactive(
                    step["source"], output_hook=lambda _: None, timeout=TIMEOUT_S
                )["content"]
                assert reply["status"] == "ok", "\n".join([step["name"], *reply["traceback"]])
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)
            manager.cleanup_resources()
