from __future__ import annotations

import json
import math
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from served_estimators import rows_of_table, trained
from served_models import (
    BINARY,
    MANY,
    in_process,
    rows_of,
    version_of,
)
from serving_world import World
from sqlalchemy import select

from truststram_lab.exceptions import (
    InsufficientResourcesError,
    InvalidInputError,
    ModelNotFoundError,
    NotFoundError,
    PlatformError,
)
from truststram_lab.schemas.registry import CreateModel
from truststram_lab.schemas.serving import ScalingConfig
from truststram_lab.server.services import serving as serving_module
from truststram_lab.server.stores.engine import reading
from truststram_lab.server.stores.tables import events, revisions


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.close()


def test_a_deployed_model_predicts_what_its_network_says(world, tmp_path):
    world.register("icu")
    deployment = world.deploy("icu")
    assert (deployment.name, deployment.version, deployment.revision) == ("icu", 1, 1)
    assert (deployment.status, deployment.environment) == ("ready", "sandbox")
    rows = rows_of(BINARY, 20)
    expected = in_process(version_of(tmp_path), rows)
    for prediction, wanted in zip(world.predict("icu", rows), expected, strict=True):
        assert (prediction.model, prediction.version) == ("icu", 1)
        assert prediction.prediction_id.startswith("pred_")
        assert list(prediction.probabilities) == ["died", "lived"]
        np.testing.assert_allclose(list(prediction.probabilities.values()), wanted, atol=1e-12)
        assert prediction.label == ["died", "lived"][int(np.argmax(wanted))]
        assert prediction.confidence_class == "died"
        assert prediction.confidence == prediction.probabilities["died"]
        assert prediction.explanation is None
        assert prediction.latency_ms > 0


def test_with_more_classes_the_confidence_is_of_the_predicted_one(world):
    world.register("kinds", signature=MANY)
    world.deploy("kinds")
    for prediction in world.predict("kinds", rows_of(MANY, 10)):
        assert prediction.confidence_class == prediction.label
        assert prediction.confidence == max(prediction.probabilities.values())
        assert sum(prediction.probabilities.values()) == pytest.approx(1)


def test_an_explanation_adds_up_to_the_prediction(world):
    world.register("icu")
    world.deploy("icu")
    rows = rows_of(BINARY, 3)
    for row, p in zip(rows, world.predict("icu", rows, explain=True), strict=True):
        e = p.explanation
        assert e is not None
        total = e.base_value + sum(c.contribution for c in e.contributions) + e.residual
        assert total == pytest.approx(e.output_value)
        died = p.probabilities["died"]
        assert e.output_value == pytest.approx(math.log(died / (1 - died)))
        assert {c.feature: c.value for c in e.contributions} == row


def test_the_name_follows_the_endpoint_and_the_version_stays(world):
    world.register("icu", seed=0)
    world.deploy("icu")
    (row,) = rows_of(BINARY, 1)
    first = world.predict("icu", row)[0]
    world.register("icu", seed=1)
    assert world.predict("icu", row)[0].version == 1, "registering changes nothing"
    assert world.predict("icu:latest", row)[0].version == 2
    assert world.deploy("icu").version == 2
    assert world.predict("icu", row)[0].version == 2
    assert world.predict("icu:deployed", row)[0].version == 2
    assert world.predict("icu:1", row)[0].probabilities == first.probabilities
    back = world.deploy("icu:1")
    assert (back.version, back.revision) == (1, 3)
    assert world.predict("icu", row)[0].version == 1
    assert world.predict(world.registry.get_model(world.org, "icu").id, row)[0].version == 1


def test_each_change_is_an_immutable_revision_and_an_event_and_repeating_is_none(world):
    world.register("icu", seed=0)
    world.register("icu", seed=1)
    for ref in ("icu:1", "icu:1", "icu:2", "icu"):
        world.deploy(ref)
    with reading(world.engine) as connection:
        rows = connection.execute(select(revisions).order_by(revisions.c.sequence)).all()
        told = connection.execute(
            select(events.c.data).where(events.c.type == "deployment.changed")
        ).scalars()
        assert [(row.sequence, row.version_sequence) for row in rows] == [(1, 1), (2, 2)]
        assert [(data["revision"], data["version"]) for data in told] == [(1, 1), (2, 2)]


def test_a_model_that_is_not_deployed_says_how_to_deploy_it(world):
    world.register("icu")
    (row,) = rows_of(BINARY, 1)
    with pytest.raises(ModelNotFoundError, match="registered but not deployed") as caught:
        world.predict("icu", row)
    assert '{"model": "icu:1"}' in caught.value.message
    assert (caught.value.model_id, caught.value.choices) == ("icu", ["icu:1"])
    assert world.predict("icu:1", row)[0].version == 1, "a version can be asked by itself"
    world.registry.create_model(world.org, CreateModel(name="empty"))
    with pytest.raises(ModelNotFoundError, match="has no version yet"):
        world.predict("empty", row)


@pytest.mark.parametrize("ref", ["icv", "ICU", "icu-2"])
def test_an_unknown_model_is_answered_with_the_nearest(world, ref):
    world.register("icu")
    (row,) = rows_of(BINARY, 1)
    with pytest.raises(ModelNotFoundError, match="did you mean 'icu'") as caught:
        world.predict(ref, row)
    assert (caught.value.model_id, caught.value.choices) == (ref, ["icu"])
    for action in (world.predict, lambda r, _: world.deploy(r)):
        with pytest.raises(ModelNotFoundError, match="the latest is 1"):
            action("icu:7", row)


def test_organisations_do_not_see_each_other(world):
    world.register("icu")
    world.deploy("icu")
    (row,) = rows_of(BINARY, 1)
    world.predict("icu", row)
    for ref in ("icu", "icu:1"):
        with pytest.raises(ModelNotFoundError):
            world.predict(ref, row, organisation=world.other)
    with pytest.raises(ModelNotFoundError):
        world.deploy("icu", organisation=world.other)
    with pytest.raises(NotFoundError):
        world.serving.get_deployment(world.other, "icu")
    assert world.serving.list_deployments(world.other, limit=9, cursor=None).items == []
    world.register("icu", signature=MANY, organisation=world.other)
    world.deploy("icu", organisation=world.other)
    (other_row,) = rows_of(MANY, 1)
    assert world.predict("icu", other_row, organisation=world.other)[0].label in "abc"
    assert world.predict("icu", row)[0].label in ("died", "lived")


def test_deployments_are_listed_newest_first_in_pages(world):
    for name in ("one", "two", "three"):
        world.register(name)
        world.deploy(name)
    page = world.serving.list_deployments(world.org, limit=2, cursor=None)
    assert [one.name for one in page.items] == ["three", "two"]
    rest = world.serving.list_deployments(world.org, limit=2, cursor=page.next_cursor)
    assert [one.name for one in rest.items] == ["one"]
    assert rest.next_cursor is None
    found = world.serving.list_deployments(world.org, limit=2, cursor=None, search="TW")
    assert [one.name for one in found.items] == ["two"]
    assert world.serving.get_deployment(world.org, "two") == found.items[0]
    with pytest.raises(NotFoundError, match="did you mean 'three'") as caught:
        world.serving.get_deployment(world.org, "thre")
    assert caught.value.choices == ["three"]


def test_the_own_environment_is_asked_first(world):
    world.register("icu", seed=0)
    world.register("icu", seed=1)
    (row,) = rows_of(BINARY, 1)
    world.deploy("icu:2", environment="production")
    assert world.predict("icu", row)[0].version == 2, "the only one there is"
    world.deploy("icu:1")
    assert world.predict("icu", row)[0].version == 1
    assert world.serving.get_deployment(world.org, "icu").environment == "sandbox"
    with pytest.raises(InvalidInputError, match="'No good' is not a name"):
        world.deploy("icu", environment="No good")


@pytest.mark.parametrize(
    ("change", "sentence", "field"),
    [
        ({"ages": 1.0}, "'ages' is not a column; did you mean 'age'", "ages"),
        ({"age": None}, "'age' has no value", "age"),
        ({"age": "old"}, "'age' is 'old', of type str; give a number", "age"),
        ({"ward": "ico"}, "'ward' is 'ico', which is no category; did you mean 'icu'", "ward"),
        ({"smoker": 2}, "'smoker' is 2", "smoker"),
    ],
)
def test_a_bad_row_is_told_its_number_its_column_and_the_way_out(world, change, sentence, field):
    world.register("icu")
    world.deploy("icu")
    rows = rows_of(BINARY, 3)
    bad = {**rows[1], **change}
    with pytest.raises(InvalidInputError) as alone:
        world.predict("icu", bad)
    assert alone.value.message.startswith(sentence)
    with pytest.raises(InvalidInputError) as among:
        world.predict("icu", [rows[0], bad, rows[2]])
    assert among.value.message == f"Row 2 of 3: {alone.value.message}"
    assert among.value.field == alone.value.field == field
    assert among.value.choices == alone.value.choices


def test_the_number_of_rows_has_bounds_that_are_told(world):
    world.register("icu")
    world.deploy("icu")
    (row,) = rows_of(BINARY, 1)
    for rows in ([], [row] * 10_001):
        with pytest.raises(InvalidInputError, match=f"has {len(rows)} rows; send 1 to 10,000"):
            world.predict("icu", rows)


def test_a_class_without_an_explanation_is_refused_not_ignored(world):
    world.register("icu")
    world.deploy("icu")
    (row,) = rows_of(BINARY, 1)
    with pytest.raises(InvalidInputError, match="explain is off"):
        world.predict("icu", row, explain_class="died")
    with pytest.raises(InvalidInputError, match="'dead' is not a class") as caught:
        world.predict("icu", row, explain=True, explain_class="dead")
    assert caught.value.choices == ["died"]


def test_a_long_request_goes_in_pieces_with_the_same_answers(world, tmp_path, monkeypatch):
    monkeypatch.setattr(serving_module, "_PIECE_ROWS", 7)
    monkeypatch.setattr(serving_module, "_EXPLAINED_PIECE_ROWS", 4)
    world.register("icu")
    world.deploy("icu")
    rows = rows_of(BINARY, 30)
    expected = in_process(version_of(tmp_path), rows)[:, 0]
    for explain in (False, True):
        found = world.predict("icu", rows, explain=explain)
        np.testing.assert_allclose([p.confidence for p in found], expected, atol=1e-12)
        assert len({p.prediction_id for p in found}) == 30
        assert all((p.explanation is not None) == explain for p in found)


def test_a_deployment_has_as_many_workers_as_it_asks_for(world):
    world.register("icu", seed=0)
    asked = ScalingConfig(min_instances=2, max_instances=3)
    first = world.deploy("icu", scaling_config=asked)
    assert first.scaling.model_dump() == {
        "min_instances": 2,
        "max_instances": 3,
        "instances": 2,
    }
    assert world.deploy("icu", scaling_config=asked).revision == 1, "nothing changed"
    fixed = ScalingConfig(min_instances=1, max_instances=3, auto_scaling=False)
    second = world.deploy("icu", scaling_config=fixed)
    assert (second.revision, second.scaling.max_instances, second.scaling.instances) == (2, 1, 1)
    assert world.predict("icu", rows_of(BINARY, 3))[2].version == 1
    shared = world.deploy("icu")
    assert (shared.revision, shared.scaling) == (3, None)


def test_a_deployment_drains_when_another_takes_its_place(world):
    world.register("icu", seed=0)
    world.deploy("icu", scaling_config=ScalingConfig())
    backend = world.serving._backend
    pid = backend.events()[0].data["pid"]
    os.kill(pid, signal.SIGSTOP)
    (row,) = rows_of(BINARY, 1)
    body = json.dumps({"data": row}).encode()
    held = [world.serving.begin(world.who(), "icu", body).future for _ in range(5)]
    world.register("icu", seed=1)
    assert world.deploy("icu", scaling_config=ScalingConfig()).version == 2
    assert world.predict("icu", row)[0].version == 2
    os.kill(pid, signal.SIGCONT)
    for future in held:
        answer = json.loads(future.result(60).body)
        assert answer["predictions"][0]["version"] == 1


def test_a_minimum_that_does_not_fit_changes_no_traffic(world):
    world.register("icu", seed=0)
    world.deploy("icu")
    world.register("icu", seed=1)
    with pytest.raises(InsufficientResourcesError, match="lower min_instances"):
        world.deploy("icu", scaling_config=ScalingConfig(min_instances=1000))
    assert world.serving.get_deployment(world.org, "icu").version == 1
    with pytest.raises(ValueError, match="max_instances is 1 and min_instances 2"):
        ScalingConfig(min_instances=2, max_instances=1)


def test_damaged_weights_are_never_deployed_and_change_no_traffic(world):
    world.register("icu", seed=0)
    world.deploy("icu")
    version = world.register("icu", seed=1)
    path = world.blobs.path(world.org, version.weights_sha256)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(PlatformError, match="icu:2 are damaged"):
        world.deploy("icu")
    assert world.serving.get_deployment(world.org, "icu").version == 1
    assert world.predict("icu", rows_of(BINARY, 1))[0].version == 1


def test_a_deployment_wakes_after_a_restart_of_the_platform(world):
    world.register("icu")
    world.deploy("icu")
    world.restart()
    assert world.predict("icu", rows_of(BINARY, 2))[1].version == 1


def test_killing_the_worker_under_concurrent_requests_loses_none(world, tmp_path):
    world.register("icu")
    world.deploy("icu")
    rows = rows_of(BINARY, 8)
    expected = in_process(version_of(tmp_path), rows)[:, 0]
    backend = world.serving._backend

    def ask(i):
        return [world.predict("icu", rows[i])[0].confidence for _ in range(60)]

    pid = backend.events()[0].data["pid"]
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(ask, i) for i in range(8)]
        while backend.counts.requests < 20:
            threading.Event().wait(0.001)
        os.kill(pid, signal.SIGKILL)
        for i, future in enumerate(futures):
            np.testing.assert_allclose(future.result(120), expected[i], atol=1e-12)
    # Under load there may be one more than the one that replaced it.
    assert backend.counts.workers >= 2


def test_an_estimator_is_converted_once_and_the_deployment_says_so(world):
    model, frame = trained("logistic_regression", "two")
    world.register_estimator("risk", model)
    (row,) = rows_of_table(frame.iloc[:1])
    first = world.deploy("risk")
    assert first.runtime == "onnx"
    assert "LogisticRegression was converted to ONNX" in first.runtime_reason
    assert world.deploy("risk", environment="other").runtime_reason == first.runtime_reason
    backend = world.serving._backend
    assert [e.type for e in backend.events()].count("version.ready") == 2, "loaded, not converted"
    wanted = model.predict_proba(frame.iloc[:1])[0, 1]
    for ref in ("risk", "risk:1"):
        assert world.predict(ref, row)[0].confidence == pytest.approx(wanted, abs=1e-5)
    world.restart()
    assert world.predict("risk", row)[0].confidence == pytest.approx(wanted, abs=1e-5)


def test_a_version_that_was_never_deployed_is_computed_by_its_own_library(world):
    model, frame = trained("ridge", "regression")
    world.register_estimator("cost", model)
    (row,) = rows_of_table(frame.iloc[:1])
    assert world.predict("cost:1", row)[0].value == pytest.approx(model.predict(frame.iloc[:1])[0])
    assert "sklearn" in {e.data.get("pool") for e in world.serving._backend.events()}
