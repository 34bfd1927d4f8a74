"""The function in the cell of ``%%ts_join``: it lives in this kernel and is nowhere else."""

from __future__ import annotations

import ast
import inspect
from dataclasses import dataclass
from typing import Any

from truststram_lab.exceptions import InvalidInputError, NotFoundError, nearest
from truststram_lab.widgets.kernel import shell as the_shell

from .command import VerbCall
from .namespace import Scope, Variable

__all__ = ["CellCall", "function_named", "name_in_cell", "user_functions"]

#: What a cell may call its function, the first one found.
_NAMES = ("train", "fit")


@dataclass(frozen=True)
class CellCall(VerbCall):
    """A verb that is called with the function that a cell defines.

    Args:
        cell: Python; run in the user's namespace first, as any cell is.
        function: the name in it.
    """

    cell: str = ""
    function: str = ""

    def run(self) -> Any:
        """Run the cell, then call the verb with its function."""
        shell = the_shell()
        # Cached as any cell, so that tracebacks and getsource have its lines.
        name = shell.compile.cache(self.cell)
        exec(compile(self.cell, name, "exec"), shell.user_ns)  # noqa: S102 - the user's own cell
        given = {**self.kwargs, "train": shell.user_ns[self.function]}
        return VerbCall(self.verb, self.args, given).run()

    def code(self, output: str | None = None) -> str:
        """The cell, and the Python that makes the same call."""
        given = {**self.kwargs, "train": Variable(self.function, None)}
        return f"{self.cell.rstrip()}\n\n\n{VerbCall(self.verb, self.args, given).code(output)}"


def name_in_cell(cell: str) -> str:
    """The name of the training function that a cell defines.

    Raises:
        InvalidInputError: the cell is no Python, or defines no such function.
    """
    try:
        body = ast.parse(cell).body
    except SyntaxError as error:
        # The editor counts the command as line 1.
        raise InvalidInputError(
            f"The cell is no Python at its line {(error.lineno or 1) + 1}: {error.msg}.",
            field="cell",
        ) from error
    defined = [found.name for found in body if isinstance(found, ast.FunctionDef)]
    for found in body:
        if isinstance(found, ast.Assign):
            defined += [target.id for target in found.targets if isinstance(target, ast.Name)]
    for name in _NAMES:
        if name in defined:
            return name
    near = [name for name in defined if nearest(name, _NAMES, most=1)]
    hint = f"call {near[0]!r} train" if near else "begin with: def train(state):"
    raise InvalidInputError(
        "The cell of %%ts_join defines the training function train(state), or "
        f"fit(parameters, config), and this one defines {_list(defined)}; {hint}",
        field="cell",
    )


def function_named(word: str, scope: Scope) -> Variable:
    """The user's function ``word``.

    Raises:
        NotFoundError: there is no such variable; the nearest function is in the sentence.
        InvalidInputError: it is something else.
    """
    known = user_functions()
    if not scope.knows(word):
        near = nearest(word, known, most=1)
        hint = f"did you mean {near[0]}?" if near else "define it with def in a cell above."
        raise NotFoundError(
            f"There is no function {word!r} here; {hint}", name=word, choices=near or known[:10]
        )
    found = scope.variable(word)
    if not callable(found.value):
        raise InvalidInputError(
            f"{word!r} is a {type(found.value).__name__}, not a function; define "
            f"{word}(state) or {word}(parameters, config).",
            field="train",
        )
    return found


def user_functions() -> list[str]:
    """Names of the functions that the user has defined or imported."""
    shell = the_shell()
    return [
        name
        for name, value in shell.user_ns.items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and name not in shell.user_ns_hidden
    ]


def _list(names: list[str]) -> str:
    return ", ".join(names[:5]) if names else "none"
