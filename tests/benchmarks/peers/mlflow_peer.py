"""Serves a pickled estimator of ours with MLflow's scoring server; runs in MLflow's environment.

``python mlflow_peer.py ESTIMATOR FOLDER PORT``; the estimator answers with probabilities.
"""

import os
import pickle
import sys
from pathlib import Path

import mlflow
import mlflow.sklearn

estimator, folder, port = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
if not folder.exists():
    mlflow.sklearn.save_model(
        pickle.loads(estimator.read_bytes()), str(folder), pyfunc_predict_fn="predict_proba",
        serialization_format="cloudpickle",
    )  # fmt: skip
print("version", mlflow.__version__, flush=True)
command = ["-m", "mlflow", "models", "serve", "-m", str(folder), "-p", port, "-h", "127.0.0.1"]
os.execv(sys.executable, [sys.executable, *command, "--env-manager", "local"])
