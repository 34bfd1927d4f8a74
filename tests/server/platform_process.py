"""A real platform process, and the parts of a small federation made with numpy alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import NullPool, create_engine, text

from truststram_lab.learning import weights
from truststram_lab.learning.network import expected_shapes
from truststram_lab.learning.statistics import local_moments
from truststram_lab.preprocessing import encoded_width
from truststram_lab.schemas.registry import Architecture, DenseLayer
from truststram_lab.schemas.tables import Column, Signature

START_S = 60.0

SIGNATURE = Signature(
    columns=[
        Column(name="age", kind="numeric"),
        Column(name="dose", kind="numeric", nullable=True),
        Column(name="ward", kind="categorical", categories=["icu", "north"]),
    ],
    target="outcome",
    classes=["died", "lived"],
    positive_class="died",
)
ARCHITECTURE = Architecture(
    inputs=encoded_width(SIGNATURE),
    layers=[DenseLayer(units=3, activation="relu"), DenseLayer(units=1)],
)


class PlatformProcess:
    """``python -m truststram_lab.server`` on a folder, and clients of it.

    Args:
        database: URL of its state; None is a file in the folder.
    """

    def __init__(self, home: Path, database: str | None = None) -> None:
        self.home = home
        self.database = database
        self.process: subprocess.Popen[bytes] | None = None
        self._clients: list[httpx.Client] = []

    def start(self, *, idle_s: float = 0, port: int = 0) -> PlatformProcess:
        """Start it and wait until it has told where it listens."""
        former = self.state().get("instance")
        self.process = self.spawn("--idle-s", str(idle_s), "--port", str(port))
        deadline = time.monotonic() + START_S
        while self.state().get("instance") in (None, former):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return self

    def spawn(self, *arguments: str) -> subprocess.Popen[bytes]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRUSTSTRAM_")}
        if self.database is not None:
            environment["TRUSTSTRAM_DATABASE_URL"] = self.database
        return subprocess.Popen(
            [sys.executable, "-m", "truststram_lab.server", "--home", str(self.home), *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.home / 'platform.db'}"

    def sql(self, statement: str, **values: Any) -> list[Any]:
        """Read or change the state behind the platform's back; the rows, if there are any."""
        engine = create_engine(
            self.database_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=NullPool
        )
        with engine.begin() as connection:
            found = connection.execute(text(statement), values)
            return list(found) if found.returns_rows else []

    def state(self) -> dict[str, Any]:
        try:
            return json.loads((self.home / "sandbox.json").read_bytes())
        except FileNotFoundError:
            return {}

    @property
    def url(self) -> str:
        return self.state()["url"]

    @property
    def log(self) -> str:
        return (self.home / "platform.log").read_text()

    def access_lines(self) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self.log.splitlines()]
        return [line for line in lines if line["logger"] == "truststram_lab.access"]

    def client(self, token: str | None = "owner", **options: Any) -> httpx.Client:
        """A client with a token; ``owner`` stands for the state file's key."""
        key = self.state()["api_key"] if token == "owner" else token
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        headers |= options.pop("headers", {})
        made = httpx.Client(
            base_url=self.url, headers=headers, timeout=60, trust_env=False, verify=False, **options
        )
        self._clients.append(made)
        return made

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and wait for the end; returns the exit status."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.communicate(timeout=30)
        status, self.process = self.process.returncode, None
        return status


def rows_of(site: int, rows: int = 12) -> dict[str, list[Any]]:
    rng = np.random.default_rng(site)
    dose = [None if rng.random() < 0.2 else float(rng.normal()) for _ in range(rows)]
    return {
        "age": [float(value) for value in rng.normal(60 + site, 5, rows)],
        "dose": dose,
        "ward": [str(value) for value in rng.choice(["icu", "north"], rows)],
    }


def moments_of(site: int, rows: int = 12) -> bytes:
    return weights.encode(
        local_moments(rows_of(site, rows), SIGNATURE), {"sample_count": str(rows)}
    )


def initial_state(seed: int = 0, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(ARCHITECTURE)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def delta_of(site: int, number: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng([site, number])
    shapes = expected_shapes(ARCHITECTURE)
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def update_of(site: int, number: int, samples: int = 12) -> bytes:
    metadata = {"sample_count": str(samples), "metrics": json.dumps({"loss": 0.5})}
    return weights.encode(delta_of(site, number), metadata)


def digest(body: bytes) -> dict[str, str]:
    from truststram_lab.server.http import content_digest

    return {"Content-Digest": content_digest(weights.sha256_hex(body))}


def plan_of(model: str, sites: list[str], rounds: int, sha256: str, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "federation": model,
        "sites": sites,
        "rounds": rounds,
        "architecture": ARCHITECTURE.model_dump(),
        "signature": SIGNATURE.model_dump(),
        "initial_weights_sha256": sha256,
        **more,
    }


class Run:
    """A run of ``sites`` on a platform, driven over HTTP as its participants would."""

    def __init__(
        self, platform: PlatformProcess, model: str, sites: int = 2, rounds: int = 2, **more: Any
    ) -> None:
        self.platform = platform
        self.model = model
        self.names = [f"site {number + 1}" for number in range(sites)]
        self.owner = platform.client()
        body = weights.encode(initial_state())
        sha256 = weights.sha256_hex(body)
        ok(self.owner.put(f"/api/v1/blobs/{sha256}", content=body))
        ok(self.owner.post("/api/v1/federations", json={"name": model}))
        invited = ok(
            self.owner.post(
                f"/api/v1/federations/{model}/invite", json={"participants": self.names}
            )
        )
        self.tokens = [invitation["token"] for invitation in invited]
        self.reconnect()
        plan = plan_of(model, self.names, rounds, sha256, **more)
        self.created = ok(self.owner.post("/api/v1/runs", json=plan))
        self.name, self.id = self.created["name"], self.created["id"]

    def reconnect(self) -> None:
        """New clients, for a platform that was started again."""
        self.owner = self.platform.client()
        self.clients = [self.platform.client(token) for token in self.tokens]

    def get(self) -> dict[str, Any]:
        return ok(self.owner.get(f"/api/v1/runs/{self.name}"))

    def assignment(self, site: int, wait_s: float = 20) -> dict[str, Any]:
        found = ok(self.clients[site].get("/api/v1/training/rounds", params={"wait_s": wait_s}))
        mine = [assignment for assignment in found if assignment["run_id"] == self.id]
        assert len(mine) == 1, found
        return mine[0]

    def push(self, site: int, round_id: str, body: bytes) -> httpx.Response:
        return self.clients[site].put(
            f"/api/v1/training/rounds/{round_id}/update", content=body, headers=digest(body)
        )

    def play(self, number: int, order: list[int] | None = None) -> str:
        """Every site pushes in round ``number``; returns the round's id."""
        for site in order or range(len(self.names)):
            assignment = self.assignment(site)
            assert assignment["number"] == number
            body = update_of(site, number) if number else moments_of(site)
            assert ok(self.push(site, assignment["round_id"], body))["duplicate"] is False
        return assignment["round_id"]

    def wait(self, *statuses: str) -> dict[str, Any]:
        deadline = time.monotonic() + START_S
        while (run := self.get())["status"] not in statuses:
            assert time.monotonic() < deadline, run
            time.sleep(0.05)
        return run

    def weights(self, which: str = "latest") -> bytes:
        answer = self.owner.get(f"/api/v1/models/{self.model}/versions/{which}/download")
        assert answer.status_code == 200, answer.text
        return answer.content


def small_version(client: httpx.Client) -> dict[str, Any]:
    """The request that registers a version of a one-column model; its weights are uploaded."""
    state = {
        "layers.0.weight": np.ones((1, 1), np.float32),
        "layers.0.bias": np.zeros(1, np.float32),
    }
    body = weights.encode(state)
    sha256 = weights.sha256_hex(body)
    ok(client.put(f"/api/v1/blobs/{sha256}", content=body))
    return {
        "weights_sha256": sha256,
        "architecture": {"inputs": 1, "layers": [{"type": "dense", "units": 1}]},
        "signature": {
            "columns": [{"name": "dose", "kind": "numeric"}],
            "target": "ill",
            "classes": ["no", "yes"],
            "positive_class": "yes",
        },
        "statistics": {
            "rows": 100,
            "sites": 2,
            "columns": [{"name": "dose", "count": 100, "missing": 0, "mean": 5.0, "variance": 4.0}],
        },
    }


def ok(answer: httpx.Response) -> Any:
    """The JSON of an answer that must be a success."""
    assert answer.is_success, (answer.status_code, answer.text)
    return answer.json()


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem of an answer that must be a refusal: one sentence, with its code."""
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["code"] == code, problem
    assert problem["detail"].endswith((".", "?")), problem
    return problem
