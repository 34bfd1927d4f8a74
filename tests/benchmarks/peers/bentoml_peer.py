"""Serves a pickled estimator of ours with BentoML and its adaptive batching; in its environment.

``python bentoml_peer.py ESTIMATOR PORT``.
"""

import os
import pickle
import sys
from pathlib import Path

import bentoml
import numpy as np


@bentoml.service(traffic={"timeout": 120})
class Scorer:
    def __init__(self) -> None:
        self.estimator = pickle.loads(Path(os.environ["ESTIMATOR"]).read_bytes())

    @bentoml.api(batchable=True)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        return self.estimator.predict_proba(rows)


if __name__ == "__main__":
    print("version", bentoml.__version__, flush=True)
    os.environ |= {"ESTIMATOR": sys.argv[1], "BENTOML_DO_NOT_TRACK": "True"}
    here = Path(__file__)
    command = ["-m", "bentoml", "serve", f"{here.stem}:Scorer", "--working-dir", str(here.parent)]
    os.execv(sys.executable, [sys.executable, *command, "--port", sys.argv[2], "--host",
                              "127.0.0.1"])  # fmt: skip
