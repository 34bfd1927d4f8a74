"""The script of a site that takes part unattended."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.federated.participation.policy import SitePolicy
from truststram_lab.federated.site_table import SiteTable
from truststram_lab.schemas.personal import AnyPersonal

from .joining import TOKEN_VARIABLE

__all__ = ["write_script"]

_SCRIPT = '''"""Takes part in federation {federation}, unattended: python {file}

Set before it starts:
    TRUSTSTRAM_BASE_URL   the platform; without it, the sandbox of this user
    {variable}   this site's token, from its invitation
    TRUSTSTRAM_SITE_DATA  the table, a CSV file; {data} beside this script when not set

It ends with the run, or at Ctrl-C; started again, it goes on where it was. No row leaves this
computer. The floor below is checked in every round, whatever the federation asks.
"""

import os
from pathlib import Path

import pandas as pd

from truststram_lab.exceptions import TrustStramException
from truststram_lab.federated import SitePolicy
from truststram_lab.federated.unattended import take_part

FEDERATION = {federation!r}
TARGET = {target!r}
POSITIVE = {positive!r}
DATA = os.environ.get("TRUSTSTRAM_SITE_DATA", Path(__file__).with_name({data!r}))
FLOOR = SitePolicy.parse({floor})
BOUNDS = {bounds}
DP_LIMIT = {dp_limit!r}

{function}
def main() -> str | None:
    """Take part; the sentence of what went wrong, if something did."""
    try:
        done = take_part(
            FEDERATION,
            pd.read_csv(DATA),
            target=TARGET,
            positive=POSITIVE,
            policy=FLOOR,
            personal={personal!r},
            train={train},
            bounds=BOUNDS,
            dp_limit=DP_LIMIT,
            tell=print,
        )
    except (TrustStramException, OSError) as error:
        return str(error)
    print(f"Run {{done.run}} is over; {{done.sent_bytes:,}} bytes sent.")
    return None


if __name__ == "__main__":
    raise SystemExit(main())
'''


def write_script(
    path: Path,
    federation: str,
    table: SiteTable,
    policy: SitePolicy,
    train: Callable[..., Any] | None,
    personal: AnyPersonal | None = None,
    bounds: Mapping[str, Any] | None = None,
    dp_limit: float | None = None,
) -> str:
    """Write the script to ``path`` and say how to run it; the token is not in it.

    Raises:
        InvalidInputError: the path is no Python file in a folder that is there, or the source of
            ``train`` is not known.
    """
    if path.suffix != ".py" or not path.parent.is_dir():
        raise InvalidInputError(
            f"{str(path)!r} is no place for a script; name a .py file in a folder that exists.",
            field="export",
        )
    source = "" if train is None else _source(train)
    data = f"{path.stem}.csv"
    text = _SCRIPT.format(
        federation=federation,
        file=path.name,
        variable=TOKEN_VARIABLE,
        data=data,
        target=table.signature.target,
        positive=table.signature.positive_class,
        floor=_floor(policy),
        personal=None if personal is None else str(personal),
        bounds=_plain_bounds(bounds),
        dp_limit=dp_limit,
        function=f"\n{source}\n\n" if source else "",
        train="None" if train is None else train.__name__,
    )
    path.write_text(text, encoding="utf-8")
    own = "" if train is None else f" It has the source of {train.__name__}, not its imports."
    return (
        f"Wrote {path.name}: put this site's table beside it as {data}, set {TOKEN_VARIABLE}, and "
        f"run python {path.name}.{own}"
    )


def _plain_bounds(bounds: Mapping[str, Any] | None) -> str:
    """Bounds as source: plain numbers, whatever they were given as."""
    if bounds is None:
        return "None"
    return repr({str(name): (float(low), float(high)) for name, (low, high) in bounds.items()})


def _source(train: Callable[..., Any]) -> str:
    try:
        source = textwrap.dedent(inspect.getsource(train))
    except (OSError, TypeError) as error:
        raise InvalidInputError(
            "The source of the training function is not known here, so no script can have it; "
            "export without --train and add the function to the script.",
            field="train",
        ) from error
    if not source.startswith("def "):
        raise InvalidInputError(
            "Only a function defined with def can be written into a script; define one, or "
            "export without --train.",
            field="train",
        )
    return source.rstrip()


def _floor(policy: SitePolicy) -> str:
    empty = SitePolicy()
    set_here: dict[str, Any] = {}
    for field in fields(SitePolicy):
        value = getattr(policy, field.name)
        if value != getattr(empty, field.name):
            set_here[field.name] = _plain(value)
    return repr(set_here)


def _plain(value: Any) -> Any:
    """As it is written in a file: lists of texts, and filters as mappings."""
    if not isinstance(value, tuple):
        return value
    return [one if isinstance(one, str) else one.model_dump() for one in value]
