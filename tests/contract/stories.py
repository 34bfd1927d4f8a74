"""Which blocks are read one after another, what they are given, and what must come of them.

``given`` is code of ours that leaves a dictionary of that name: the names that the blocks read
and the documents do not bind (data, keys, the reader's own functions), and no others; nothing of
this package is among them. ``check`` runs in the blocks' own namespace afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

from documents import EDGEML, TRUSTSTRAM

__all__ = ["NOT_YET", "STORIES", "Story"]


@dataclass(frozen=True)
class Story:
    """Blocks of one document, in the order in which somebody would run them.

    ``world`` names what has to be there before: see ``worlds.py``. ``kernel`` is False where
    the text itself cannot run in a notebook: ``asyncio.run`` does not, inside a running loop.
    """

    name: str
    document: str
    blocks: tuple[int, ...]
    check: str
    given: str = "given = {}"
    world: str = "models"
    kernel: bool = True

    @property
    def long(self) -> bool:
        """Whether it trains whole federations."""
        return self.world in ("server", "files")


_PICKLE = """
import pickle
import numpy as np
from sklearn.linear_model import LogisticRegression
x = np.random.default_rng(0).normal(size=(80, 2))
fitted = LogisticRegression().fit(x, np.where(x[:, 0] > 0, "fraud", "fine"))
with open("model.pkl", "wb") as file:
    pickle.dump(fitted, file)
given = {}
"""

_ROW = "given = {'data': {'feature1': 1.0, 'feature2': 2.0}}"
_ROW_AND_LOGGING = f"import logging\n{_ROW}\ngiven['logging'] = logging"

_LOCAL_DATA = """
import numpy as np
rng = np.random.default_rng(0)
x = rng.normal(size=(60, 3))
y = (x[:, 0] > 0) * 1
given = {"local_data": {"X_train": x[:40], "y_train": y[:40], "X_test": x[40:], "y_test": y[40:]}}
"""

_MODEL = """
import numpy as np
from sklearn.linear_model import LogisticRegression
rng = np.random.default_rng(0)
x = rng.normal(size=(80, 3))
given = {
    "model": LogisticRegression().fit(x, (3 * x[:, 0] + x[:, 1] > 0) * 1),
    "X_train_sample": x[:50],
    "X_test": x[50:],
    "feature_names": ["a", "b", "c"],
}
"""

_CUSTOMERS = """
import numpy as np
import pandas as pd
rng = np.random.default_rng(0)
age = rng.integers(18, 80, 300).astype(float)
frame = pd.DataFrame({"age": age, "plan": rng.choice(["basic", "pro"], 300)})
frame["target"] = np.where(age + 20 * (frame["plan"] == "pro") > 60, "stays", "leaves")
frame.loc[frame.index % 9 == 4, "age"] = np.nan
frame.to_csv("customer_data.csv", index=False)
given = {}
"""

_ROUNDS = """
import os
def my_train_fn(state):
    return {name: value + 1 for name, value in state.items()}, 10, {"loss": 0.25}
given = {"auth_provider": lambda: os.environ["SITE_TOKEN"], "my_train_fn": my_train_fn}
"""

_PERSONAL = """
import torch
weights = {
    "body.weight": torch.ones(3, 2), "body.bias": torch.zeros(3),
    "classifier.weight": torch.ones(1, 3), "classifier.bias": torch.zeros(1),
}
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.classifier = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
    def forward(self, x):
        return self.classifier(torch.relu(self.body(x)))
def my_train_fn(state):
    if "layers.0.weight" in state:  # the open round's own model
        return {name: value + 1 for name, value in state.items()}, 10, {"loss": 0.25}
    net = Net()
    net.load_state_dict(state)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    x = torch.linspace(-1, 1, 20).reshape(10, 2)
    for _ in range(3):
        optimizer.zero_grad()
        loss = ((net(x) - x.sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        optimizer.step()
    return net.state_dict(), 10, {"loss": float(loss.detach())}
import os
given = {
    "auth_provider": lambda: os.environ["SITE_TOKEN"],
    "my_train_fn": my_train_fn,
    "global_weights": weights,
    "personal_weights": {name: value.clone() for name, value in weights.items()},
    "model_weights": weights,
    "updated_personal_weights": weights,
}
"""

STORIES = (
    Story(
        "a production client is made without a call",
        TRUSTSTRAM,
        (0,),
        "assert client.environment == 'production'",
    ),
    Story(
        "a prediction with nested features",
        TRUSTSTRAM,
        (0, 5),
        "assert prediction.result in ('no', 'yes')\n"
        "assert prediction.confidence == prediction.probabilities['yes']",
    ),
    Story(
        "a coordinator makes the documented network",
        TRUSTSTRAM,
        (6,),
        "shapes = [w.shape for w in federated_model.build(3).get_weights()]\n"
        "assert [max(s) for s in shapes] == [128, 128, 128, 64, 64, 1]\n"
        "assert coordinator.quorum.min_available == 3",
        world="empty",
    ),
    Story(
        "a client of one's own takes part beside two others",
        TRUSTSTRAM,
        (7,),
        "states = [event.state for event in client.events]\n"
        "assert states.count('acknowledged') >= 2, states\n"
        "loss, rows, metrics = client.evaluate(client.get_parameters(), {})\n"
        "assert rows == 20 and 0 <= metrics['accuracy'] <= 1",
        given=_LOCAL_DATA,
        world="server",
    ),
    Story(
        "an estimator's pickle from the file to its endpoint",
        TRUSTSTRAM,
        (0, 3),
        "assert model.type == 'classification'\n"
        "version = client.models.version('fraud-detection-v2')\n"
        "assert (version.label, version.format) == ('2.1.0', 'skops')\n"
        "assert deployment.endpoint_url.startswith('http')\n"
        "assert deployment.environment == 'production'\n"
        "rows = [{'f0': 2.0, 'f1': 0.0}, {'f0': -2.0, 'f1': 0.0}]\n"
        "found = client.inference.batch_predict(deployment, rows)\n"
        "assert [one.result for one in found] == ['fraud', 'fine']",
        given=_PICKLE,
        world="without models",
    ),
    Story(
        "a model of tables from the file to its endpoint",
        TRUSTSTRAM,
        (16,),
        "assert deployment.endpoint_url.startswith('http') and deployment.runtime == 'onnx'\n"
        "assert deployment.environment == 'production'\n"
        "with TrustStramClient(api_key='your_api_key') as client:\n"
        "    rows = [{'age': None, 'plan': 'pro'}, {'age': 70.0, 'plan': 'pro'}]\n"
        "    found = client.inference.batch_predict(deployment, rows)\n"
        "assert found[1].result == 'stays' and found[1].confidence > 0.9\n"
        "assert found[0].confidence == found[0].probabilities['stays']",
        given=_CUSTOMERS,
    ),
    Story(
        "a server and three clients on files end by themselves",
        TRUSTSTRAM,
        (17,),
        "assert not [t for t in threading.enumerate() if '(start)' in t.name]",
        world="files",
    ),
    Story(
        "a model that is missing is replaced by another",
        TRUSTSTRAM,
        (0, 19),
        "assert prediction.model == 'fallback_model'",
        given=_ROW_AND_LOGGING,
    ),
    Story(
        "a session of one's own",
        TRUSTSTRAM,
        (0, 21),
        "assert prediction.model == 'model' and prediction.result in ('no', 'yes')",
        given=_ROW,
    ),
    Story(
        "errors are told apart, and a failure is tried again",
        TRUSTSTRAM,
        (0, 22, 23),
        "data = {'feature1': 1.0, 'feature2': 2.0}\n"
        "assert make_prediction(data).model == 'model'\n"
        "tries = []\n"
        "def refused():\n"
        "    tries.append(1)\n"
        "    raise RateLimitExceededError('Too many requests.', retry_after=1)\n"
        "def refused_once():\n"
        "    tries.append(1)\n"
        "    return refused() if len(tries) == 1 else 'ok'\n"
        "try:\n"
        "    retry_on_failure(max_retries=2, delay=0.01)(refused)()\n"
        "except RateLimitExceededError as error:\n"
        "    assert error.retry_after == 1 and len(tries) == 2\n"
        "else:\n"
        "    raise AssertionError('it was not refused')\n"
        "@handle_truststram_errors\n"
        "def missing():\n"
        "    return client.inference.predict(model_id='no-such', data=data)\n"
        "try:\n"
        "    missing()\n"
        "except ModelNotFoundError as error:\n"
        "    assert error.model_id == 'no-such'\n"
        "else:\n"
        "    raise AssertionError('it was found')",
        given="import logging\ngiven = {'logging': logging}",
    ),
    Story(
        "batches",
        TRUSTSTRAM,
        (0, 24),
        "rows = [{'feature1': n / 10, 'feature2': 1} for n in range(70)]\n"
        "found = batch_predict(client, 'model', rows)\n"
        "assert len(found) == 70\n"
        "one = client.inference.predict(model_id='model', data=rows[3])\n"
        "assert abs(found[3].confidence - one.confidence) < 1e-12",
    ),
    Story(
        "a hundred predictions at once",
        TRUSTSTRAM,
        (25,),
        "assert len(results) == 100 and len({r.confidence for r in results}) == 1",
        kernel=False,
    ),
    Story(
        "predictions are remembered",
        TRUSTSTRAM,
        (0, 26),
        "row = {'feature1': 1, 'feature2': 2}\n"
        "first = cached_predict(row)\n"
        "assert cached_predict(row) is first and first.model == 'model'",
    ),
    Story(
        "Shapley values and their pictures",
        TRUSTSTRAM,
        (11,),
        "from pathlib import Path\n"
        "pictures = [Path(n).read_bytes() for n in ('shap_summary.png', 'shap_waterfall.png')]\n"
        "assert all(picture.startswith(b'\\x89PNG') for picture in pictures)\n"
        "assert len(explanations) == 10 and explanations.feature_names == tuple('abc')\n"
        "margins = model.decision_function(X_test[:10])\n"
        "total = explanations.base_values + explanations.values.sum(1)\n"
        "assert abs(total - margins).max() < 1e-9\n"
        "assert max(feature_importance, key=feature_importance.get) == 'a'",
        given=_MODEL,
        world="empty",
    ),
    Story(
        "an explainer of one's own",
        TRUSTSTRAM,
        (13,),
        "mine = CustomExplainer(lambda rows: rows[:, 0], ['a', 'b'])\n"
        "assert 'no explanation' in repr(mine.explain([[1.0, 2.0]])).lower()\n"
        "try:\n"
        "    mine.explain([[1.0, 2.0]], method='guess')\n"
        "except ValueError as error:\n"
        "    assert str(error) == 'Unknown method: guess'\n"
        "else:\n"
        "    raise AssertionError('it was explained')",
        world="empty",
    ),
    Story(
        "a device trains in the open round and asks for its budget",
        EDGEML,
        (2, 8),
        "assert result['status'] == 'accepted' and assignment['round_id']\n"
        "assert budget['federation_id'] and 'budget_remaining' in budget",
        given=_ROUNDS,
        world="round",
    ),
    Story(
        "the difference of two states",
        EDGEML,
        (3,),
        "assert list(delta) == ['w'] and float(delta['w'][0]) == 1.0",
        given="import torch\n"
        "given = {'global_weights': {'w': torch.ones(2)}, "
        "'trained_weights': {'w': torch.full((2,), 2.0)}}",
        world="empty",
    ),
    Story(
        "personal models",
        EDGEML,
        (2, 4, 5, 6),
        "assert not set(result.body_delta) & {'classifier.weight', 'classifier.bias'}\n"
        "assert set(result.head_state) == {'classifier.weight', 'classifier.bias'}\n"
        "import torch\n"
        "kept = client.get_personalized_model()\n"
        "assert torch.equal(torch.as_tensor(kept['body.weight']), torch.ones(3, 2))",
        given=_PERSONAL,
        world="round",
    ),
    Story(
        "the filter pipeline",
        EDGEML,
        (7,),
        "import torch\n"
        "kept = (filtered_delta['w'] != 0).sum()\n"
        "assert 0 < int(kept) <= 11, kept\n"
        "assert float(torch.linalg.vector_norm(filtered_delta['w'])) < 1.5",
        given="import torch\ngiven = {'model_delta': {'w': torch.linspace(-1, 1, 101)}}",
        world="empty",
    ),
    Story(
        "a client with every setting",
        EDGEML,
        (9,),
        "assert repr(client) and client.events == []",
        given="given = {'auth_provider': lambda: 'a token'}",
        world="empty",
    ),
)

#: (document, block) -> what is missing; this list only shrinks
NOT_YET = {
    (TRUSTSTRAM, 1): "OAuth 2.0",
    (TRUSTSTRAM, 2): "service accounts",
    (TRUSTSTRAM, 4): "pipelines",
    (TRUSTSTRAM, 8): "clouds",
    (TRUSTSTRAM, 9): "clouds",
    (TRUSTSTRAM, 10): "clouds",
    (TRUSTSTRAM, 12): "LIME of a model that keeps its statistics",
    (TRUSTSTRAM, 14): "quantum key distribution",
    (TRUSTSTRAM, 15): "post-quantum encryption",
    (TRUSTSTRAM, 18): "the Flask application",
    (TRUSTSTRAM, 20): "ModelMonitor",
    (EDGEML, 0): "device authentication",
    (EDGEML, 1): "rollouts and experiments",
}
