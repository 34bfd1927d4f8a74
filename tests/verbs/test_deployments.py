"""What is served and what it is asked, on a real sandbox."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from truststram_lab import verbs
from truststram_lab.exceptions import (
    ConflictError,
    InvalidInputError,
    ModelNotFoundError,
    NotFoundError,
)
from truststram_lab.models import MLModel


@pytest.fixture(scope="module")
def served(shared_session) -> verbs.deployments:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"age": rng.normal(60, 9, 80), "dose": rng.normal(size=80)})
    target = pd.Series(np.where(frame["dose"] > 0, "yes", "no"), name="ill")
    model = MLModel(algorithm="logistic_regression").fit(frame, target)
    return verbs.deploy(model, name="illness", min_instances=1, max_instances=2)


def test_a_trained_estimator_is_served_and_the_card_says_by_what(served):
    assert (served.deployment.model, served.deployment.version) == ("illness", 1)
    assert served.endpoint_url.endswith("/api/v1/endpoints/illness/predict")
    text = served.card().text
    assert "illness:1 answers from now on." in text
    assert "ready, 1 worker of 1 to 2" in text
    assert [each.name for each in verbs.deployments()] == ["illness"]


def test_a_deployment_shows_what_it_was_asked(served):
    assert "Last hour: no request." in verbs.deployments("illness").card().text
    verbs.predict("illness", [{"age": 60.0, "dose": 1.0}] * 3)
    verbs.predict("illness", {"age": 60.0, "dose": -1.0})
    with pytest.raises(InvalidInputError):
        verbs.predict("illness", {"age": 60.0})
    found = verbs.deployments("illness")
    assert (found.traffic.requests, found.traffic.failed, found.traffic.rows) == (3, 1, 4)
    for said in (found.card().text, found.card().html):
        assert "3 requests, 4 rows, 1 failed (33 %)" in said.replace("\u202f", " ")
        assert "refused (422)" in said
    assert len(found.card().html) < 50_000


def test_the_log_is_a_table_without_anybodys_data(served):
    verbs.predict("illness", {"age": 31.4159, "dose": 1.0})
    found = verbs.deployments("illness", "log")
    frame = found.to_frame()
    assert frame["rows"].iloc[0] == 1
    assert frame["created_at"].is_monotonic_decreasing
    assert frame["data"].isna().all()
    assert "31.4159" not in found.card().text + frame.to_string()


def test_the_version_that_is_asked_for_is_served(served):
    verbs.deploy("illness:1", environment="trial")
    names = {(each.name, each.environment) for each in verbs.deployments()}
    assert names == {("illness", "sandbox"), ("illness", "trial")}


def test_what_cannot_be_gets_one_sentence(served):
    with pytest.raises(NotFoundError, match="did you mean 'illness'"):
        verbs.deployments("ilness")
    with pytest.raises(ModelNotFoundError, match="did you mean 'illness'"):
        verbs.deploy("ilness")
    with pytest.raises(InvalidInputError, match="max_instances is 1 and min_instances 2"):
        verbs.deploy("illness", min_instances=2, max_instances=1)
    with pytest.raises(InvalidInputError, match="has a name already"):
        verbs.deploy("illness", name="other")
    with pytest.raises(InvalidInputError, match="watch"):
        verbs.deployments("illness", "wacth")
    with pytest.raises(InvalidInputError, match="give a trained MLModel"):
        verbs.deploy(LogisticRegression())


@pytest.mark.parametrize("look", [verbs.deployments, verbs.models])
def test_outside_a_notebook_watching_shows_it_once(served, look):
    assert look("illness", "watch").card().text


def test_a_deployment_and_its_model_are_deleted_when_it_is_meant(served):
    verbs.deployments("illness", "delete", environment="trial", yes=True)
    with pytest.raises(InvalidInputError, match="%ts_deployments illness delete --yes"):
        verbs.deployments("illness", "delete")
    with pytest.raises(ConflictError, match="%ts_deployments illness delete"):
        verbs.models("illness", "delete", yes=True)
    assert "not served any more" in verbs.deployments("illness", "delete", yes=True).text
    with pytest.raises(InvalidInputError, match="%ts_models illness delete --yes"):
        verbs.models("illness", "delete")
    verbs.models("illness", "delete", yes=True)
    assert len(verbs.models()) == 0
