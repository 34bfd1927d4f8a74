"""The Python blocks of the two documents, as they stand there, and what they leave unbound.

The documents lie beside the checkout, in ``shared/spec``, or where ``TRUSTSTRAM_DOCUMENTS``
says; nothing of their text is in the project. Where they are missing, what needs them skips.
"""

from __future__ import annotations

import ast
import builtins
import os
import re
import symtable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["EDGEML", "TRUSTSTRAM", "Block", "blocks", "folder", "unbound"]

TRUSTSTRAM = "truststram-docs.md"
EDGEML = "edgeml-readme.md"

_FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A block of a document: its place among the Python blocks, from 0, and its bytes."""

    document: str
    number: int
    line: int
    source: str

    @property
    def name(self) -> str:
        return f"{self.document.partition('-')[0]} {self.number} (line {self.line})"


def folder() -> Path | None:
    """Where the documents are; None if they are not here."""
    chosen = os.environ.get("TRUSTSTRAM_DOCUMENTS")
    found = Path(chosen) if chosen else Path(__file__).parents[3] / "shared" / "spec"
    return found if (found / TRUSTSTRAM).is_file() and (found / EDGEML).is_file() else None


def blocks(document: str) -> list[Block]:
    """The Python blocks of a document, in order."""
    place = folder()
    assert place is not None, "asked for documents that are not here"
    text = (place / document).read_text(encoding="utf-8")
    return [
        Block(document, number, text[: found.start()].count("\n") + 2, found.group(1))
        for number, found in enumerate(_FENCE.finditer(text))
    ]


def unbound(source: str) -> set[str]:
    """Names that a block reads from outside: neither builtins nor bound at its top level."""
    tree = ast.parse(source)
    # A block with a top-level await is what a notebook takes; symbols are the same inside.
    asynchronous = any(
        isinstance(node, ast.Await | ast.AsyncFor | ast.AsyncWith) for node in _top(tree)
    )
    if asynchronous:
        source = "async def _block():\n" + "".join(f"    {line}\n" for line in source.splitlines())
    table = symtable.symtable(source, "<block>", "exec")
    if asynchronous:
        [table] = table.get_children()
    bound = {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned()}
    bound |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_imported()}
    read = {symbol.get_name() for symbol in _globals_read(table)}
    return read - bound - set(dir(builtins)) - {"__name__"}


def _top(tree: ast.Module) -> list[ast.AST]:
    """All nodes outside of functions."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        found.append(node)
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += ast.iter_child_nodes(node)
    return found


def _globals_read(table: symtable.SymbolTable) -> list[symtable.Symbol]:
    here = [
        symbol
        for symbol in table.get_symbols()
        if symbol.is_referenced() and (symbol.is_global() or table.get_type() == "module")
    ]
    for child in table.get_children():
        here += _globals_read(child)
    return here
