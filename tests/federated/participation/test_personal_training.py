"""Deltas, Ditto and FedPer with somebody's own training function."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from truststram_lab import verbs
from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.federated import (
    FederatedClient,
    apply_filters,
    compute_state_dict_delta,
    train_ditto,
    train_fedper,
)

TARGET = 5.0


def sgd(steps=400, rate=0.05):
    """Plain SGD on |w - 5|^2 / 2 of every float array."""

    def train(state):
        held = {name: torch.nn.Parameter(torch.as_tensor(a)) for name, a in state.items()}
        optimizer = torch.optim.SGD(held.values(), lr=rate)
        for _ in range(steps):
            optimizer.zero_grad()
            loss = sum(0.5 * ((w - TARGET) ** 2).sum() for w in held.values())
            loss.backward()
            optimizer.step()
        return {name: w.detach() for name, w in held.items()}, 12, {"loss": loss.detach()}

    return train


def state(value, kind=torch.tensor):
    return {"body.weight": kind([[value, value]]), "head.weight": kind([value])}


def test_the_personal_model_is_trained_and_ends_where_the_published_objective_has_its_minimum():
    # min (v - 5)^2 / 2 + lambda / 2 (v - w)^2 at v = (5 + lambda w) / (1 + lambda).
    result = train_ditto(state(1.0), state(-3.0), sgd(), lambda_ditto=0.5)
    expected = (TARGET + 0.5 * 1.0) / 1.5
    for array in result.personal_state.values():
        assert array.numpy() == pytest.approx(np.full(array.shape, expected), rel=1e-5)
    for array in result.global_state.values():
        assert array.numpy() == pytest.approx(np.full(array.shape, TARGET), rel=1e-5)


def test_a_ditto_result_is_read_in_three_ways_and_keeps_the_callers_kind():
    given = state(1.0, np.array)
    result = train_ditto(given, state(2.0, np.array), sgd(3))
    assert result["personal_state"] is result.personal_state is result[1]
    shared, own, samples, metrics = result
    assert isinstance(shared["head.weight"], np.ndarray)
    assert isinstance(own["head.weight"], np.ndarray)
    assert (samples, set(metrics)) == (12, {"loss", "personal_loss"})
    assert given["head.weight"] == np.array([1.0])
    with pytest.raises(KeyError, match="personal_state"):
        result["personal"]


def test_lambda_is_named_and_checked_and_zero_is_a_model_of_its_own():
    for wrong in (-0.1, float("nan"), float("inf"), "0.1", None, True):
        with pytest.raises(
            InvalidInputError, match=r"lambda_ditto is .*, but must be .* from 0 up"
        ):
            train_ditto(state(1.0), state(1.0), sgd(1), lambda_ditto=wrong)
    alone = train_ditto(state(1.0), state(-3.0), sgd(), lambda_ditto=0)
    assert alone.personal_state["head.weight"].item() == pytest.approx(TARGET, rel=1e-5)


def test_ditto_refuses_a_function_in_which_the_pull_cannot_come():
    with pytest.raises(InvalidInputError, match="took no step with a torch optimizer"):
        train_ditto(state(1.0), state(1.0), lambda s: (s, 1, {}))


def test_ditto_refuses_models_of_two_shapes():
    with pytest.raises(UpdateRejectedError, match="head"):
        train_ditto(state(1.0), {"body.weight": torch.ones(1, 2)}, sgd(1))


def test_fedper_gives_the_bodys_change_and_the_trained_head():
    result = train_fedper(state(1.0), ["head"], sgd())
    assert set(result.body_delta) == {"body.weight"}
    assert result["body_delta"]["body.weight"].numpy() == pytest.approx(4.0, rel=1e-5)
    assert set(result.head_state) == {"head.weight"}
    assert result.head_state["head.weight"].item() == pytest.approx(TARGET, rel=1e-5)
    assert result.sample_count == 12
    same = train_fedper(state(1.0), ["head.weight"], sgd(1))
    assert set(same.body_delta) == {"body.weight"}


def test_a_head_that_is_not_there_is_said_with_the_layers_before_anything_trains():
    def train(state):
        raise AssertionError("it trained")

    with pytest.raises(InvalidInputError, match="The layers are body, head"):
        train_fedper(state(1.0), ["classifier.weight"], train)
    for wrong in (None, [3], 3):
        with pytest.raises(InvalidInputError, match="no name of a layer"):
            train_fedper(state(1.0), wrong, train)


def test_a_delta_added_to_its_base_is_the_new_state():
    module, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    delta = compute_state_dict_delta(
        base_state=module.state_dict(), updated_state=other.state_dict()
    )
    for name, base in module.state_dict().items():
        assert torch.allclose(base + delta[name], other.state_dict()[name])
    assert delta.excluded == ()


def test_counters_are_left_out_of_a_delta_and_named():
    module = torch.nn.BatchNorm1d(3)
    module.train()
    base = {name: value.clone() for name, value in module.state_dict().items()}
    module(torch.randn(4, 3))
    delta = compute_state_dict_delta(base, module.state_dict())
    assert set(delta) == {"weight", "bias", "running_mean", "running_var"}
    assert delta.excluded == ("num_batches_tracked",)


def test_states_of_two_models_have_no_delta():
    base = state(1.0)
    with pytest.raises(UpdateRejectedError, match=r"'head\.weight' is missing"):
        compute_state_dict_delta(base, {"body.weight": base["body.weight"]})
    with pytest.raises(UpdateRejectedError, match="extra"):
        compute_state_dict_delta(base, {**base, "extra": torch.ones(1)})
    with pytest.raises(UpdateRejectedError, match=r"shape \(3,\), expected \(1,\)"):
        compute_state_dict_delta(base, {**base, "head.weight": torch.ones(3)})
    arrays = [np.ones(2), np.zeros(3)]
    assert [a.tolist() for a in compute_state_dict_delta(arrays, arrays)] == [[0, 0], [0, 0, 0]]
    with pytest.raises(InvalidInputError, match="1 arrays"):
        compute_state_dict_delta(arrays, arrays[:1])


def test_the_documented_filters_run_on_a_delta():
    delta = compute_state_dict_delta(state(1.0), state(3.0))
    filtered = apply_filters(delta=delta, filters=[{"type": "gradient_clip", "max_norm": 1.0}])
    norm = torch.sqrt(sum((value**2).sum() for value in filtered.values()))
    assert norm.item() == pytest.approx(1.0, rel=1e-6)


def test_a_client_offers_both_and_needs_no_connection_for_them():
    client = FederatedClient(auth_token_provider=lambda: "tss_x", org_id="org")
    result = client.train_ditto(
        global_model=state(1.0), personal_model=state(1.0), local_train_fn=sgd(2), lambda_ditto=0.1
    )
    assert result.sample_count == 12
    assert client.train_fedper(
        model=state(1.0), head_layers=["head.weight"], local_train_fn=sgd(2)
    ).head_state


NAN = torch.tensor([float("nan")])
WRONG = [
    (lambda s: (s, 5), "returned a tuple of 2, expected 3 values"),
    (
        lambda s: ({**s, "head.weight": torch.ones(2, 2)}, 5, {}),
        r"'head.weight' with shape \(2, 2\)",
    ),
    (lambda s: ({**s, "hed.weight": torch.ones(1)}, 5, {}), "did you mean 'head.weight'"),
    (lambda s: ({**s, "head.weight": NAN}, 5, {}), "'head.weight' with 1 values of 1 that are not"),
]


@pytest.mark.parametrize(("train", "says"), WRONG)
@pytest.mark.parametrize("own", [False, True], ids=["function", "client"])
def test_a_wrong_answer_names_the_key_whoever_trains_a_personal_model(train, says, own):
    client = FederatedClient(auth_token_provider=lambda: "token")
    ditto, fedper = (
        (client.train_ditto, client.train_fedper) if own else (train_ditto, train_fedper)
    )
    with pytest.raises(UpdateRejectedError, match=says):
        ditto(state(1.0), state(1.0), train)
    with pytest.raises(UpdateRejectedError, match=says):
        fedper(state(1.0), ["head"], train)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("quantization:bits=0", "bits of 'quantization' is 0; give a whole number, 1 to 32"),
        ("quantization:bits=33", "bits of 'quantization' is 33; give a whole number, 1 to 32"),
        ("sparsification:top_k=0", "top_k of 'sparsification' is 0; give a share over 0"),
    ],
)
def test_a_filter_out_of_range_is_refused_with_the_range_wherever_it_is_given(text, says):
    kind, _, parameter = text.partition(":")
    name, _, value = parameter.partition("=")
    with pytest.raises(InvalidInputError, match=says):
        apply_filters(state(1.0), [{"type": kind, name: int(value)}])
    with pytest.raises(InvalidInputError, match=says):
        verbs.join("any", "breast-cancer", filters=[text], dry_run=True)
