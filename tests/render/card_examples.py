"""Schemas to render: small factories with the tutorial's numbers."""

from __future__ import annotations

from typing import Any

from truststram_lab.render import Card, simulated_card
from truststram_lab.schemas.accounts import Identity
from truststram_lab.schemas.federation import (
    CreateRun,
    DataSource,
    LocalTraining,
    RoundReport,
    Run,
    RunReport,
    Score,
    SiteReport,
    Split,
)
from truststram_lab.schemas.registry import (
    Alias,
    Architecture,
    DenseLayer,
    DropoutLayer,
    Lineage,
    Model,
    ModelVersion,
)
from truststram_lab.schemas.serving import (
    Background,
    Contribution,
    Deployment,
    Explanation,
    Latency,
    Prediction,
    PredictionRecord,
    Traffic,
)
from truststram_lab.schemas.tables import Column, ColumnStatistics, Signature, Statistics

SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
THEN = "2026-11-22T09:30:00+00:00"
MEASURES = (
    "radius", "texture", "perimeter", "area", "smoothness", "compactness", "concavity",
    "concave points", "symmetry", "fractal dimension",
)  # fmt: skip
FEATURES = tuple(f"{kind} {name}" for kind in ("mean", "error of", "worst") for name in MEASURES)
ACCURACIES = (0.6294, 0.7413, 0.8112, 0.8531, 0.8811, 0.9021, 0.9161, 0.9231, 0.9371, 0.9441)
SITES = (
    ("site 1", 88, 11, 0.7622, "done"),
    ("site 2", 101, 58, 0.9231, "done"),
    ("site 3", 42, 2, 0.5385, "done"),
    ("site 4", 120, 77, 0.8951, "done"),
    ("site 5", 75, 11, 0.7343, "done"),
)


def signature(classes: tuple[str, ...] = ("benign", "malignant")) -> Signature:
    return Signature(
        columns=[Column(name=name, kind="numeric") for name in FEATURES],
        target="diagnosis",
        classes=list(classes),
        positive_class=classes[-1] if len(classes) == 2 else None,
    )


def statistics() -> Statistics:
    return Statistics(
        rows=426,
        sites=5,
        columns=[
            ColumnStatistics(name=name, count=426 - i, missing=i, mean=14.125 + i, variance=12.25)
            for i, name in enumerate(FEATURES)
        ],
    )


def score(accuracy: float, rows: int = 143, recall: dict[str, float] | None = None) -> Score:
    return Score(
        accuracy=accuracy,
        low=max(0.0, accuracy - 0.062),
        high=min(1.0, accuracy + 0.031),
        rows=rows,
        recall={"benign": 0.9778, "malignant": 0.8846} if recall is None else recall,
    )


def site(
    name: str, rows: int, positive: int, alone: float | None, status: str, **more: Any
) -> SiteReport:
    return SiteReport(
        name=name,
        rows=rows,
        class_rows={"benign": rows - positive, "malignant": positive},
        status=status,
        sent_bytes=more.get("sent_bytes", 24_310 + 7 * rows),
        received_bytes=more.get("received_bytes", 22_140 + 3 * rows),
        alone=None if alone is None else score(alone),
    )


def report(**changes: Any) -> RunReport:
    values: dict[str, Any] = {
        "sites": [site(*entry) for entry in SITES],
        "history": [
            RoundReport(number=i + 1, accuracy=accuracy, loss=0.7 - 0.055 * i)
            for i, accuracy in enumerate(ACCURACIES)
        ],
        "federated": score(0.9441),
        "pooled": score(0.9580),
        "elapsed_s": 14.21,
        "device": "cpu",
        "held_out_rows": 143,
        "majority_share": 0.6294,
    }
    return RunReport(**{**values, **changes})


def plan(**changes: Any) -> CreateRun:
    values: dict[str, Any] = {
        "model": "breast-cancer",
        "federation": "breast-cancer",
        "sites": [entry[0] for entry in SITES],
        "rounds": 10,
        "local": LocalTraining(epochs=3, batch_size=24, learning_rate=0.07, momentum=0.15),
        "seed": 4711,
        "architecture": Architecture(
            inputs=30,
            layers=[DenseLayer(units=32, activation="relu"), DropoutLayer(rate=0.125),
                    DenseLayer(units=1)],
        ),
        "signature": signature(),
        "initial_weights_sha256": SHA,
        "source": DataSource(kind="demo", name="breast-cancer", rows=569, sha256=SHA),
        "split": Split(kind="dirichlet", alpha=0.35),
    }  # fmt: skip
    return CreateRun(**{**values, **changes})


def run(**changes: Any) -> Run:
    values: dict[str, Any] = {
        "id": "run_0193",
        "name": "breast-cancer-1",
        "status": "completed",
        "plan": plan(),
        "round": 10,
        "statistics": statistics(),
        "report": report(),
        "model_version": 1,
        "deployed": True,
        "created_at": THEN,
        "updated_at": "2026-11-22T09:30:17+00:00",
        "last_event": 37,
    }
    return Run(**{**values, **changes})


def live_run(**changes: Any) -> Run:
    """In round 4: two sites are in, nothing is compared yet."""
    states = ("pushed", "pushed", "training", "waiting", "waiting")
    sites = [
        site(name, rows, positive, None, state, sent_bytes=7_900, received_bytes=8_100)
        for (name, rows, positive, _, _), state in zip(SITES, states, strict=True)
    ]
    values: dict[str, Any] = {
        "status": "training",
        "round": 3,
        "pushed": ["site 1", "site 2"],
        "report": report(
            sites=sites,
            history=report().history[:3],
            federated=score(0.8112),
            pooled=None,
            elapsed_s=4.4,
        ),
        "model_version": None,
        "deployed": False,
    }
    return run(**{**values, **changes})


def many_sites_run(sites: int = 1000, rounds: int = 1000) -> Run:
    names = [f"hospital {i + 1}" for i in range(sites)]
    reports = [
        site(name, 20 + i % 7, 3, 0.5 + (i * 37 % 400) / 1000, "failed" if i == 777 else "done")
        for i, name in enumerate(names)
    ]
    history = [
        RoundReport(number=i + 1, accuracy=0.5 + 0.4 * i / rounds, loss=1 - i / rounds)
        for i in range(rounds)
    ]
    return run(
        plan=plan(sites=names, rounds=rounds),
        round=rounds,
        pushed=names,
        report=report(sites=reports, history=history),
    )


def explanation(**changes: Any) -> Explanation:
    large = (("worst radius", 20.4, 2.6), ("mean texture", 14.12, -0.4), ("worst area", 1210, 0.71),
             ("error of radius", 0.5435, 0.33), ("worst concavity", 0.3109, -0.21),
             ("mean symmetry", 0.1809, 0.19), ("worst texture", 25.53, 0.155),
             ("mean radius", 17.99, 0.12), ("mean perimeter", 118.8, -0.08),
             ("mean area", 1001.0, 0.07))  # fmt: skip
    small = [(name, 0.05, 0.0247) for name in FEATURES if name not in {row[0] for row in large}]
    contributions = [
        Contribution(feature=name, value=value, contribution=amount)
        for name, value, amount in [*large, *small]
    ]
    total = -0.5 + sum(part.contribution for part in contributions)
    values: dict[str, Any] = {
        "method": "deeplift",
        "meaning": "Each number is how much of the log-odds towards malignant is due to the column "
        "being what it is instead of the federation's mean.",
        "explained_class": "malignant",
        "output_space": "log_odds",
        "base_value": -0.5,
        "output_value": total,
        "contributions": contributions,
        "residual": 0.0,
        "background": Background(kind="federated_means", sha256=SHA, rows=426),
    }
    return Explanation(**{**values, **changes})


def prediction(**changes: Any) -> Prediction:
    values: dict[str, Any] = {
        "prediction_id": "pred_0193",
        "model": "breast-cancer",
        "version": 1,
        "label": "malignant",
        "probabilities": {"benign": 0.0283, "malignant": 0.9717},
        "confidence": 0.9717,
        "confidence_class": "malignant",
        "explanation": explanation(),
        "latency_ms": 4.2,
    }
    return Prediction(**{**values, **changes})


def model(**changes: Any) -> Model:
    values: dict[str, Any] = {
        "id": "mdl_0193",
        "name": "breast-cancer",
        "description": "Trained across five simulated sites",
        "framework": "pytorch",
        "version_count": 3,
        "latest_version": 3,
        "deployed_version": 2,
        "created_at": THEN,
    }
    return Model(**{**values, **changes})


def alias(name: str = "champion", version: int = 2) -> Alias:
    return Alias(alias=name, version=version, moved_at=THEN, moved_by="Ada")


def version(sequence: int = 3, **changes: Any) -> ModelVersion:
    values: dict[str, Any] = {
        "id": f"ver_{sequence}",
        "model": "breast-cancer",
        "sequence": sequence,
        "label": f"0.{sequence}.0",
        "format": "safetensors",
        "weights_sha256": SHA,
        "size_bytes": 4_523,
        "architecture": plan().architecture,
        "signature": signature(),
        "statistics": statistics(),
        "lineage": Lineage(
            federation="breast-cancer", run=f"breast-cancer-{sequence}", rounds=10,
            data_sha256=SHA, code_version="0.1.0",
        ),
        "metrics": {"accuracy": 0.9441, "loss": 0.2051},
        "created_at": THEN,
    }  # fmt: skip
    return ModelVersion(**{**values, **changes})


def deployment(**changes: Any) -> Deployment:
    values: dict[str, Any] = {
        "id": "dep_0193",
        "name": "breast-cancer",
        "environment": "sandbox",
        "model": "breast-cancer",
        "version": 2,
        "revision": 4,
        "status": "ready",
        "endpoint_url": "http://127.0.0.1:8907/api/v1/endpoints/breast-cancer/predict",
        "created_at": THEN,
        "updated_at": THEN,
    }
    return Deployment(**{**values, **changes})


def traffic(**changes: Any) -> Traffic:
    values: dict[str, Any] = {
        "name": "breast-cancer",
        "seconds": 3600,
        "requests": 1234,
        "failed": 3,
        "rows": 98_765,
        "latency_ms": Latency(p50=2.5, p95=11.0, p99=40.0),
        "per_minute": [*range(60)],
    }
    if changes.get("requests") == 0:
        values |= {"failed": 0, "rows": 0, "latency_ms": None, "per_minute": [0] * 60}
    return Traffic(**{**values, **changes})


def prediction_record(**changes: Any) -> PredictionRecord:
    values: dict[str, Any] = {
        "id": "pred_0193",
        "created_at": THEN,
        "name": "breast-cancer",
        "model": "breast-cancer",
        "version": 2,
        "caller": "member:ada",
        "status": 200,
        "rows": 12,
        "latency_ms": 3.25,
    }
    return PredictionRecord(**{**values, **changes})


def identity(**changes: Any) -> Identity:
    values: dict[str, Any] = {
        "organisation": "Sandbox",
        "organisation_id": "org_0193",
        "name": "owner",
        "principal_id": "usr_0193",
        "role": "owner",
        "environment": "sandbox",
        "platform_version": "0.1.0",
        "protocol": 1,
    }
    return Identity(**{**values, **changes})


def simulated(status: str, target: str, clients: int = 2) -> Card:
    lines = [
        {"client": place, "rows": 10 + place, "local_accuracy": 0.5, "local_loss": 0.9,
         "global_accuracy": 0.25, "global_loss": 1.2}
        for place in range(clients)
    ]  # fmt: skip
    options = {"strategy": "scaffold", "target": target, "holdout": 0.25, "rounds": 1}
    return simulated_card(
        status=status,
        history=[{"round": 1, "clients": clients, "train_loss": 1.1, "loss": 1.2,
                  "accuracy": 0.25}],
        clients=lines,
        losing=list(range(clients)),
        record={"options": options, "rounds_asked": 1, "why": target},
    )  # fmt: skip
