"""Runs of named arrays alone, without a table or a network, driven over HTTP as sites would."""

from __future__ import annotations

import json
import time
from typing import Any

import httpx
import numpy as np
from platform_process import START_S, PlatformProcess, digest, ok

from truststram_lab.learning import encodings, weights
from truststram_lab.learning.filters import run_filters
from truststram_lab.learning.strategies.scaffold import expected_upload

State = dict[str, np.ndarray]


def start_state(seed: int = 0) -> State:
    rng = np.random.default_rng(seed)
    return {
        "body.weight": rng.normal(size=(5, 4)).astype(np.float32),
        "body.bias": np.zeros(5, np.float32),
    }


def change_of(site: int, number: int, like: State) -> State:
    rng = np.random.default_rng([site, number])
    return {n: (0.1 * rng.normal(size=a.shape)).astype(a.dtype) for n, a in like.items()}


def body_of(state: State, samples: int = 10, **metrics: float) -> bytes:
    metadata = {"sample_count": str(samples), "metrics": json.dumps(metrics)}
    return weights.encode(state, metadata)


def packed(state: State, filters: list[Any], samples: int = 10) -> bytes:
    """The same update after filters, in the container of the encodings."""
    filtered = run_filters(state, filters)
    audit = json.dumps([step.model_dump() for step in filtered.steps])
    metadata = {"sample_count": str(samples), "metrics": "{}", "filters": audit}
    return encodings.encode(filtered.parts, metadata).body


class ArrayRun:
    """A run of ``count`` sites; ``plan`` overrides what the plan has."""

    def __init__(
        self,
        platform: PlatformProcess,
        name: str,
        count: int = 2,
        *,
        start: State | None = None,
        simulated: bool = True,
        **plan: Any,
    ) -> None:
        self.platform = platform
        self.federation = name
        self.names = [f"site {number + 1}" for number in range(count)]
        self.owner = platform.client()
        self.start = start_state() if start is None else start
        ok(self.owner.post("/api/v1/federations", json={"name": name}))
        invited = ok(
            self.owner.post(f"/api/v1/federations/{name}/invite", json={"participants": self.names})
        )
        self.tokens = [one["token"] for one in invited]
        self.clients: list[httpx.Client] = []
        self.reconnect()
        self.plan = {
            "model": name,
            "federation": name,
            "sites": self.names,
            "rounds": 2,
            "simulated": simulated,
            "initial_weights_sha256": self.upload(weights.encode(self.start)),
            **plan,
        }
        self.name = self.id = ""

    def upload(self, body: bytes) -> str:
        sha256 = weights.sha256_hex(body)
        ok(self.owner.put(f"/api/v1/blobs/{sha256}", content=body))
        return sha256

    def reconnect(self) -> None:
        self.owner = self.platform.client()
        self.clients = [self.platform.client(token) for token in self.tokens]

    def create(self) -> ArrayRun:
        made = ok(self.owner.post("/api/v1/runs", json=self.plan))
        self.name, self.id = made["name"], made["id"]
        return self

    def get(self) -> dict[str, Any]:
        return ok(self.owner.get(f"/api/v1/runs/{self.name}"))

    def ask(self, site: int, wait_s: float = 0, **query: Any) -> list[dict[str, Any]]:
        params = {"wait_s": wait_s, **query}
        found = ok(self.clients[site].get("/api/v1/training/rounds", params=params))
        return [one for one in found if one["run_id"] == self.id]

    def assignment(self, site: int, wait_s: float = 20) -> dict[str, Any]:
        [found] = self.ask(site, wait_s)
        return found

    def push(self, site: int, round_id: str, body: bytes) -> httpx.Response:
        path = f"/api/v1/training/rounds/{round_id}/update"
        return self.clients[site].put(path, content=body, headers=digest(body))

    def play(self, site: int, number: int) -> dict[str, Any]:
        """The site does round ``number``, a training round."""
        found = self.assignment(site)
        assert (found["kind"], found["number"]) == ("training", number)
        like = self.start
        if found["strategy"] == "scaffold":
            like = expected_upload(self.start)
        ok(self.push(site, found["round_id"], body_of(change_of(site, number, like), 10 + site)))
        return found

    def wait(self, *statuses: str) -> dict[str, Any]:
        deadline = time.monotonic() + START_S
        while (run := self.get())["status"] not in statuses:
            assert time.monotonic() < deadline, run
            time.sleep(0.02)
        return run

    def result(self) -> bytes:
        answer = self.owner.get(f"/api/v1/blobs/{self.get()['result_sha256']}")
        assert answer.status_code == 200, answer.text
        return answer.content

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        """The data of the run's events so far, of these types."""
        params = {"stream": f"run:{self.id}"}
        last = self.get()["last_event"]
        found: list[dict[str, Any]] = []
        with self.owner.stream("GET", "/api/v1/events", params=params) as answer:
            for line in answer.iter_lines():
                if line.startswith("data:"):
                    event = json.loads(line[5:])
                    if event["type"] in kinds:
                        found.append(event["data"])
                    if event["sequence"] >= last:
                        break
        return found
