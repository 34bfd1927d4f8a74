from __future__ import annotations

from itertools import combinations, permutations
from math import comb

import numpy as np
import pytest
from explained_models import Table, random_net, table_of

from truststram_lab.explainability import shapley
from truststram_lab.explainability.shapley import exact_shapley, shapley_weights


def coalition_value(net, table, row, members, readout):
    x = table.mean.copy()
    for player in members:
        inputs = table.groups[player][1]
        x[inputs] = row[inputs]
    return float(net.logits(x[None])[0] @ readout)


def by_permutations(net, table, row, readout):
    """Shapley's own definition: the average of the marginal contributions over all orders."""
    players = len(table.groups)
    total = np.zeros(players)
    orders = list(permutations(range(players)))
    for order in orders:
        members: list[int] = []
        before = coalition_value(net, table, row, members, readout)
        for player in order:
            members.append(player)
            after = coalition_value(net, table, row, members, readout)
            total[player] += after - before
            before = after
    return total / len(orders)


def by_coalitions(net, table, row, readout):
    """Equal weight to every size, then to every coalition of that size."""
    players = range(len(table.groups))
    phi = np.zeros(len(players))
    for i in players:
        others = [p for p in players if p != i]
        for size in range(len(others) + 1):
            for members in combinations(others, size):
                gain = coalition_value(net, table, row, (*members, i), readout)
                gain -= coalition_value(net, table, row, members, readout)
                phi[i] += gain / (len(players) * comb(len(others), size))
    return phi


def phi_of(net, table, rows, readout):
    slices = [inputs for _, inputs in table.groups]
    return exact_shapley(net.logits, rows, table.baseline(), slices, readout)


@pytest.mark.parametrize("widths", [(1,), (1, 1), (2, 1, 3), (1, 4, 1, 2), (1, 1, 2, 1, 1, 3)])
@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid"])
def test_values_are_the_average_over_all_orders(widths, activation):
    rng = np.random.default_rng(sum(widths))
    net = random_net(rng, (sum(widths), 7, 1), activation)
    table = table_of(rng, widths)
    rows = rng.normal(size=(2, sum(widths)))
    phi = phi_of(net, table, rows, np.ones((2, 1)))
    for row, found in zip(rows, phi, strict=True):
        np.testing.assert_allclose(
            found, by_permutations(net, table, row, np.ones(1)), rtol=0, atol=1e-12
        )


@pytest.mark.parametrize("players", [7, 8, 10])
def test_values_are_the_weighted_average_over_all_coalitions(players):
    rng = np.random.default_rng(players)
    net = random_net(rng, (players, 5, 3), "tanh")
    table = table_of(rng, [1] * players)
    row = rng.normal(size=players)
    readout = rng.normal(size=3)
    phi = phi_of(net, table, row[None], readout[None])[0]
    np.testing.assert_allclose(phi, by_coalitions(net, table, row, readout), rtol=0, atol=1e-12)


@pytest.mark.parametrize("players", range(1, 11))
def test_the_weights_of_joining_sum_to_one_and_leave_constants_nothing(players):
    present, weights = shapley_weights(players)
    np.testing.assert_allclose(np.where(present.T, weights, 0).sum(axis=1), 1, atol=1e-12)
    np.testing.assert_allclose(weights.sum(axis=1), 0, atol=1e-12)
    assert not present[0].any()
    assert present[-1].all()


def test_contributions_add_up_to_the_output():
    rng = np.random.default_rng(1)
    net = random_net(rng, (10, 32, 1), "relu")
    table = table_of(rng, [1] * 10)
    rows = rng.normal(size=(40, 10)) * 3
    phi = phi_of(net, table, rows, np.ones((40, 1)))
    expected = net.logits(rows)[:, 0] - net.logits(table.mean[None])[0, 0]
    np.testing.assert_allclose(phi.sum(axis=1), expected, rtol=0, atol=1e-9)


def test_a_column_that_changes_nothing_gets_nothing():
    rng = np.random.default_rng(2)
    net = random_net(rng, (5, 8, 1), "relu")
    net.layers[0].weight[:, 2] = 0
    table = table_of(rng, [1] * 5)
    rows = rng.normal(size=(6, 5))
    rows[:, 4] = table.mean[4]
    phi = phi_of(net, table, rows, np.ones((6, 1)))
    np.testing.assert_allclose(phi[:, [2, 4]], 0, rtol=0, atol=1e-12)
    assert np.abs(phi[:, 0]).max() > 0.01


def test_columns_that_act_alike_get_alike():
    rng = np.random.default_rng(3)
    net = random_net(rng, (4, 8, 1), "tanh")
    net.layers[0].weight[:, 3] = net.layers[0].weight[:, 0]
    table = table_of(rng, [1] * 4)
    rows = rng.normal(size=(6, 4))
    rows[:, 3] = rows[:, 0]
    table.mean[3] = table.mean[0]
    phi = phi_of(net, table, rows, np.ones((6, 1)))
    np.testing.assert_allclose(phi[:, 0], phi[:, 3], rtol=0, atol=1e-12)


def test_values_of_a_sum_of_games_are_the_sum_of_the_values():
    rng = np.random.default_rng(4)
    net = random_net(rng, (5, 9, 2), "sigmoid")
    table = table_of(rng, [2, 1, 1, 1])
    rows = rng.normal(size=(5, 5))
    first, second = np.tile([1.0, 0.0], (5, 1)), np.tile([0.0, 1.0], (5, 1))
    together = phi_of(net, table, rows, 3 * first - 2 * second)
    apart = 3 * phi_of(net, table, rows, first) - 2 * phi_of(net, table, rows, second)
    np.testing.assert_allclose(together, apart, rtol=0, atol=1e-12)


def test_bounding_the_memory_changes_no_value(monkeypatch):
    rng = np.random.default_rng(5)
    net = random_net(rng, (6, 9, 1), "relu")
    table = table_of(rng, [1] * 6)
    rows = rng.normal(size=(11, 6))
    whole = phi_of(net, table, rows, np.ones((11, 1)))
    monkeypatch.setattr(shapley, "_CHUNK_CELLS", 1000)
    slices = [inputs for _, inputs in table.groups]
    parts = exact_shapley(net.logits, rows, table.baseline(), slices, np.ones((11, 1)), widest=90)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-12)


def test_a_model_without_columns_in_play_attributes_nothing():
    table = Table([("only", slice(0, 1))], np.array([0.2]))
    net = random_net(np.random.default_rng(6), (1, 3, 1), "relu")
    phi = phi_of(net, table, np.array([[0.2]]), np.ones((1, 1)))
    assert phi.tolist() == [[0.0]]
