"""Averages of weights against sums written down."""

import pytest
import torch as th
from torch import nn

from sb3_dqs.averaging import follow, polynomial_decay_share


def constant_network(value):
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    with th.no_grad():
        for parameter in (*network.parameters(), network[1].running_mean, network[1].running_var):
            parameter.fill_(value)
    network[1].num_batches_tracked.fill_(int(value))
    return network


@pytest.mark.parametrize("as_given", [float, th.tensor])
def test_weights_and_statistics_move_by_the_share_and_counts_are_copied(as_given):
    average = constant_network(4.0)
    follow(average, constant_network(8.0), as_given(0.25))
    assert all(th.equal(value, th.full_like(value, 5.0)) for value in average.parameters())
    assert all(th.equal(value, th.full_like(value, 5.0)) for value in (average[1].running_mean, average[1].running_var))
    assert average[1].num_batches_tracked == 8


def test_statistics_in_double_precision_keep_theirs():
    average, online = nn.Module(), nn.Module()
    average.register_buffer("mean", th.tensor(1e9, dtype=th.float64))
    online.register_buffer("mean", th.tensor(1e9 + 4, dtype=th.float64))
    follow(average, online, th.tensor(0.25))
    assert average.mean.item() == 1e9 + 1


def test_what_is_infinite_in_both_stays_as_it_is():
    average, online = nn.Module(), nn.Module()
    for module, value in ((average, 0.0), (online, 4.0)):
        module.register_buffer("mask", th.tensor([-th.inf, value]))
    follow(average, online, 0.25)
    assert average.mask.tolist() == [-th.inf, 1.0]


def test_the_average_of_1_to_n_is_that_of_polynomial_decay():
    # The share 8 / (t + 7) gives number t the weight (t + 6) choose 7; over 1 ... n these sum to (n + 7) choose 8, and the
    # mean of t by them is 8 (n + 8) / 9 - 7: 1 for n = 1, 17/9 for n = 2 (of weights 1/9 and 8/9), 89 for n = 100
    average = th.tensor(0.0, dtype=th.float64)
    for t in range(1, 101):
        average.lerp_(th.tensor(float(t), dtype=th.float64), polynomial_decay_share(th.tensor(float(t), dtype=th.float64)))
        assert average.item() == pytest.approx(8 * (t + 8) / 9 - 7)
    assert average.item() == pytest.approx(89.0)
