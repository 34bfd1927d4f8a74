"""Command lines: words in, values out; an error is one sentence with the nearest flag."""

from __future__ import annotations

import argparse
import itertools
import keyword
import re
import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from truststram_lab.exceptions import UsageError, nearest

if TYPE_CHECKING:
    from .completers import Completing

__all__ = ["Argument", "LineParser", "argument", "one_of", "real_number", "whole_number"]

Completer = Callable[["Completing"], Sequence[str]]

_WIDTH = 88


@dataclass(frozen=True)
class Argument:
    """One word or flag of a command, and what completes it."""

    names: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    complete: Completer | None = None


def argument(*names: str, complete: Completer | None = None, **options: Any) -> Argument:
    """An argument as argparse takes it; what is not given is not in the result."""
    if options.get("nargs") != "?":
        # A suppressed optional word would be given to its type; None is left out below.
        options = {"default": argparse.SUPPRESS, **options}
    return Argument(names, options, complete)


def whole_number(text: str) -> int:
    """A whole number."""
    try:
        return int(text.replace("_", ""))
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a whole number, not {text!r}") from None


def real_number(text: str) -> float:
    """A number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"takes a number, not {text!r}") from None


def variable_name(text: str) -> str:
    """A name that Python can assign to."""
    if text.isidentifier() and not keyword.iskeyword(text):
        return text
    raise argparse.ArgumentTypeError(f"takes a variable's name, not {text!r}")


def one_of(*choices: str) -> Callable[[str], str]:
    """A word out of ``choices``."""

    def choose(text: str) -> str:
        if text in choices:
            return text
        near = nearest(text, choices, most=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(choices)}{hint}")

    return choose


#: What every command takes.
COMMON = (
    argument(
        "-o",
        dest="output",
        metavar="NAME",
        type=variable_name,
        help="store the result in this variable, too",
    ),
    argument(
        "--as-python",
        action="store_true",
        dest="as_python",
        help="print the Python code that does the same, instead of doing it",
    ),
    argument("--help", action="store_true", dest="help", help="show this text"),
)


class LineParser(argparse.ArgumentParser):
    """Parses one command line; flags are written out, in any place, and never guessed.

    Args:
        magic: the command as one types it, such as ``%ts_models``.
        secret: words of the line are never repeated in an error.
    """

    def __init__(
        self,
        magic: str,
        arguments: Sequence[Argument],
        *,
        summary: str,
        examples: Sequence[str] = (),
        secret: bool = False,
    ) -> None:
        super().__init__(
            prog=magic,
            description=summary,
            epilog="Examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=26, width=_WIDTH
            ),
            add_help=False,
            allow_abbrev=False,
        )
        self.magic = magic
        self.secret = secret
        self.flags: dict[str, argparse.Action] = {}
        self.words: list[argparse.Action] = []
        self.completers: dict[str, Completer] = {}
        word_group = self.add_argument_group("words")
        flag_group = self.add_argument_group("flags")
        for each in (*arguments, *COMMON):
            is_flag = each.names[0].startswith("-")
            action = (flag_group if is_flag else word_group).add_argument(
                *each.names, **each.options
            )
            if is_flag:
                self.flags.update(dict.fromkeys(each.names, action))
            else:
                self.words.append(action)
            if each.complete is not None:
                self.completers[action.dest] = each.complete
        self.usage_text = self._usage_lines()
        self.usage = self.usage_text.replace("%", "%%")

    def parse_line(self, line: str) -> dict[str, Any]:
        """What a line gives, by name.

        Raises:
            UsageError: one sentence, then the usage.
        """
        words = self._split(line)
        if "--help" in words or words[-1:] == ["?"]:
            return {"help": True}
        self._check_flags(words)
        found, left = self.parse_known_intermixed_args(words)
        if left:
            self._too_many(left[0])
        return {name: value for name, value in vars(found).items() if value is not None}

    def error(self, message: str) -> NoReturn:
        """Raise argparse's finding as our sentence."""
        raise self.mistake(_sentence(message, self.magic))

    def mistake(self, sentence: str) -> UsageError:
        """The error that says ``sentence`` and shows the usage."""
        return UsageError(f"{sentence}\nUsage: {self.usage_text}")

    def _split(self, line: str) -> list[str]:
        try:
            words = shlex.split(line)
        except ValueError:
            raise self.mistake(
                f"A quote is opened and not closed in the line of {self.magic}."
            ) from None
        # Cards say "As Python"; a model's name is lower case, so this is never one.
        for at, pair in enumerate(itertools.pairwise(words)):
            if pair == ("--as", "Python"):
                words[at : at + 2] = ["--as-python"]
                break
        return words

    def _check_flags(self, words: Sequence[str]) -> None:
        for word in words:
            flag = word.partition("=")[0]
            if not re.match(r"--?[^\d.\s-]", flag) or flag in self.flags:
                continue
            near = nearest(flag, self.flags, most=1)
            if self.secret and (not near or re.search("key|token|secret|pass", flag)):
                raise self._no_secrets()
            hint = f"did you mean {near[0]}?" if near else f"its flags are {self._flag_names()}."
            raise self.mistake(f"{flag} is not a flag of {self.magic}; {hint}")

    def _flag_names(self) -> str:
        return ", ".join(flag for flag, action in self.flags.items() if action.dest != "help")

    def _too_many(self, word: str) -> NoReturn:
        if self.secret:
            raise self._no_secrets()
        raise self.mistake(
            f"{word!r} is one word too many for {self.magic}; put names with spaces in quotes."
        )

    def _no_secrets(self) -> UsageError:
        return self.mistake(
            f"{self.magic} takes no key on its line, because the line is saved in the notebook; "
            "set TRUSTSTRAM_API_KEY, or leave it out and be asked."
        )

    def _usage_lines(self) -> str:
        parts = [self.magic]
        for word in self.words:
            shown = str(word.metavar or word.dest)
            shapes = {"?": f"[{shown}]", "*": f"[{shown} ...]"}
            parts.append(shapes.get(str(word.nargs), shown))
        for action in dict.fromkeys(self.flags.values()):
            value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
            parts.append(f"[{action.option_strings[0]}{value}]".replace(" ", "\0"))
        return textwrap.fill(
            " ".join(parts), _WIDTH, subsequent_indent=" " * 7, break_on_hyphens=False
        ).replace("\0", " ")


def _sentence(message: str, magic: str) -> str:
    """argparse's finding, as a sentence of ours."""
    place = re.match(r"argument ([^:]+): (.*)", message, re.DOTALL)
    if place is None:
        missing = re.match(r"the following arguments are required: (.*)", message)
        return f"{magic} needs {missing[1]}." if missing else f"{magic}: {message}."
    name, finding = place.groups()
    if finding.startswith("'"):
        return str(finding)
    if finding.startswith("expected"):
        return f"{name} needs a value."
    if finding.startswith("ignored explicit argument"):
        return f"{name} takes no value."
    return f"{name} {finding}" + ("" if finding.endswith(("?", ".")) else ".")
