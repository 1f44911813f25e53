"""Where do the transitions lie? On the device that learns from them, so that sampling a batch waits for nothing."""

import copy
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqs.checks import InputError

STORED = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class DeviceReplayBuffer(ReplayBuffer):
    """
    Replay buffer in the memory of the device: for any off-policy algorithm of SB3, by ``replay_buffer_class``.

    A batch is drawn and gathered on the device, without waiting for the host; the memory there is taken at the first
    transition. Observations are stored in their own type, but 64-bit floats as 32-bit, as the networks take them: where they
    vary by less than a millionth of their size, subtract their middle in a wrapper, before ``VecNormalize`` too. One-step
    returns only, and no hindsight replay.

    :param buffer_size: Max number of element in the buffer
    :param observation_space: Observation space, not a Dict
    :param action_space: Action space
    :param device: PyTorch device that holds the transitions and gets the batches
    :param n_envs: Number of parallel environments
    :param optimize_memory_usage: Not supported
    :param handle_timeout_termination: Handle timeout termination (due to timelimit) separately
    :raises ValueError: for Dict observations, or with ``optimize_memory_usage``
    """

    observations: th.Tensor  # type: ignore[assignment]
    next_observations: th.Tensor  # type: ignore[assignment]
    actions: th.Tensor  # type: ignore[assignment]
    rewards: th.Tensor  # type: ignore[assignment]
    dones: th.Tensor  # type: ignore[assignment]
    timeouts: th.Tensor  # type: ignore[assignment]

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        handle_timeout_termination: bool = True,
    ):
        if isinstance(observation_space, spaces.Dict):
            raise InputError("DeviceReplayBuffer does not hold Dict observations; use SB3's DictReplayBuffer, the default")
        if optimize_memory_usage:
            raise InputError("DeviceReplayBuffer does not support optimize_memory_usage=True; use SB3's ReplayBuffer")
        super().__init__(
            buffer_size,
            observation_space,
            action_space,
            device,
            n_envs,
            handle_timeout_termination=handle_timeout_termination,
        )
        # Zeros of numpy take no memory until they are written to: a model that is loaded for prediction has an empty buffer
        for name in STORED:
            array = getattr(self, name)
            stored_dtype = np.float32 if array.dtype == np.float64 else array.dtype
            setattr(self, name, th.from_numpy(np.zeros(array.shape, stored_dtype)))

    def __getstate__(self) -> dict[str, Any]:
        # Arrays of the host, so that a machine without this device can load them
        return {**self.__dict__, **{name: getattr(self, name).cpu().numpy() for name in STORED}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        arrays = {name: th.from_numpy(state[name]) for name in STORED}
        self.__dict__.update({**state, **arrays, "_device": th.device("cpu")})

    def __deepcopy__(self, memo: dict[int, Any]) -> "DeviceReplayBuffer":
        # As it is: the default way goes over __getstate__, to the host
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied

    @property
    def device(self) -> th.device:
        """Where the transitions lie; setting it moves them, as when a saved buffer is loaded on another machine."""
        return self._device

    @device.setter
    def device(self, device: th.device) -> None:
        self._device = device
        if getattr(self, "pos", 0) or getattr(self, "full", False):
            self._move()

    def _move(self) -> None:
        for name in STORED:
            setattr(self, name, getattr(self, name).to(self._device))

    def add(
        self,
        obs: np.ndarray,
        next_obs: np.ndarray,
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Add one transition of each environment.

        :param obs: (n_envs, *obs_shape)
        :param next_obs: (n_envs, *obs_shape)
        :param action: (n_envs, action_dim)
        :param reward: (n_envs,)
        :param done: (n_envs,)
        :param infos: one dictionary for each environment
        """
        if self.pos == 0:
            self._move()
        if isinstance(self.observation_space, spaces.Discrete):
            obs, next_obs = (values.reshape((self.n_envs, *self.obs_shape)) for values in (obs, next_obs))
        action = action.reshape((self.n_envs, self.action_dim))
        timeouts = [self.handle_timeout_termination and info.get("TimeLimit.truncated", False) for info in infos]
        for name, value in zip(STORED, (obs, next_obs, action, reward, done, timeouts), strict=True):
            getattr(self, name)[self.pos] = th.as_tensor(np.array(value))
        self.pos += 1
        if self.pos == self.buffer_size:
            self.full = True
            self.pos = 0

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples:
        """
        Draw transitions uniformly, by the random numbers of the device.

        :param batch_size: Number of transitions
        :param env: associated VecEnv to normalize the observations and rewards with
        :return: the batch, on the device
        """
        rows = th.randint(self.size(), (batch_size,), device=self._device)
        env_indices = th.randint(self.n_envs, (batch_size,), device=self._device)
        batch = {name: getattr(self, name)[rows, env_indices] for name in STORED}
        # Only use dones that are not due to timeouts
        dones = batch["dones"] * (1 - batch["timeouts"])
        if env is not None and env.norm_obs:
            observations, next_observations = self._normalized(env, batch["observations"], batch["next_observations"])
        else:
            observations, next_observations = batch["observations"], batch["next_observations"]
        rewards = self._normalized_rewards(batch["rewards"], env)
        return ReplayBufferSamples(observations, batch["actions"], next_observations, dones.unsqueeze(1), rewards.unsqueeze(1))

    def _normalized(self, env: VecNormalize, *observations: th.Tensor) -> list[th.Tensor]:
        statistics = env.obs_rms
        assert isinstance(statistics, RunningMeanStd)
        mean, variance = (
            th.as_tensor(value, dtype=th.float32).to(self._device, non_blocking=True)
            for value in (statistics.mean, statistics.var)
        )
        scale = th.sqrt(variance + env.epsilon)
        return [((values - mean) / scale).clamp(-env.clip_obs, env.clip_obs) for values in observations]

    def _normalized_rewards(self, rewards: th.Tensor, env: VecNormalize | None) -> th.Tensor:
        if env is None or not env.norm_reward:
            return rewards
        scale = float(np.sqrt(env.ret_rms.var + env.epsilon))
        return (rewards / scale).clamp(-env.clip_reward, env.clip_reward)
