"""Explanations beside shap, lime and captum, at equal or better error, on one thread.

``run()`` measures each pair interleaved in one fresh process. Times are the process's CPU time;
the libraries are warm (their imports and compilations are not counted). lime and captum lie in
``oracles`` below the environment (``tests/explainability/oracles.txt``).
``python -m tests.benchmarks.explanations`` prints what it returns.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

TITLE = "Explanations beside shap, lime and captum"
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
COLUMNS = 30
#: What each ratio (theirs to ours, CPU time) shall be at least.
GOALS = {
    "LIME, 10 of 30 columns: lime": 40.0,
    "LIME, 5 of 30 columns: lime": 150.0,
    "DeepLIFT: shap": 20.0,
    "DeepLIFT: captum": 10.0,
    "Expected gradients: shap": 50.0,
    "Expected gradients: captum": 1.0,
    "Trees, 100 rows, background 1,000: shap": 8.0,
    "Trees, 1 row, background 10: shap": 1.0,
    "Trees, 1 row, background 1,000: shap": 1.0,
    "Trees, 100 rows, background 10: shap": 1.0,
    "Forest, 20 rows, background 100: shap": 1.0,
    "Forest, 100 rows, background 1,000: shap": 8.0,
    "Any function: shap's SamplingExplainer": 15.0,
    "Any function: shap's PermutationExplainer, warm": 2.0,
}


def run(*, quick: bool = False) -> dict[str, Any]:
    """What ``measure`` finds in a fresh process with one thread."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.explanations", "--quick" if quick else "--whole"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **THREADS},
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def report(found: dict[str, Any]) -> str:
    """A table of ratios with errors."""
    lines = [
        "| What: beside | ours, ms | theirs, ms | ratio | goal | our error | their error |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, pair in found["pairs"].items():
        met = "" if pair["ratio"] >= pair["goal"] else " (missed)"
        lines.append(
            f"| {name} | {pair['ours_ms']:,.1f} | {pair['theirs_ms']:,.1f} | "
            f"{pair['ratio']:,.1f} | {pair['goal']:g}{met} | {pair['our_error']} | "
            f"{pair['their_error']} |"
        )
    share = found["model_share"]
    lines.append(
        f"\nOf explaining a function, {100 * share:.0f} % of the time is the function's own (goal "
        "75 %). Errors are relative root mean squares against exact values; 'same' where both "
        "compute one definition exactly. Times are CPU times of one thread for all the rows."
    )
    return "\n".join(lines)


def measure(*, quick: bool) -> dict[str, Any]:
    """As ``run``, in this process: its libraries must have been started with one thread.

    Returns:
        ``pairs``: name -> CPU milliseconds of both, ratio of medians, goal, errors, all times;
        ``model_share``.
    """
    import torch

    torch.set_num_threads(1)
    sys.path.append(str(Path(sys.prefix, "oracles")))
    warnings.simplefilter("ignore")
    repeats = 1 if quick else 5
    pairs: dict[str, Any] = {}
    share = 0.0
    for part in (_lime, _torch, _trees, _forest):
        pairs.update(part(repeats))
    functions, share = _functions(repeats)
    pairs.update(functions)
    return {"pairs": {name: pairs[name] for name in GOALS}, "model_share": share}


def _pair(
    name: str,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    repeats: int,
    errors: tuple[str, str] = ("same", "same"),
) -> dict[str, Any]:
    ours()
    theirs()
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for repeat in range(repeats):
        both = [("ours", ours), ("theirs", theirs)]
        for who, call in both if repeat % 2 else both[::-1]:
            started = time.process_time()
            call()
            times[who].append(1000 * (time.process_time() - started))
    a, b = statistics.median(times["ours"]), statistics.median(times["theirs"])
    print(f"{name}: {a:.1f} ms, theirs {b:.1f} ms, {b / a:.1f}", file=sys.stderr, flush=True)
    return {
        name: {
            "ours_ms": a,
            "theirs_ms": b,
            "ratio": b / a,
            "goal": GOALS[name],
            "our_error": errors[0],
            "their_error": errors[1],
            "times_ms": times,
        }
    }


def _table(rows: int = 20_000) -> tuple[Any, Any]:
    from sklearn.datasets import make_classification

    x, y = make_classification(rows, COLUMNS, n_informative=15, random_state=0)
    return x.astype("float32").astype("float64"), y


def _boosting() -> tuple[Any, Any]:
    from sklearn.ensemble import GradientBoostingClassifier

    x, y = _table()
    model = GradientBoostingClassifier(n_estimators=100, max_depth=5, subsample=0.3, random_state=0)
    return model.fit(x[:6000], y[:6000]), x


def _relative(found: Any, exact: Any) -> float:
    import numpy as np

    return float(np.sqrt(((found - exact) ** 2).mean() / (exact**2).mean()))


def _lime(repeats: int) -> dict[str, Any]:
    from lime.lime_tabular import LimeTabularExplainer

    from truststram_lab.explainability import LIMEExplainer

    model, x = _boosting()
    rows = x[-100:]
    theirs = LimeTabularExplainer(x[:6000], random_state=0)
    ours = LIMEExplainer(model, background_data=x[:6000])
    found: dict[str, Any] = {}
    for features in (10, 5):
        found.update(
            _pair(
                f"LIME, {features} of 30 columns: lime",
                lambda k=features: ours.explain(rows, num_features=k),
                lambda k=features: [
                    theirs.explain_instance(row, model.predict_proba, num_features=k)
                    for row in rows
                ],
                1,  # theirs takes a minute
            )
        )
    return found


def _torch(repeats: int) -> dict[str, Any]:
    import numpy as np
    import shap
    import torch
    from captum.attr import DeepLiftShap, GradientShap
    from torch import nn

    from truststram_lab.explainability import SHAPExplainer

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(COLUMNS, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 1)
    ).eval()
    x, _ = _table(1000)
    b, rows = x[:100], x[-100:]
    tb, tx = torch.tensor(b).float(), torch.tensor(rows).float()
    lift = SHAPExplainer(net, b, method="deeplift")
    deep, captum_lift = shap.DeepExplainer(net, tb), DeepLiftShap(net)

    def by_captum() -> Any:
        # Row by row, as its own documentation does with a shared background of this size.
        return [captum_lift.attribute(row[None], tb) for row in tx]

    found = _pair(
        "DeepLIFT: shap", lambda: lift.explain(rows), lambda: deep.shap_values(tx), repeats
    )
    found.update(_pair("DeepLIFT: captum", lambda: lift.explain(rows), by_captum, repeats))
    many = SHAPExplainer(net, b, method="expected_gradients", samples=40_000, seed=5)
    exact = many.explain(rows[:20]).values
    gradients = SHAPExplainer(net, b, method="expected_gradients", samples=200)
    theirs, captum = shap.GradientExplainer(net, tb), GradientShap(net)
    torch.manual_seed(1)
    np.random.seed(1)
    a = _relative(gradients.explain(rows[:20]).values, exact)
    s = _relative(np.reshape(theirs.shap_values(tx[:20], nsamples=200), exact.shape), exact)

    def captum_gradients(some: Any) -> Any:
        return captum.attribute(some, tb, n_samples=200, stdevs=0.0).detach().numpy()

    c = _relative(captum_gradients(tx[:20]), exact)
    calls = [
        ("shap", lambda: theirs.shap_values(tx, nsamples=200), s),
        ("captum", lambda: captum_gradients(tx), c),
    ]
    for name, call, error in calls:
        found.update(
            _pair(
                f"Expected gradients: {name}",
                lambda: gradients.explain(rows),
                call,
                repeats,
                (f"{a:.4f}", f"{error:.4f}"),
            )
        )
    return found


def _trees(repeats: int) -> dict[str, Any]:
    import numpy as np
    import shap

    from truststram_lab.explainability import SHAPExplainer

    model, x = _boosting()
    found: dict[str, Any] = {}
    for count, size in ((100, 1000), (1, 10), (1, 1000), (100, 10)):
        rows, background = x[-count:], x[:size]
        ours = SHAPExplainer(model, background)
        # Of an array it would take 100 rows by itself, whatever the array's length.
        theirs = shap.TreeExplainer(model, shap.maskers.Independent(background, max_samples=size))
        error = _relative(theirs.shap_values(rows), ours.explain(rows).values)
        assert np.abs(ours.explain(rows).residual).max() < 1e-6
        words = f"{count} row{'s' if count > 1 else ''}, background {size:,}"
        found.update(
            _pair(
                f"Trees, {words}: shap",
                lambda ours=ours, rows=rows: ours.explain(rows),
                lambda theirs=theirs, rows=rows: theirs.shap_values(rows),
                repeats,
                ("exact", f"{error:.1g}"),
            )
        )
    return found


def _forest(repeats: int) -> dict[str, Any]:
    import shap
    from sklearn.ensemble import RandomForestClassifier

    from truststram_lab.explainability import SHAPExplainer

    x, y = _table()
    model = RandomForestClassifier(30, random_state=0).fit(x[:3000], y[:3000])
    found: dict[str, Any] = {}
    for count, size in ((20, 100), (100, 1000)):
        rows, background = x[-count:], x[:size]
        ours = SHAPExplainer(model, background)
        theirs = shap.TreeExplainer(model, shap.maskers.Independent(background, max_samples=size))
        error = _relative(theirs.shap_values(rows)[:, :, 1], ours.explain(rows).values)
        found.update(
            _pair(
                f"Forest, {count} rows, background {size:,}: shap",
                lambda ours=ours, rows=rows: ours.explain(rows),
                lambda theirs=theirs, rows=rows: theirs.shap_values(rows),
                min(repeats, 2),
                ("exact", f"{error:.1g}"),
            )
        )
    return found


def _functions(repeats: int) -> tuple[dict[str, Any], float]:
    import numpy as np
    import shap

    from truststram_lab.explainability import SHAPExplainer

    model, x = _boosting()
    rows, background = x[-10:], x[:100]
    exact = SHAPExplainer(model, background).explain(rows).values
    function = model.decision_function
    sampling = shap.SamplingExplainer(function, background)
    permuting = shap.PermutationExplainer(function, background)

    def by_sampling() -> Any:
        return sampling.shap_values(rows, silent=True)

    def by_permuting() -> Any:
        return permuting(rows, silent=True).values

    found: dict[str, Any] = {}
    for name, call in (
        ("SamplingExplainer", by_sampling),
        ("PermutationExplainer, warm", by_permuting),
    ):
        np.random.seed(0)
        theirs = statistics.median(_relative(call(), exact) for _ in range(min(repeats, 3)))
        ours, error = _as_good(function, rows, background, exact, theirs)
        found.update(
            _pair(
                f"Any function: shap's {name}",
                lambda ours=ours: ours.explain(rows),
                call,
                min(repeats, 3),
                (f"{error:.4f}", f"{theirs:.4f}"),
            )
        )
    return found, _model_share(function, rows, background)


def _as_good(
    function: Any, rows: Any, background: Any, exact: Any, error: float
) -> tuple[Any, float]:
    """Ours with the fewest samples whose error, the mean of three seeds, is no larger."""
    from truststram_lab.explainability import SHAPExplainer

    samples = 20
    while True:
        tries = [
            SHAPExplainer(function, background, method="permutation", samples=samples, seed=seed)
            for seed in range(3)
        ]
        own = statistics.fmean(_relative(one.explain(rows).values, exact) for one in tries)
        if own <= error or samples > 10_000:
            return tries[0], own
        samples = int(samples * 1.3)


def _model_share(function: Any, rows: Any, background: Any) -> float:
    from truststram_lab.explainability import SHAPExplainer

    inside = 0.0

    def timed(points: Any) -> Any:
        nonlocal inside
        started = time.process_time()
        found = function(points)
        inside += time.process_time() - started
        return found

    explainer = SHAPExplainer(timed, background, method="permutation")
    inside = 0.0
    started = time.process_time()
    explainer.explain(rows)
    return inside / (time.process_time() - started)


if __name__ == "__main__":
    print(json.dumps(measure(quick="--quick" in sys.argv)))
