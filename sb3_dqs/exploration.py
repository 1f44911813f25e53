"""How does the policy explore? By noise that is correlated over the steps of an episode, and fades into white noise."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_dqs import answers, replay
from sb3_dqs.checks import InputError


class CorrelatedNoise:
    """
    Standard normal noise with a persistent part, an Ornstein-Uhlenbeck process over the steps of an episode, and a white one.

    As the noise that sampled actions are made from it lets them persist, so that a policy that is still nearly uniform gets to
    states that independent draws average out. Over many episodes the actions at a first state have the law of the policy. At a
    later state they need not: how the episode came there tells something about the persistent part, so that there the policy's
    other actions are tried less often. Therefore the share of the persistent part is to fall as the policy learns. TD targets
    and ``predict()`` draw their own, independent noise.
    Source of exploration by an Ornstein-Uhlenbeck process: DDPG, arXiv:1509.02971; our deviations: actions are
    sampled from it instead of adding it to them, and it fades. Other colours of noise as action noise, and the case for
    pink: https://openreview.net/forum?id=hQ9V5QN27eS

    :param n_envs: number of environments; their noises are independent
    :param noise_dim: random numbers per action; they are independent
    :param correlation_time: of the persistent part, steps; 0 for none
    :param device: where the noise is needed
    """

    def __init__(self, n_envs: int, noise_dim: int, correlation_time: float, device: th.device | str = "cpu"):
        self.decay = math.exp(-1 / correlation_time) if correlation_time > 0 else 0.0
        self.persistent = th.randn((n_envs, noise_dim), device=device)

    def step(self, persistent_share: float) -> th.Tensor:
        """
        Go on by one step of the environments.

        :param persistent_share: share of the persistent part in the variance, in [0, 1]; 0 is white noise
        :return: (n_envs, noise_dim), each standard normal
        """
        self.persistent = self.decay * self.persistent + (1 - self.decay**2) ** 0.5 * th.randn_like(self.persistent)
        white = th.randn_like(self.persistent)
        return persistent_share**0.5 * self.persistent + (1 - persistent_share) ** 0.5 * white

    def restart(self, has_ended: th.Tensor) -> None:
        """
        Forget the past of environments whose episode has ended.

        :param has_ended: (n_envs,), bool
        """
        self.persistent = th.where(has_ended[:, None], th.randn_like(self.persistent), self.persistent)


class ExploringAlgorithm(OffPolicyAlgorithm):
    """
    SB3's off-policy algorithm, where the policy is told from which noise to make the actions that are taken in training.

    They are single samples, in which all modes of the actor have their share, as in those of TD targets; ``predict()`` follows
    the critic's law, in which early errors of the critic may have made a mode too light.

    What the environments answer is checked here, before it is stored.
    """

    policy: Any
    exploration_correlation_time: float
    # how far the noise has faded, in [0, 1]
    cooled_share: float
    # goes on while episodes go on; None where they start anew
    exploration_noise: CorrelatedNoise | None
    # whether VecNormalize made the observations that were learned from: it is not saved with the model
    sees_normalised: bool = False

    @property
    def has_statistics(self) -> bool:
        """Whether its environment, if any, normalises observations, by ``VecNormalize``."""
        return self._vec_normalize_env is not None and self._vec_normalize_env.norm_obs

    @property
    def lacks_statistics(self) -> bool:
        """Whether it was trained with ``VecNormalize``, and has no environment with one to take the statistics from."""
        return self.sees_normalised and not self.has_statistics

    @staticmethod
    def _wrap_env(env: GymEnv, verbose: int = 0, monitor_wrapper: bool = True) -> VecEnv:
        """As in SB3. :raises ValueError: if what would be stored is not what the model sees"""
        wrapped = OffPolicyAlgorithm._wrap_env(env, verbose, monitor_wrapper)
        replay.check_wrappers(wrapped)
        return wrapped

    def _setup_learn(
        self, total_timesteps: int, callback: MaybeCallback = None, reset_num_timesteps: bool = True, *rest: Any, **kwargs: Any
    ) -> tuple[int, BaseCallback]:
        if self.lacks_statistics and self._n_updates:
            raise InputError(
                f"{answers.LACKS_STATISTICS}; or set model.sees_normalised = False to go on with other observations"
            )
        if reset_num_timesteps or self._last_obs is None:  # the environments will start new episodes
            self.exploration_noise = None
            replay.end_episodes(self.replay_buffer)
        prepared = super()._setup_learn(total_timesteps, callback, reset_num_timesteps, *rest, **kwargs)
        self.sees_normalised = self.has_statistics
        with self._reset_after_errors():
            if self._vec_normalize_env is not None:
                answers.check_observations(self._last_original_obs, is_counted=self._vec_normalize_env.training)
            answers.check_observations(self._last_obs)
        return prepared

    @contextmanager
    def _reset_after_errors(self) -> Iterator[None]:
        """Where the answer of an environment is refused, the next one does not follow from what was seen before."""
        try:
            yield
        except InputError:
            self._last_obs = None  # learn() resets the environments
            raise

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.num_timesteps < learning_starts:
            return super()._sample_action(learning_starts, action_noise, n_envs)
        if not self.policy.takes_noise or type(self).predict is not OffPolicyAlgorithm.predict:
            with self.policy.exploring():
                return super()._sample_action(learning_starts, action_noise, n_envs)
        if self.exploration_noise is None:
            self.exploration_noise = CorrelatedNoise(
                n_envs, self.policy.noise_dim, self.exploration_correlation_time, self.device
            )
        noise = self.exploration_noise.step(persistent_share=1 - self.cooled_share)
        scaled_actions = self.policy.sample_from(self._last_obs, noise)
        if action_noise is not None:
            scaled_actions = np.clip(scaled_actions + action_noise(), -1, 1)
        return self.policy.unscale_action(scaled_actions), scaled_actions

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: Any,
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        raw = self._vec_normalize_env
        dones = np.asarray(dones)  # SB3 takes lists of them too
        with self._reset_after_errors():
            if raw is not None:  # what is stored is not normalised, nor clipped, as what is infinite would be
                answers.check_transition(raw.get_original_obs(), raw.get_original_reward(), is_counted=raw.training)
            answers.check_transition(new_obs, reward)
            for index in dones.nonzero()[0]:
                # that of VecNormalize has been clipped, and what it was made from is gone
                answers.check_terminal_observation(infos[index].get("terminal_observation"), int(index))
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        if self.exploration_noise is not None and dones.any():
            self.exploration_noise.restart(th.as_tensor(dones, dtype=th.bool, device=self.device))
