"""What a round's updates come to, and what is written when the round closes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, select, update

from truststram_lab.schemas.federation import CreateRun
from truststram_lab.schemas.privacy import ClientPlan
from truststram_lab.schemas.registry import CreateVersion, Lineage
from truststram_lab.schemas.strategies import Scaffold
from truststram_lab.schemas.tables import Statistics
from truststram_lab.server.stores.blobs import Blob, BlobStore
from truststram_lab.server.stores.engine import reading, writing
from truststram_lab.server.stores.ids import timestamp
from truststram_lab.server.stores.tables import federations, rounds, run_sites, runs, updates

from .budgets import release
from .layouts import base_of
from .opening import last_round, open_next, roster
from .plans import plan_of
from .presence import Presence
from .registry import find_or_create_model, register_version
from .status import ACTIVE, set_status, tell

if TYPE_CHECKING:
    from truststram_lab.learning.weights import State

__all__ = ["Closing", "Situation", "former_state", "participation", "situation"]


@dataclass(frozen=True)
class Situation:
    """A run, its newest round (None before the first), and its updates in the sums' order."""

    run: Row[Any]
    round: Row[Any] | None
    updates: list[Row[Any]]
    plan: CreateRun

    @property
    def finished(self) -> bool:
        """Whether the result is there, and only its deployment may be left."""
        return self.run.result_sha256 is not None or self.run.model_version is not None


def situation(connection: Connection, run_id: str) -> Situation | None:
    """Where the run stands; None if there is no such run."""
    run = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    if run is None:
        return None
    plan = plan_of(connection, run_id)
    last = last_round(connection, run_id)
    if last is None:
        return Situation(run, None, [], plan)
    given = {
        row.principal_id: row
        for row in connection.execute(select(updates).where(updates.c.round_id == last.id))
    }
    order = [site.principal_id for site in roster(connection, run_id, plan)] if given else []
    return Situation(run, last, [given[one] for one in order if one in given], plan)


class Closing:
    """Closes complete rounds: the arithmetic first, then one transaction that publishes it.

    A process that dies anywhere leaves a round that the next one closes the same way: the
    arithmetic is a function of what is stored, and noise is stored before it is used.
    """

    def __init__(
        self, engine: Engine, blobs: BlobStore, presence: Presence, code_version: str
    ) -> None:
        self._engine = engine
        self._blobs = blobs
        self._presence = presence
        self._code_version = code_version

    def close(self, found: Situation) -> bool:
        """Close the newest round, which is complete; False if something came in between."""
        assert found.round is not None
        kind = found.round.kind
        if kind == "statistics":
            return self._statistics(found, found.round)
        if kind == "initial":
            return self._initial(found, found.round)
        if kind == "evaluation":
            return self._evaluation(found, found.round)
        return self._training(found, found.round)

    def _statistics(self, found: Situation, last: Row[Any]) -> bool:
        from truststram_lab.learning.statistics import merge_moments

        assert found.plan.signature is not None
        states = [self._decoded(found, row) for row in found.updates]
        statistics = merge_moments(states, found.plan.signature, found.plan.min_site_rows)
        with writing(self._engine) as connection:
            now = timestamp()
            if not _close(connection, found, last, now):
                return False
            release(connection, last.id)  # nothing, where no noise was planned
            told = statistics.model_dump(mode="json")
            set_status(connection, found.run, "training", now, statistics=told)
            tell(connection, found.run, "run.status", {"status": "training"}, now)
            self._go_on(connection, found, None, now)
        return True

    def _initial(self, found: Situation, last: Row[Any]) -> bool:
        from truststram_lab.learning import weights

        state = self._decoded(found, found.updates[0])
        blob = self._blobs.put(found.run.organisation_id, weights.encode(state))
        with writing(self._engine) as connection:
            now = timestamp()
            self._blobs.record(connection, found.run.organisation_id, blob, now)
            if not _close(connection, found, last, now, result_sha256=blob.sha256):
                return False
            self._go_on(connection, found, None, now)
        return True

    def _evaluation(self, found: Situation, last: Row[Any]) -> bool:
        outcome = _weighted(found.updates)
        with writing(self._engine) as connection:
            now = timestamp()
            if not _close(connection, found, last, now, outcome=outcome):
                return False
            told = {"number": last.training_number, **outcome}
            tell(connection, found.run, "round.evaluated", told, now)
            self._go_on(connection, found, last.model_sha256, now)
        return True

    def _training(self, found: Situation, last: Row[Any]) -> bool:
        noised: str | None = None
        central = found.plan.central_privacy
        if central is not None:
            noised = last.noised_sha256 or self._noise(found, last, central)
            if noised is None:
                return False
        made = self._aggregate(found, last, noised)
        statement = _statement(found.plan, last.training_number)
        with writing(self._engine) as connection:
            now = timestamp()
            for blob in made.blobs.values():
                self._blobs.record(connection, found.run.organisation_id, blob, now)
            written: dict[str, Any] = {f"{name}_sha256": b.sha256 for name, b in made.blobs.items()}
            if made.kept is not None:
                written["outcome"] = {"kept": made.kept}
            if not _close(connection, found, last, now, **written):
                return False
            if found.plan.privacy is not None:
                release(connection, last.id)
                connection.execute(
                    update(runs).where(runs.c.id == found.run.id).values(statement=statement)
                )
            self._go_on(connection, found, made.blobs["result"].sha256, now)
        return True

    def _noise(self, found: Situation, last: Row[Any], privacy: ClientPlan) -> str | None:
        """Draw the round's noise and make the noised mean durable, before anything is published.

        Returns:
            The file's SHA-256; None if the run was stopped in the meantime.
        """
        from truststram_lab.learning import weights
        from truststram_lab.learning.privacy.mechanisms import noised_mean

        like = self._base(found, last)
        states = (self._decoded(found, row, like) for row in found.updates)
        mean = noised_mean(states, like, privacy)
        blob = self._blobs.put(found.run.organisation_id, weights.encode(mean))
        with writing(self._engine) as connection:
            if _status(connection, found.run.id) not in ACTIVE:
                return None
            self._blobs.record(connection, found.run.organisation_id, blob, timestamp())
            # Only the first noise counts, whoever else was at it.
            connection.execute(
                update(rounds)
                .where(rounds.c.id == last.id, rounds.c.noised_sha256.is_(None))
                .values(noised_sha256=blob.sha256)
            )
            stored = select(rounds.c.noised_sha256).where(rounds.c.id == last.id)
            return str(connection.execute(stored).scalar_one())

    def _aggregate(self, found: Situation, last: Row[Any], noised: str | None) -> _Made:
        from truststram_lab.learning import weights
        from truststram_lab.learning.strategies import (
            Updates,
            aggregate,
            expected_update,
            shared_with_sites,
        )

        from .updates import stored_updates

        strategy, base = found.plan.strategy, self._base(found, last)
        organisation = found.run.organisation_id
        with reading(self._engine) as connection:
            former = former_state(connection, last)
            share = participation(connection, found.run.id, found.plan, found.updates)
        memory = self._file(organisation, former) if former is not None else None
        given: Updates | list[Mapping[str, Any]]
        if noised is not None:
            given, shares = [self._file(organisation, noised)], [1.0]
        else:
            files = [(organisation, row.sha256) for row in found.updates]
            given = stored_updates(self._blobs, files, strategy, expected_update(strategy, base))
            shares = [float(row.sample_count) for row in found.updates]
        made = aggregate(strategy, base, given, shares, memory, participation=share)
        blobs = {"result": self._blobs.put(organisation, *weights.pieces(made.state))}
        blobs["next_model"] = blobs["result"]
        if made.server_state:
            state = weights.pieces(made.server_state)
            blobs["server_state"] = self._blobs.put(organisation, *state)
            shared = shared_with_sites(strategy, made.server_state)
            if shared:
                content = weights.pieces({**made.state, **shared})
                blobs["next_model"] = self._blobs.put(organisation, *content)
        kept = None
        if made.kept is not None:
            kept = [found.updates[place].principal_id for place in made.kept]
        return _Made(blobs, kept)

    def _go_on(
        self, connection: Connection, found: Situation, result: str | None, now: str
    ) -> None:
        """Open the next round in the same transaction, or write down what the run came to."""
        run = connection.execute(select(runs).where(runs.c.id == found.run.id)).one()
        opened = open_next(connection, run, found.plan, self._presence, now)
        if opened != "done" or result is None:
            return
        values: dict[str, Any] = {"result_sha256": result}
        if found.plan.architecture is not None and found.plan.signature is not None:
            size = BlobStore.find(connection, run.organisation_id, result)
            assert size is not None
            values["model_version"] = self._register(connection, run, found.plan, size, now)
        connection.execute(update(runs).where(runs.c.id == run.id).values(**values))

    def _register(
        self, connection: Connection, run: Row[Any], plan: CreateRun, blob: Blob, now: str
    ) -> int:
        federation = connection.execute(
            select(federations.c.name).where(federations.c.id == run.federation_id)
        ).scalar_one()
        model = find_or_create_model(connection, run.organisation_id, plan.model, now)
        assert plan.architecture is not None
        assert plan.signature is not None
        request = CreateVersion(
            weights_sha256=blob.sha256,
            architecture=plan.architecture,
            signature=plan.signature,
            statistics=Statistics.model_validate(run.statistics),
            lineage=Lineage(
                federation=federation,
                run=run.name,
                rounds=plan.rounds,
                data_sha256=plan.source.sha256 if plan.source is not None else None,
                code_version=self._code_version,
            ),
        )
        row = register_version(connection, model, request, blob.size_bytes, now)
        return int(row.sequence)

    def _base(self, found: Situation, last: Row[Any]) -> State:
        """The global model of the round, without what travels beside it."""
        state = self._file(found.run.organisation_id, last.model_sha256)
        return base_of(state, found.plan.strategy)

    def _file(self, organisation_id: str, sha256: str) -> State:
        from truststram_lab.learning import weights

        return weights.decode(self._blobs.map(organisation_id, sha256))[0]

    def _decoded(self, found: Situation, row: Row[Any], like: State | None = None) -> State:
        from truststram_lab.learning import encodings

        if like is None:
            return self._file(found.run.organisation_id, row.sha256)
        content = self._blobs.map(found.run.organisation_id, row.sha256)
        return encodings.decode(content, like)[0]


@dataclass(frozen=True)
class _Made:
    #: by the column that names it
    blobs: dict[str, Blob]
    kept: list[str] | None


def former_state(connection: Connection, last: Row[Any]) -> str | None:
    """The server state that a training round goes on from: the former training round's."""
    query = (
        select(rounds.c.server_state_sha256)
        .where(
            rounds.c.run_id == last.run_id,
            rounds.c.kind == "training",
            rounds.c.number < last.number,
        )
        .order_by(rounds.c.number.desc())
        .limit(1)
    )
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found


def participation(
    connection: Connection, run_id: str, plan: CreateRun, given: list[Row[Any]]
) -> float:
    """SCAFFOLD's share: of all rows, where the sites have told theirs, else of all sites."""
    if not isinstance(plan.strategy, Scaffold) or not given:
        return 1.0
    sites = select(run_sites.c.principal_id).where(run_sites.c.run_id == run_id)
    ids = set(connection.execute(sites).scalars())
    told = {
        row.principal_id: int(row.sample_count)
        for row in connection.execute(
            select(updates.c.principal_id, updates.c.sample_count)
            .join(rounds, rounds.c.id == updates.c.round_id)
            .where(rounds.c.run_id == run_id, rounds.c.kind == "statistics")
        )
    }
    if told.keys() >= ids:
        return min(1.0, sum(told[row.principal_id] for row in given) / sum(told.values()))
    return min(1.0, len(given) / len(ids))


def _weighted(given: list[Row[Any]]) -> dict[str, Any]:
    """The sites' metrics, weighted by rows; a metric counts where it was reported."""
    names = sorted({name for row in given for name in row.metrics if name != "rows"})
    metrics: dict[str, float] = {}
    for name in names:
        having = [row for row in given if name in row.metrics]
        total = sum(row.sample_count for row in having)
        metrics[name] = math.fsum(row.metrics[name] * row.sample_count for row in having) / total
    return {
        "metrics": metrics,
        "rows": sum(row.sample_count for row in given),
        "sites": len(given),
    }


def _statement(plan: CreateRun, rounds_done: int) -> dict[str, Any] | None:
    if plan.privacy is None:
        return None
    from truststram_lab.learning.privacy.statements import statement

    made = statement(plan.privacy, rounds_done, tight=rounds_done == plan.rounds, trust=plan.trust)
    document: dict[str, Any] = json.loads(made.model_dump_json())
    return document


def _status(connection: Connection, run_id: str) -> str:
    query = select(runs.c.status).where(runs.c.id == run_id)
    return str(connection.execute(query).scalar_one())


def _close(
    connection: Connection, found: Situation, last: Row[Any], now: str, **written: Any
) -> bool:
    """Close the round; False if the run was stopped, or the round closed, in the meantime."""
    if _status(connection, found.run.id) not in ACTIVE:
        return False
    closed = connection.execute(
        update(rounds)
        .where(rounds.c.id == last.id, rounds.c.status != "closed")
        .values(status="closed", closed_at=now, **written)
    ).rowcount
    if not closed:
        return False
    connection.execute(update(runs).where(runs.c.id == found.run.id).values(updated_at=now))
    told = {
        "number": last.training_number,
        "weights_sha256": written.get("result_sha256"),
        "kind": last.kind,
    }
    tell(connection, found.run, "round.closed", told, now)
    return True
