"""Pickle and joblib files of estimators, read with a list; and programs that pretend to be."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import joblib
import numpy as np
import pytest
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from truststram_lab.exceptions import InvalidInputError
from truststram_lab.models.unpickle import read_pickle

RNG = np.random.default_rng(0)
X = RNG.normal(size=(80, 3))
Y = (X[:, 0] > 0).astype(int)
WORDS = np.where(Y, "fraud", "fine").astype(object)

ESTIMATORS = {
    "logistic": lambda: LogisticRegression().fit(X, Y),
    "words": lambda: LogisticRegression().fit(X, WORDS),
    "linear": lambda: LinearRegression().fit(X, X[:, 1]),
    "forest": lambda: RandomForestClassifier(5, random_state=0).fit(X, Y),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=5, random_state=0).fit(X, Y),
    "histogram": lambda: HistGradientBoostingClassifier(max_iter=5).fit(X, Y),
    "pipeline": lambda: make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y),
    "network": lambda: MLPClassifier((4,), max_iter=300, random_state=0).fit(X, Y),
    "vectors": lambda: SVC().fit(X, Y),
}


def written(estimator: object, how: str) -> bytes:
    file = io.BytesIO()
    if how.startswith("joblib"):
        joblib.dump(estimator, file, compress=how.partition(" ")[2] or 0)
    else:
        pickle.dump(estimator, file, protocol=int(how.partition(" ")[2]))
    return file.getvalue()


@pytest.mark.parametrize("how", ["pickle 2", "pickle 4", "pickle 5", "joblib", "joblib gzip"])
@pytest.mark.parametrize("name", ESTIMATORS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimators_come_back_as_they_were(name: str, how: str) -> None:
    made = ESTIMATORS[name]()
    found = read_pickle(written(made, how))
    assert type(found) is type(made)
    assert found.predict(X).tolist() == made.predict(X).tolist()


class Bomb:
    def __init__(self, call, *arguments) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self):
        return self.call, self.arguments


def bombs(canary: Path) -> dict[str, object]:
    touch = f"open({str(canary)!r}, 'w').close()"
    model = LogisticRegression().fit(X, Y)
    model.bomb = Bomb(os.system, f"touch {canary}")
    hidden = np.empty(1, dtype=object)
    hidden[0] = Bomb(os.system, f"touch {canary}")
    return {
        "system": Bomb(os.system, f"touch {canary}"),
        "eval": Bomb(eval, touch),
        "exec": Bomb(exec, touch),
        "open": Bomb(open, str(canary), "w"),
        "getattr": Bomb(getattr, "text", "upper"),
        "import": Bomb(__import__, "subprocess"),
        "path": Bomb(Path.touch, canary),
        "in an estimator": model,
        "in an array of objects": hidden,
        "joblib's own loader": Bomb(joblib.load, str(canary)),
        "numpy's loader": Bomb(np.load, str(canary)),
    }


@pytest.mark.parametrize("how", ["pickle 2", "pickle 4", "joblib", "joblib zlib", "joblib xz"])
@pytest.mark.parametrize("name", bombs(Path("x")))
def test_nothing_of_a_bomb_is_executed(tmp_path: Path, name: str, how: str) -> None:
    canary = tmp_path / "canary"
    data = written(bombs(canary)[name], how)
    with pytest.raises(InvalidInputError, match=r"not among the types|no pickle") as caught:
        read_pickle(data)
    assert caught.value.field == "file"
    assert not canary.exists()


def test_names_with_dots_and_modules_that_only_look_like_ours_are_refused() -> None:
    for module, name in (
        ("sklearn.utils", "os.system"),
        ("sklearnx.linear_model", "LogisticRegression"),
        ("sklearn.utils.fixes", "os"),
        ("sklearn.externals.joblib", "load"),
        ("numpy", "load"),
        ("builtins", "eval"),
        ("os", "system"),
    ):
        text = f"c{module}\n{name}\n.".encode()
        with pytest.raises(InvalidInputError):
            read_pickle(b"\x80\x02" + text)


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"no pickle", b"\x80\x04.", b"PK\x03\x04", b"x\x9c"]
)
def test_what_is_no_pickle_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(InvalidInputError):
        read_pickle(data)


def test_any_bytes_end_in_a_sentence() -> None:
    whole = written(ESTIMATORS["forest"](), "pickle 4")
    packed = written(ESTIMATORS["forest"](), "joblib zlib")
    rng = np.random.default_rng(1)
    ended = 0
    for data in [whole, packed] * 100:
        broken = bytearray(data)
        for place in rng.integers(0, len(broken), 4):
            broken[place] = rng.integers(0, 256)
        try:
            read_pickle(bytes(broken))
        except InvalidInputError:
            ended += 1
    assert ended > 50
