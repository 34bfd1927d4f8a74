"""A command is declared once: its words and flags, and the verb that they call."""

from __future__ import annotations

import pprint
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from .namespace import Scope, Variable
from .parsing import Argument, LineParser

__all__ = ["COMMANDS", "Command", "Line", "VerbCall", "command"]

#: name -> command, in the order of declaration
COMMANDS: dict[str, Command] = {}


@dataclass(frozen=True)
class Line:
    """A parsed line: ``given`` holds what was written, and nothing else.

    ``cell`` is the text below a cell magic, untouched; None on a line.
    """

    given: dict[str, Any]
    scope: Scope
    cell: str | None


@dataclass(frozen=True)
class VerbCall:
    """A verb and its arguments, ready to be run or written down.

    A :class:`Variable` is passed as its value and written as its name.
    """

    verb: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def run(self) -> Any:
        """Call the verb."""
        # Loaded now, so that the extension itself costs nothing.
        verbs = import_module("truststram_lab.verbs")
        return getattr(verbs, self.verb)(
            *(_value(arg) for arg in self.args),
            **{name: _value(value) for name, value in self.kwargs.items()},
        )

    def code(self, output: str | None = None) -> str:
        """The Python that makes the same call."""
        written = [_written(arg) for arg in self.args]
        written += [f"{name}={_written(value)}" for name, value in self.kwargs.items()]
        arguments = ", ".join(written)
        if len(arguments) > 80 or "\n" in arguments:
            arguments = "".join("\n    " + part.replace("\n", "\n    ") + "," for part in written)
            arguments += "\n"
        store = f"{output} = " if output else ""
        return f"from truststram_lab import verbs\n\n{store}verbs.{self.verb}({arguments})\n"


class Command:
    """One magic: parser, build function, and how it is run.

    Args:
        build: makes a :class:`VerbCall` of a parsed line; it asks the platform nothing.
        cell: also (True) a cell magic of the same name.
    """

    def __init__(
        self, name: str, parser: LineParser, build: Callable[[Line], VerbCall], *, cell: bool
    ) -> None:
        self.name = name
        self.parser = parser
        self.build = build
        self.cell = cell

    def functions(self, shell: Any) -> dict[str, Callable[..., Any]]:
        """The functions to register with ``shell``, by kind of magic."""

        def line_magic(line: str, local_ns: Mapping[str, Any] | None = None) -> Any:
            # A semicolon is a habit and no part of the last word. It cannot silence: IPython
            # would lose the result of "x = %ts_runs;", too.
            return self.run(shell, line.rstrip().removesuffix(";"), None, local_ns)

        def cell_magic(line: str, cell: str, local_ns: Mapping[str, Any] | None = None) -> Any:
            return self.run(shell, line, cell, local_ns)

        found: dict[str, Callable[..., Any]] = {"line": line_magic}
        if self.cell:
            found["cell"] = cell_magic
        for function in found.values():
            function.__doc__ = self.parser.format_help()
            function.__name__ = self.name
            # IPython reads these: pass the caller's locals; do not put a variable that may
            # hold a secret into the line.
            vars(function)["needs_local_scope"] = True
            vars(function)["_ipython_magic_no_var_expand"] = self.parser.secret
        return found

    def run(
        self, shell: Any, line: str, cell: str | None, local_ns: Mapping[str, Any] | None
    ) -> Any:
        """Do what the line says and return the verb's result.

        Raises:
            UsageError: the line does not parse.
            TrustStramException: whatever the verb says.
        """
        given = self.parser.parse_line(line)
        if given.pop("help", False):
            sys.stdout.write(self.parser.format_help())
            return None
        output: str | None = given.pop("output", None)
        as_python: bool = given.pop("as_python", False)
        call = self.build(Line(given, Scope(shell.user_ns, local_ns), cell))
        if as_python:
            sys.stdout.write(call.code(output))
            return None
        try:
            result = call.run()
        except KeyboardInterrupt as interrupt:
            # One line, as at every other end: where in a library it was is of no use.
            line_shown = [f"KeyboardInterrupt: %{self.name} was interrupted."]
            vars(interrupt)["_render_traceback_"] = lambda: line_shown
            raise
        if output is not None:
            shell.user_ns[output] = result
        return result


def command(
    name: str,
    *arguments: Argument,
    summary: str,
    examples: Sequence[str],
    cell: bool = False,
    secret: bool = False,
) -> Callable[[Callable[[Line], VerbCall]], Command]:
    """Declare the magic ``%name``; the decorated function says which verb a line calls.

    Args:
        summary: what it does, for the person who types it.
        examples: lines that work.
        cell: it is a cell magic, too.
        secret: never repeat words of the line, never expand variables in it.
    """

    def declare(build: Callable[[Line], VerbCall]) -> Command:
        parser = LineParser(
            f"%{name}", arguments, summary=summary, examples=examples, secret=secret
        )
        COMMANDS[name] = Command(name, parser, build, cell=cell)
        return COMMANDS[name]

    return declare


def _value(argument: Any) -> Any:
    return argument.value if isinstance(argument, Variable) else argument


def _written(argument: Any) -> str:
    if isinstance(argument, Variable):
        return argument.name
    return pprint.pformat(argument, width=84, sort_dicts=False)
