"""Loading the extension is cheap: nothing heavy comes with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import truststram_lab

HEAVY = (
    "torch", "pandas", "sklearn", "shap", "matplotlib", "fastapi", "ipywidgets", "anywidget",
    "httpx", "pydantic", "numpy", "sqlalchemy",
)  # fmt: skip

PROGRAM = """
import json, sys, time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
started = time.process_time()
shell.run_line_magic("load_ext", "truststram_lab")
spent = time.process_time() - started
shell.Completer.complete("%ts_federate --cl")
shell.run_line_magic("ts_federate", "--help")
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print("REPORT" + json.dumps({"cpu_s": spent, "loaded": sorted(loaded)}))
"""


def test_the_extension_loads_fast_and_brings_nothing_heavy(tmp_path):
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "IPYTHONDIR": str(tmp_path),
            "PYTHONPATH": str(Path(truststram_lab.__file__).parents[1]),
        },
    )
    report = json.loads(result.stdout.partition("REPORT")[2])
    assert [name for name in HEAVY if name in report["loaded"]] == []
    # Processor time, so that a busy machine cannot fail it.
    assert report["cpu_s"] < 0.15
