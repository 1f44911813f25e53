"""What does a policy do? Roll-outs with their traces, goals reached, and the distance to the law that its critic asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim

from sb3_dqs.checks import InputError
from sb3_dqs.dqs import DQS
from sb3_dqs.metrics import (
    GoalStatistics,
    boltzmann_masses,
    draws_from_masses,
    goal_statistics,
    maximum_mean_discrepancy,
    sliced_wasserstein_2,
    total_variation,
)
from sb3_dqs.policies import min_q_fn

# Bins per dimension: histograms of 20000 exact draws then lie 0.02 (1-D) and 0.06 (2-D) away from the uniform law
N_BINS = {1: 50, 2: 20}
# Quadrature points per bin and dimension, and of exact draws: the finer they are, the less a draw is smeared within its cell
POINTS_PER_BIN = {1: 20, 2: 10}

# Kernel of the maximum mean discrepancy, in units of the box's half width, and how many samples it compares
BANDWIDTH = 0.3
N_COMPARED = 2_000

N_DIRECTIONS = 100


@dataclass(frozen=True)
class Episode:
    """
    :param total_reward: undiscounted
    :param observations: (length + 1, *observation_shape), from the first to the last
    :param info: of the last step
    """

    total_reward: float
    observations: np.ndarray
    info: dict[str, Any]


def roll_out(
    model: BaseAlgorithm,
    envs: Sequence[gym.Env],
    seed: int | None,
    deterministic: bool,
    options: dict[str, Any] | None = None,
) -> list[Episode]:
    """
    One episode in each environment, with actions predicted for all of them at once.

    :param model: with observations that are arrays, not dictionaries; its ``VecNormalize``, if any, is applied
    :param envs: not vectorised, with the spaces of the model
    :param seed: environment i is reset with ``seed + i``, so equal seeds are equal start states; None continues their streams
    :param deterministic: whether to predict without sampling
    :param options: passed to every ``reset``
    :return: an episode of each environment
    :raises ValueError: if there is no environment
    """
    if not envs:
        raise InputError("envs must hold at least one environment, got none; make as many as episodes are wanted")
    vec_normalize = model.get_vec_normalize_env()
    traces = [[env.reset(seed=None if seed is None else seed + i, options=options)[0]] for i, env in enumerate(envs)]
    total_rewards = [0.0] * len(envs)
    infos: list[dict[str, Any]] = [{} for _ in envs]
    running = list(range(len(envs)))
    while running:
        observations = np.stack([traces[i][-1] for i in running])
        if vec_normalize is not None:
            observations = np.asarray(vec_normalize.normalize_obs(observations))
        actions, _ = model.predict(observations, deterministic=deterministic)
        still_running = []
        for i, action in zip(running, actions, strict=True):
            observation, reward, terminated, truncated, infos[i] = envs[i].step(action)
            traces[i].append(observation)
            total_rewards[i] += float(reward)
            if not (terminated or truncated):
                still_running.append(i)
        running = still_running
    episodes = zip(total_rewards, traces, infos, strict=True)
    return [Episode(total_reward, np.stack(trace), info) for total_reward, trace, info in episodes]


def goals_of(episodes: Sequence[Episode], env: gym.Env) -> GoalStatistics | None:
    """
    Success, goals reached and their normalised entropy; a mode at which an episode ends counts as a goal.

    :param episodes: in environments of this kind
    :param env: one of them
    :return: None where the environment has neither goals nor modes
    """
    what = next((name for name in ("goal", "mode") if name in episodes[0].info), None)
    if what is None:
        return None
    return goal_statistics([episode.info[what] for episode in episodes], len(env.unwrapped.arena.goals))  # type: ignore[attr-defined]


def repeated(observation: Any, n: int) -> Any:
    """
    :param observation: one, not batched: an array or a dictionary of arrays
    :param n: size of the batch
    :return: a batch of n copies
    """
    if isinstance(observation, dict):
        return {key: np.repeat(np.asarray(values)[None], n, axis=0) for key, values in observation.items()}
    return np.repeat(np.asarray(observation)[None], n, axis=0)


def sample_actions(model: BaseAlgorithm, observation: Any, n_samples: int) -> th.Tensor:
    """
    Actions of the stochastic policy at one observation.

    :param model: trained or not
    :param observation: one, not batched, as the policy sees it (after ``VecNormalize``, if any)
    :param n_samples: number of actions
    :return: (n_samples, action_dim), on [-1, 1]
    """
    actions, _ = model.predict(repeated(observation, n_samples))
    return th.as_tensor(model.policy.scale_action(actions)).reshape(n_samples, -1)


def boltzmann_temperature(model: BaseAlgorithm) -> float | None:
    """
    :param model: DQS, or SAC, whose Gaussian aims at the same law, at its entropy coefficient
    :return: the temperature of the law exp(Q / temperature) that the policy aims at, in units of Q; None where it has none
    """
    if not isinstance(getattr(model, "critic", None), ContinuousCritic):
        return None
    if isinstance(model, DQS):
        return model.thermostat.temperature.item()
    if getattr(model, "log_ent_coef", None) is not None:
        return model.log_ent_coef.exp().item()  # type: ignore[attr-defined]
    coefficient = getattr(model, "ent_coef_tensor", None)
    return None if coefficient is None else coefficient.item()


def can_compare_to_critic(model: BaseAlgorithm) -> bool:
    """
    :param model: of any algorithm
    :return: whether :func:`distances_to_critic` is defined: the policy aims at a Boltzmann law of one or two action dimensions
    """
    return boltzmann_temperature(model) is not None and get_action_dim(model.action_space) in N_BINS


def distances_to_critic(model: BaseAlgorithm, observations: Sequence[Any], n_actions: int = 20_000) -> dict[str, float]:
    """
    Distances between sampled actions and the exact Boltzmann law of the learned critic, by quadrature.

    Means over the observations. Draws from torch's global generator.

    :param model: for which :func:`can_compare_to_critic` holds
    :param observations: each one not batched, as the policy sees it
    :param n_actions: samples per observation
    :return: ``total_variation`` in [0, 1], in 50 bins (1-D) or 20 x 20 (2-D); ``mmd``, maximum mean discrepancy with a
        Gaussian kernel of bandwidth 0.3; ``sliced_w2``, sliced 2-Wasserstein distance, action units
    :raises ValueError: if the model aims at no Boltzmann law, or its actions have more than two dimensions
    """
    if not can_compare_to_critic(model):
        raise InputError(
            f"model must aim at a Boltzmann law of one or two action dimensions, got {type(model).__name__} with action space "
            f"{model.action_space}; measure returns and goals instead"
        )
    per_observation = [_distances_at(model, observation, n_actions) for observation in observations]
    return {name: float(np.mean([distances[name] for distances in per_observation])) for name in per_observation[0]}


def _distances_at(model: BaseAlgorithm, observation: Any, n_actions: int) -> dict[str, float]:
    temperature, action_dim = boltzmann_temperature(model), get_action_dim(model.action_space)
    assert temperature is not None
    # learn() leaves batch norm and dropout in training mode
    model.policy.set_training_mode(False)
    observations, _ = model.policy.obs_to_tensor(observation)
    q_fn = min_q_fn(model.critic, observations)  # type: ignore[attr-defined]

    def q_on_cpu(actions: th.Tensor) -> th.Tensor:
        return q_fn(actions.to(model.device)).cpu()

    n_bins, points_per_bin = N_BINS[action_dim], POINTS_PER_BIN[action_dim]
    fine_masses = boltzmann_masses(q_on_cpu, temperature, action_dim, n_bins * points_per_bin, points_per_bin=1)
    masses = boltzmann_masses(q_on_cpu, temperature, action_dim, n_bins, points_per_bin)
    actions, draws = sample_actions(model, observation, n_actions).double(), draws_from_masses(fine_masses, n_actions)
    return {
        "total_variation": total_variation(actions, masses),
        "mmd": maximum_mean_discrepancy(actions[:N_COMPARED], draws[:N_COMPARED], BANDWIDTH),
        "sliced_w2": sliced_wasserstein_2(actions, draws, th.randn(N_DIRECTIONS, action_dim)),
    }
