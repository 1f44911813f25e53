"""At which observations and actions does the actor learn? At fresh actions of the policy and at stored ones."""

import math
from typing import NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.utils._pytree import tree_map

from sb3_dqs.critics import Batch


class RegressionPoints(NamedTuple):
    """
    :param observations: (batch, ...)
    :param actions: (batch, action_dim), in [-1, 1]
    :param n_on_policy: so many first points are fresh actions of the policy
    """

    observations: PyTorchObs
    actions: th.Tensor
    n_on_policy: int


def regression_points(
    batch: Batch, next_observations: PyTorchObs, next_actions: th.Tensor, n_points: int, on_policy_share: float
) -> RegressionPoints:
    """
    The first points are pairs (s', a') just drawn from the policy for the TD target, which are free and which the entropy of
    the law is read from; the others are replay pairs. All are random rows of the batch, since hindsight replay puts the real
    goals first.

    :param batch: of transitions
    :param next_observations: of the batch
    :param next_actions: (batch, action_dim), in [-1, 1], of the policy at these
    :param n_points: number of points, at most that of the rows of the batch
    :param on_policy_share: share of fresh actions, in [0, 1]
    :return: the points, fresh actions first
    """
    n_points = min(n_points, len(next_actions))
    n_on_policy = math.ceil(on_policy_share * n_points)
    rows = th.rand(len(next_actions), device=next_actions.device).argsort()
    drawn, replayed = rows[:n_on_policy], rows[n_on_policy:n_points]
    observations = tree_map(
        lambda next_values, values: th.cat([next_values[drawn], values[replayed]]), next_observations, batch.observations
    )
    return RegressionPoints(observations, th.cat([next_actions[drawn], batch.actions[replayed]]), n_on_policy)
