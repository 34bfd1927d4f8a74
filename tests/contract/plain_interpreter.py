"""Runs the steps of a story, given as a file, in one namespace, as a script would."""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import sys
from pathlib import Path


def main(steps: list[dict[str, str]]) -> None:
    namespace: dict[str, object] = {"__name__": "documents"}
    for step in steps:
        code = compile(step["source"], step["name"], "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        found = eval(code, namespace)
        if inspect.iscoroutine(found):
            asyncio.run(found)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
