"""Is the federation worth it, client by client: alone against federated, many at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from truststram_lab.federated.preparation import Prepared, network_of
from truststram_lab.learning.network import Network
from truststram_lab.learning.training import Stopped, initial_state, round_seed
from truststram_lab.learning.virtual import Work
from truststram_lab.learning.weights import State, apply
from truststram_lab.preprocessing import TableEncoder
from truststram_lab.schemas.federation import CreateRun
from truststram_lab.schemas.simulation import ClientsReport, Quantiles
from truststram_lab.schemas.tables import Statistics

from .wish import clients_of, trainer_of

__all__ = ["clients_report", "quantiles"]

#: Round number of the baselines, far from any real round, so that no seed is shared.
_BASELINE_ROUND = 2**20
#: Losing clients that are named.
_NAMED = 20


def quantiles(values: np.ndarray) -> Quantiles:
    """Least, quartiles, greatest and mean of one number a client."""
    least, low, middle, high, greatest = np.quantile(values, [0, 0.25, 0.5, 0.75, 1]).tolist()
    return Quantiles(
        least=least, low=low, middle=middle, high=high, greatest=greatest,
        mean=float(np.mean(values)),
    )  # fmt: skip


def clients_report(
    prepared: Prepared,
    plan: CreateRun,
    state: State,
    statistics: Statistics,
    should_stop: Callable[[], bool],
    own_model: Callable[[int], State] | None = None,
) -> tuple[ClientsReport, State]:
    """What each client would get alone, and what it gets from the federation's model, and from
    its own beside that one; and a table of it, one line a client.

    Both are the shares of held-out rows that are found, class by class, weighted to the
    client's own mix of classes: what the client would see on new rows like its own, if classes
    are all in which clients differ. A client of one class is right alone by always naming it.
    Alone means as many epochs as the whole run had, from the
    same weights, on inputs scaled by the federation's means. No client fails here.

    Args:
        own_model: a client's place -> its own model; None where they have none.

    Raises:
        Stopped: ``should_stop`` said so.
    """
    assert plan.hosted is not None, "the caller looked"
    network = network_of(plan)
    counts = prepared.class_counts()
    mixes = counts / counts.sum(axis=1, keepdims=True)
    encoder = TableEncoder(prepared.signature, statistics)
    held_out = encoder.encode_frame(prepared.held_out.frame)
    codes = prepared.held_out.codes
    classes = len(prepared.signature.classes)

    def recalls(model: State) -> np.ndarray:
        found = Network(network, model, prepared.signature).probabilities(held_out)
        right = found.argmax(axis=1) == codes
        total = np.bincount(codes, minlength=classes)
        return np.bincount(codes, weights=right, minlength=classes) / np.maximum(total, 1)

    trainer = trainer_of(clients_of(prepared, statistics), network, plan.local, plan.hosted)
    start = initial_state(network, plan.seed, plan.local.dtype)
    works = [
        Work(place, seed=round_seed(plan.seed, place, _BASELINE_ROUND),
             epochs=plan.local.epochs * plan.rounds)
        for place in range(len(counts))
    ]  # fmt: skip
    own = np.array(
        [recalls(apply(start, one.delta)) for one in trainer.train(start, works, should_stop)]
    )
    alone = (mixes * own).sum(axis=1)
    together = mixes @ recalls(state)
    table: State = {
        "rows": counts.sum(axis=1),
        "local_accuracy": alone,
        "global_accuracy": together,
    }
    if own_model is not None:
        own_scores = np.empty(len(counts))
        for place in range(len(counts)):
            if should_stop():
                raise Stopped
            own_scores[place] = mixes[place] @ recalls(own_model(place))
        table["personal_accuracy"] = own_scores
    gap = alone - together
    losing = [place for place in np.argsort(-gap, kind="stable").tolist() if gap[place] > 0]
    names = list(prepared.parts)
    personal = table.get("personal_accuracy")
    report = ClientsReport(
        rows=quantiles(counts.sum(axis=1)),
        classes=quantiles((counts > 0).sum(axis=1)),
        alone=quantiles(own @ (np.bincount(codes, minlength=classes) / len(codes))),
        local=quantiles(alone),
        federated=quantiles(together),
        losing=[
            (names[place], float(alone[place]), float(together[place])) for place in losing[:_NAMED]
        ],
        lost=len(losing),
        personal=None if personal is None else quantiles(personal),
        lost_personal=None if personal is None else int((alone > personal).sum()),
    )
    return report, table
