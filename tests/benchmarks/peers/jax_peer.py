"""One round by jit of vmap over clients, as FedJAX trains them; needs jax and numpy alone.

Ro, Suresh and Wu 2021, "FedJAX: Federated learning simulation with JAX", section 3.
https://arxiv.org/abs/2108.02117
"""

from __future__ import annotations

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np


def main(problem: str, answer: str) -> None:
    given = np.load(problem)
    batch, rate, repeats = given["settings"]
    x, y, orders = (jnp.asarray(given[name]) for name in ("x", "y", "orders"))
    start = [jnp.asarray(given[f"w{i}"]) for i in range(4)]

    def loss(weights, rows, targets):
        hidden = jax.nn.relu(rows @ weights[0].T + weights[1])
        logits = jax.nn.log_softmax(hidden @ weights[2].T + weights[3])
        return -jnp.take_along_axis(logits, targets[:, None], axis=1).mean()

    def client(weights, rows, targets, order):
        def step(now, places):
            gradients = jax.grad(loss)(now, rows[places], targets[places])
            return [w - rate * g for w, g in zip(now, gradients, strict=True)], None

        end, _ = jax.lax.scan(step, weights, order.reshape(-1, int(batch)))
        return [b - a for a, b in zip(weights, end, strict=True)]

    @jax.jit
    def one_round(weights, order):
        deltas = jax.vmap(client, in_axes=(None, 0, 0, 0))(weights, x, y, order)
        return [w + d.mean(axis=0) for w, d in zip(weights, deltas, strict=True)]

    begun = time.perf_counter()
    jax.block_until_ready(one_round(start, orders[0]))
    compiled = time.perf_counter() - begun
    took = []
    for _ in range(int(repeats)):
        begun = time.process_time()
        end = jax.block_until_ready(one_round(start, orders[0]))
        took.append(time.process_time() - begun)
    np.savez(answer, **{f"w{i}": np.asarray(a) for i, a in enumerate(end)})
    print(json.dumps({"version": jax.__version__, "compile_s": compiled, "cpu_s": took}))


if __name__ == "__main__":
    main(*sys.argv[1:])
