"""What does a policy do over whole episodes? Roll-outs in environments side by side, with their traces."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm


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
        raise ValueError("envs must hold at least one environment, got none; make as many as episodes are wanted")
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
