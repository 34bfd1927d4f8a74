"""Following what has no end of its own, in a real kernel."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.kernel, pytest.mark.long]

SET_UP = """
import numpy as np, pandas as pd
from truststram_lab import verbs
from truststram_lab.models import MLModel
verbs.login(sandbox=True)
frame = pd.DataFrame({"dose": np.linspace(-1, 1, 40)})
target = pd.Series(np.where(frame["dose"] > 0, "yes", "no"), name="ill")
fitted = MLModel(algorithm="logistic_regression").fit(frame, target)
%load_ext truststram_lab
%ts_deploy fitted --name illness
"""


@pytest.fixture(scope="module")
def served(open_notebook):
    notebook = open_notebook()
    assert "illness:1 answers from now on" in notebook.run(SET_UP).text
    return notebook


#: somebody else, meanwhile
ASKS = """
import threading, time
def later():
    time.sleep(1)
    verbs.predict("illness", {"dose": 0.5})
    verbs.models("illness", "alias", "champion")
threading.Thread(target=later).start()
"""


@pytest.mark.parametrize(
    ("line", "said"),
    [("%ts_deployments illness watch", "1 request"), ("%ts_models illness watch", "@champion")],
)
def test_a_watched_card_follows_until_it_is_interrupted(served, line, said):
    key = served.start(f"{ASKS}\n{line}")
    cell = served.cells[key]
    assert said not in cell.text
    served.until(lambda _: said in cell.text)
    served.interrupt()
    served.finish(key)
    assert cell.reply["status"] == "ok", cell.text
    assert said in cell.text
    assert "Stop" not in cell.text
