from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import truststram_lab

ROOT = Path(truststram_lab.__file__).parent.parent


def test_a_type_checker_knows_what_every_call_returns():
    # The project's own settings, so that the cache of `mypy -p truststram_lab` serves too.
    usage = Path(__file__).with_name("typed_usage.py").relative_to(ROOT)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(usage)],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = checked.stdout.splitlines()
    assert lines, checked.stderr
    assert lines[-1].startswith(("Success", "Found")), checked.stdout
    assert not [line for line in lines if line.startswith(str(usage))]
