from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from truststram_lab.exceptions import InvalidInputError, UpdateRejectedError
from truststram_lab.learning.personal import (
    batch_norm_layers,
    join,
    layer_names,
    proximal_penalty,
    proximal_pull,
    split_batch_norm,
    split_head,
)
from truststram_lab.learning.weights import State


def state_of(module: torch.nn.Module) -> State:
    return {name: tensor.numpy() for name, tensor in module.state_dict().items()}


CONVNET = torch.nn.Sequential()
CONVNET.add_module("stem", torch.nn.Conv2d(1, 2, 3))
CONVNET.add_module("norm", torch.nn.BatchNorm2d(2))
CONVNET.add_module("quiet", torch.nn.GroupNorm(1, 2))
CONVNET.add_module("classifier", torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)))
CONVNET.add_module("classifier2", torch.nn.Linear(2, 2))
STATE = state_of(CONVNET)

arrays = st.integers(0, 2**32).map(
    lambda seed: {
        "w": np.random.default_rng(seed).normal(size=(2, 3)),
        "b": np.random.default_rng(seed + 1).normal(size=2),
    }
)


# Below the smallest normal number half of mu is rounded, here or there.
@given(arrays, arrays, st.just(0.0) | st.floats(1e-300, 100))
def test_the_pull_is_the_gradient_of_the_penalty(at: State, anchor: State, mu: float) -> None:
    found = proximal_pull(at, anchor, mu)
    tensors = {name: torch.tensor(array, requires_grad=True) for name, array in at.items()}
    loss = sum(
        (0.5 * mu * (tensor - torch.tensor(anchor[name])).square().sum())
        for name, tensor in tensors.items()
    )
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert proximal_penalty(at, anchor, mu) == pytest.approx(loss.item(), rel=1e-12)
    for name, tensor in tensors.items():
        assert tensor.grad is not None
        np.testing.assert_allclose(found[name], tensor.grad.numpy(), rtol=1e-12)


def test_there_is_no_pull_at_the_anchor_and_none_of_strength_zero() -> None:
    other = {name: array + 1 for name, array in STATE.items()}
    assert not any(array.any() for array in proximal_pull(STATE, STATE, 3.0).values())
    assert not any(array.any() for array in proximal_pull(other, STATE, 0.0).values())
    assert proximal_penalty(STATE, STATE, 3.0) == 0


def test_steps_of_the_pull_alone_end_at_the_anchor() -> None:
    at = {"w": np.array([5.0, -3.0])}
    for _ in range(200):
        at = {"w": at["w"] - 0.1 * proximal_pull(at, {"w": np.ones(2)}, 2.0)["w"]}
    np.testing.assert_allclose(at["w"], 1.0, rtol=1e-12)


def test_whole_numbers_are_not_pulled() -> None:
    assert "norm.num_batches_tracked" not in proximal_pull(STATE, STATE, 1.0)


@pytest.mark.parametrize("strength", [-0.1, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_refused_with_the_range(strength: float) -> None:
    for function in (proximal_pull, proximal_penalty):
        with pytest.raises(InvalidInputError, match="take 0 or more"):
            function(STATE, STATE, strength)


def test_the_pull_of_another_model_is_rejected() -> None:
    with pytest.raises(UpdateRejectedError, match="'w' has shape"):
        proximal_pull({"w": np.zeros(2)}, {"w": np.zeros(3)}, 1.0)


def test_layers_are_named_in_the_models_order() -> None:
    assert layer_names(STATE) == [
        "stem",
        "norm",
        "quiet",
        "classifier.0",
        "classifier.1",
        "classifier2",
    ]


@pytest.mark.parametrize(
    ("heads", "kept"),
    [
        (["classifier2"], {"classifier2.weight", "classifier2.bias"}),
        (["classifier2.bias"], {"classifier2.bias"}),
        (["classifier.1"], {"classifier.1.weight", "classifier.1.bias"}),
        (
            ["classifier"],
            {f"classifier.{place}.{part}" for place in (0, 1) for part in ("weight", "bias")},
        ),
        (["classifier.weight", "stem"], None),
    ],
)
def test_a_head_is_matched_on_the_dotted_boundary(heads: list[str], kept: set[str] | None) -> None:
    if kept is None:
        with pytest.raises(InvalidInputError, match=r"No layer is named 'classifier\.weight'"):
            split_head(STATE, heads)
        return
    body, head = split_head(STATE, heads)
    assert set(head) == kept
    assert [*body] == [name for name in STATE if name not in kept]


def test_the_documented_head_names_are_understood() -> None:
    state = {name: np.zeros(1) for name in ("body.w", "classifier.weight", "classifier.bias")}
    assert [*split_head(state, ["classifier.weight", "classifier.bias"])[0]] == ["body.w"]
    assert [*split_head(state, "classifier")[0]] == ["body.w"]


def test_a_head_that_matches_nothing_gets_the_nearest_and_the_layers() -> None:
    with pytest.raises(InvalidInputError) as error:
        split_head(STATE, ["clasifier2"])
    assert "did you mean 'classifier2'?" in error.value.message
    assert "The layers are stem, norm, quiet, classifier.0," in error.value.message


@pytest.mark.parametrize("heads", [[], layer_names(STATE)])
def test_a_split_that_is_none_is_refused_with_the_layers(heads: list[str]) -> None:
    with pytest.raises(InvalidInputError, match="stem, norm"):
        split_head(STATE, heads)


@given(st.sets(st.sampled_from(layer_names(STATE)), min_size=1, max_size=5))
def test_join_undoes_a_split(heads: set[str]) -> None:
    body, head = split_head(STATE, heads)
    found = join(STATE, body, head)
    assert [*found] == [*STATE]
    assert all(found[name] is STATE[name] for name in STATE)


def test_parts_that_do_not_make_the_model_are_refused() -> None:
    body, head = split_head(STATE, ["stem"])
    with pytest.raises(InvalidInputError, match=r"'stem\.weight' is in both parts"):
        join(STATE, STATE, head)
    with pytest.raises(InvalidInputError, match=r"'stem\.weight' is in no part"):
        join(STATE, body, {})
    with pytest.raises(InvalidInputError, match="'x' is not in the model"):
        join(STATE, body, {**head, "x": np.zeros(1)})


def test_fedbn_keeps_all_of_a_batch_norm_and_nothing_of_a_group_norm() -> None:
    shared, own = split_batch_norm(STATE)
    assert batch_norm_layers(STATE) == ["norm"]
    assert set(own) == {name for name in STATE if name.startswith("norm.")}
    assert len(own) == 5
    assert "quiet.weight" in shared


def test_fedbn_finds_every_batch_norm_of_a_nested_model() -> None:
    inner = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2, affine=False))
    state = state_of(torch.nn.Sequential(inner, torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)))
    assert batch_norm_layers(state) == ["0.1", "2"]
    assert len(split_batch_norm(state)[1]) == 3 + 5


def test_a_model_without_or_of_nothing_but_batch_norms_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="no batch norm to keep"):
        split_batch_norm(state_of(torch.nn.Linear(2, 2)))
    with pytest.raises(InvalidInputError, match="nothing would be shared"):
        split_batch_norm(state_of(torch.nn.BatchNorm1d(2)))
