"""``client.models.deploy``: from a trained estimator to an endpoint, with both clients."""

from __future__ import annotations

import asyncio

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from truststram_lab.client import AsyncTrustStramClient, TrustStramClient
from truststram_lab.exceptions import InsufficientResourcesError, InvalidInputError
from truststram_lab.explainability import SHAPExplainer
from truststram_lab.models import MLModel
from truststram_lab.preprocessing import DataProcessor


@pytest.fixture(scope="module")
def frame():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.normal(50, 9, 200), "plan": rng.choice(["a", "b"], 200)})
    table.loc[::7, "age"] = np.nan
    return table


@pytest.fixture(scope="module")
def model(frame):
    y = pd.Series(np.where(frame["age"].fillna(0) > 50, "yes", "no"), name="stays")
    x, codes = DataProcessor().fit_transform(frame, y)
    return MLModel("logistic_regression").fit(x, codes)


def test_a_trained_model_is_deployed_as_it_is(client: TrustStramClient, model, frame):
    deployed = client.models.deploy(
        model=model,
        environment="production",
        scaling_config={"min_instances": 2, "max_instances": 3, "auto_scaling": True},
    )
    assert (deployed.name, deployed.version) == ("logistic-regression-stays", 1)
    assert (deployed.runtime, deployed.scaling.instances) == ("onnx", 2)
    assert deployed.endpoint_url.endswith("/endpoints/logistic-regression-stays/predict")
    rows = frame.head(20).astype(object).where(frame.head(20).notna(), None).to_dict("records")
    found = client.inference.batch_predict(deployed, rows)
    wanted = model.predict_proba(frame.head(20))[:, 1]
    np.testing.assert_allclose([p.confidence for p in found], wanted, atol=1e-5)
    again = client.models.deploy(model=model, environment="production")
    assert (again.version, again.revision) == (2, 2)


def test_a_hundred_awaited_predictions_of_an_estimator(client: TrustStramClient, frame):
    numbers = frame[["age"]].fillna(50)
    fitted = LogisticRegression().fit(numbers, numbers["age"] > 50)

    async def all_of_them():
        async with AsyncTrustStramClient(environment="sandbox") as awaited:
            deployed = await awaited.models.deploy(model=fitted, name="plain")
            asked = [awaited.inference.predict("plain", {"age": float(n)}) for n in range(100)]
            return deployed, await asyncio.gather(*asked)

    deployed, found = asyncio.run(all_of_them())
    assert deployed.name == "plain"
    wanted = fitted.predict_proba(pd.DataFrame({"age": np.arange(100.0)}))[:, 1]
    np.testing.assert_allclose([p.confidence for p in found], wanted, atol=1e-5)
    assert {p.confidence_class for p in found} == {"True"}


def test_what_cannot_be_deployed_is_refused_before_anything_is_stored(client, model, frame):
    before = client.models.list().items
    for arguments in ({}, {"model_id": "icu", "model": model}):
        with pytest.raises(TypeError, match=r"deploy\(model_id='fraud-detection'\) or deploy"):
            client.models.deploy(**arguments)
    with pytest.raises(TypeError, match="go with model="):
        client.models.deploy(model_id="icu", name="other")
    with pytest.raises(InvalidInputError, match="A dict cannot be deployed"):
        client.models.deploy(model={})
    other = LogisticRegression().fit([[0.0], [1.0]], [0, 1])
    explainer = SHAPExplainer(model=other, background_data=np.array([[0.0], [1.0]]))
    with pytest.raises(InvalidInputError, match="explains another model"):
        client.models.deploy(model=model, explainer=explainer)
    assert client.models.list().items == before


def test_a_minimum_that_does_not_fit_is_told_to_the_caller(client, model):
    with pytest.raises(InsufficientResourcesError, match="lower min_instances"):
        client.models.deploy(model=model, name="big", scaling_config={"min_instances": 1000})
    with pytest.raises(InvalidInputError, match="min_instances"):
        client.models.deploy(model=model, scaling_config={"min_instances": 0})
