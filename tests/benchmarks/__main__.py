"""``make bench``: measure, and write the results with their raw logs.

``python -m tests.benchmarks [PART ...] [--quick]``: each part writes its raw values to
``PART.json`` beside this file, and ``RESULTS.md`` is written anew from all of them. ``--quick``
only shows that the parts work: it measures little and writes into ``build/benchmarks``.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import inspect
import json
import os
import platform
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TRIAL = Path(__file__).parents[2] / "build" / "benchmarks"

#: In this order on the page; a module with ``run() -> dict``, best with ``report`` and ``TITLE``.
PARTS = (
    "three_cells",
    "live_view",
    "lab_start",
    "panel_models",
    "round_cost",
    "aggregation",
    "delta_chain",
    "virtual_clients",
    "explanations",
    "serving_peers",
)


def _module(part: str) -> Any:
    return importlib.import_module(f"{__package__}.{part}")


def _known() -> list[str]:
    return [part for part in PARTS if (HERE / f"{part}.py").exists()]


def machine() -> str:
    """The class of machine, without names."""
    return (
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, no GPU, "
        f"Python {platform.python_version()}"
    )


def measure(part: str, *, quick: bool) -> dict[str, Any]:
    """Run a part; its raw values with date and machine."""
    run = _module(part).run
    arguments = {"quick": quick} if "quick" in inspect.signature(run).parameters else {}
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": today, "machine": machine(), **run(**arguments)}


def section(part: str, found: dict[str, Any]) -> str:
    """A part of the page."""
    module = _module(part)
    title = getattr(module, "TITLE", module.__doc__.strip().splitlines()[0].rstrip("."))
    words = module.report(found) if hasattr(module, "report") else _numbers(found)
    raw = f"Measured {found['date']} on: {found['machine']}. Raw values: `{part}.json`."
    return f"## {title}\n\n{words}\n\n{raw}\n"


def _numbers(found: dict[str, Any]) -> str:
    lines = ["| What | value |", "|---|---:|"]
    for name, value in found.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            lines.append(f"| {name} | {value:,.4g} |")
    return "\n".join(lines)


def main() -> None:
    known = _known()
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(known))
    parser.add_argument("--quick", action="store_true", help="measure little, into build/")
    asked = parser.parse_args()
    unknown = [part for part in asked.parts if part not in known]
    if unknown:
        parser.error(f"no part is named {unknown[0]}; there are {', '.join(known)}")
    place = TRIAL if asked.quick else HERE
    place.mkdir(parents=True, exist_ok=True)
    for part in asked.parts or known:
        print(f"== {part}", flush=True)
        found = measure(part, quick=asked.quick)
        (place / f"{part}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(section(part, found), flush=True)
    logs = [part for part in known if (place / f"{part}.json").exists()]
    pages = [section(part, json.loads((place / f"{part}.json").read_text())) for part in logs]
    head = "# Results\n\n`make bench` writes this page; what counts are the ratios.\n"
    (place / "RESULTS.md").write_text("\n".join([head, *pages]))


if __name__ == "__main__":
    main()
