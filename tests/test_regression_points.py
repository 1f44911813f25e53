"""Are regression points pairs of an observation and its own action, as many of each kind as asked for?"""

import pytest
import torch as th
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples

from sb3_dqs.regression_points import regression_points

N_ROWS = 10
NUMBERS = th.arange(N_ROWS, dtype=th.float32)[:, None]


def batch_of(observations, next_observations):
    kind = DictReplayBufferSamples if isinstance(observations, dict) else ReplayBufferSamples
    return kind(observations, NUMBERS / 100, next_observations, dones=NUMBERS * 0, rewards=NUMBERS * 0, discounts=None)


@pytest.mark.parametrize(
    ("n_points", "share", "expected"),
    # half of 5 are 3, rounded up; no more points than rows
    [(5, 0.5, (3, 2)), (4, 0.25, (1, 3)), (6, 0.0, (0, 6)), (6, 1.0, (6, 0)), (99, 0.5, (5, 5))],
)
@pytest.mark.parametrize("is_dict", [False, True])
def test_each_point_is_a_pair_of_another_random_row(n_points, share, expected, is_dict):
    # a stored pair is (n, n / 100), the fresh one of the same row (n + 0.5, -n / 100)
    observations, next_observations = ({"a": v, "b": v} if is_dict else v for v in (NUMBERS, NUMBERS + 0.5))
    th.manual_seed(0)
    seen = set()
    for _ in range(100):
        batch = batch_of(observations, next_observations)
        points = regression_points(batch, next_observations, -NUMBERS / 100, n_points, share)
        n_fresh, n_stored = expected
        assert (points.n_on_policy, len(points.actions)) == (n_fresh, n_fresh + n_stored)
        at = points.observations["b"] if is_dict else points.observations
        th.testing.assert_close(at[:n_fresh], -100 * points.actions[:n_fresh] + 0.5)
        th.testing.assert_close(at[n_fresh:], 100 * points.actions[n_fresh:])
        rows = at.floor().squeeze(1).tolist()
        assert len(set(rows)) == len(rows), "no row counts twice"
        seen |= set(rows)
    assert len(seen) == N_ROWS, "every row has its chance"
