"""What does a policy do? Roll-outs with their traces, goals reached, and the distance to the law that its critic asks for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import BaseModel, ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim
from torch.utils._pytree import tree_leaves, tree_map

from sb3_dqs.answers import LACKS_STATISTICS
from sb3_dqs.checks import InputError, as_integer
from sb3_dqs.critics import evaluating, smallest_q_fn
from sb3_dqs.diffusion.estimators import QFunction
from sb3_dqs.dqs import DQS
from sb3_dqs.inspection.metrics import (
    GoalStatistics,
    boltzmann_masses,
    cell_midpoints,
    draws_from_masses,
    goal_statistics,
    maximum_mean_discrepancy,
    merged_bins,
    sliced_wasserstein_2,
    total_variation,
    total_variation_of_exact_draws,
)

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
    model: "BaseAlgorithm | ExactPolicy",
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
    :raises ValueError: if there is no environment, its observations are dictionaries, a reward is not finite, or the model
        lacks the ``VecNormalize`` that it was trained with or cannot sample actions of several episodes
    """
    if not envs:
        raise InputError("envs must hold at least one environment, got none; make as many as episodes are wanted")
    if isinstance(envs[0].observation_space, spaces.Dict):
        raise InputError("envs must have observations that are arrays, got Dict; use SB3's evaluate_policy")
    if not deterministic:
        check_draws(model)
    vec_normalize = model.get_vec_normalize_env()
    if getattr(model, "lacks_statistics", False):
        raise InputError(LACKS_STATISTICS)
    # copies, since an environment may write the next observation into the same array
    starts = [env.reset(seed=None if seed is None else seed + i, options=options)[0] for i, env in enumerate(envs)]
    traces = [[np.array(start)] for start in starts]
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
            traces[i].append(np.array(observation))
            total_rewards[i] += float(reward)
            if not np.isfinite(total_rewards[i]):
                raise InputError(
                    f"reward of envs[{i}] is not finite at step {len(traces[i]) - 1}: {reward}; mend the environment"
                )
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
    what = next((name for name in ("goal", "mode") if episodes and name in episodes[0].info), None)
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


def check_observation(model: BaseAlgorithm, observation: Any) -> None:
    """
    :param model: of any algorithm
    :param observation: one, not batched, normalised or not
    :raises ValueError: if it is none of the model's
    """
    try:
        model.policy.obs_to_tensor(repeated(observation, 2))
    except (ValueError, TypeError, KeyError, AssertionError) as error:
        raise InputError(f"observation must be one of {model.observation_space}, got {observation!r}") from error


def check_draws(model: "BaseAlgorithm | ExactPolicy") -> None:
    """
    :param model: that is to sample actions, several at a time
    :raises ValueError: if these would not be independent
    """
    if getattr(model, "use_sde", False):
        raise InputError(
            f"model must not have use_sde=True, got {type(model).__name__} with it: one call of its predict() draws one noise "
            "for all observations; measure it with deterministic actions, or train it without"
        )


def sample_actions(model: BaseAlgorithm, observation: Any, n_samples: int) -> th.Tensor:
    """
    Actions of the stochastic policy at one observation, by ``model.predict``.

    :param model: trained or not
    :param observation: one, not batched, as the policy sees it (after ``VecNormalize``, if any)
    :param n_samples: number of actions
    :return: (n_samples, action_dim), on [-1, 1]
    :raises ValueError: if an action is not finite, or the model cannot draw several
    """
    check_draws(model)
    n_samples = as_integer("n_samples", n_samples, 1, "2000 shows the law of one or two action dimensions")
    actions, _ = model.predict(repeated(observation, n_samples))
    if not np.isfinite(actions).all():
        raise InputError(
            f"model predicts actions that are not finite at observation {observation}; look for NaN, infinite or enormous "
            "values in it, and for NaN in the parameters of the policy"
        )
    # scaled forth and back, an action at the wall may pass it by rounding
    return th.as_tensor(model.policy.scale_action(actions)).reshape(n_samples, -1).clamp(-1, 1)


def boltzmann_temperature(model: BaseAlgorithm) -> float | None:
    """
    :param model: DQS, or SAC, whose Gaussian aims at the same law, at its entropy coefficient
    :return: the temperature of the law exp(Q / temperature) that the policy aims at, in units of Q, now in force; None
        where it has none, as without entropy bonus
    """
    if isinstance(model, DQS):
        return model.thermostat.value.item()
    if not isinstance(getattr(model, "critic", None), ContinuousCritic):
        return None
    if getattr(model, "log_ent_coef", None) is not None:
        return model.log_ent_coef.exp().item()  # type: ignore[attr-defined]
    coefficient = getattr(model, "ent_coef_tensor", None)
    # a coefficient of zero asks for the best action alone
    return None if coefficient is None else coefficient.item() or None


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
    :return: ``total_variation`` in [0, 1], in 50 bins (1-D) or 20 x 20 (2-D), and what is expected of as many exact draws,
        ``total_variation_of_exact_draws``; ``mmd``, maximum mean discrepancy with a
        Gaussian kernel of bandwidth 0.3; ``sliced_w2``, sliced 2-Wasserstein distance, action units
    :raises ValueError: if the model aims at no Boltzmann law, its actions have more than two dimensions, or there is no
        observation
    """
    if not can_compare_to_critic(model):
        raise InputError(
            f"model must aim at a Boltzmann law of one or two action dimensions, got {type(model).__name__} with action space "
            f"{model.action_space}; measure returns and goals instead"
        )
    if len(observations) == 0:
        raise InputError("observations must hold at least one observation, got none; take some that the policy has met")
    n_actions = as_integer("n_actions", n_actions, 2, "20000 is the default")
    per_observation = [_distances_at(model, observation, n_actions) for observation in observations]
    return {name: float(np.mean([distances[name] for distances in per_observation])) for name in per_observation[0]}


def _distances_at(model: BaseAlgorithm, observation: Any, n_actions: int) -> dict[str, float]:
    temperature, action_dim = boltzmann_temperature(model), get_action_dim(model.action_space)
    assert temperature is not None
    n_bins, points_per_bin = N_BINS[action_dim], POINTS_PER_BIN[action_dim]
    with q_values_at(model, observation) as q_fn:
        fine_masses = boltzmann_masses(q_fn, temperature, action_dim, n_bins * points_per_bin, points_per_bin=1)
    masses = merged_bins(fine_masses, points_per_bin)
    actions, draws = sample_actions(model, observation, n_actions), draws_from_masses(fine_masses, n_actions)
    return {
        "total_variation": total_variation(actions, masses),
        "total_variation_of_exact_draws": total_variation_of_exact_draws(masses, n_actions),
        "mmd": maximum_mean_discrepancy(actions[:N_COMPARED], draws[:N_COMPARED], BANDWIDTH),
        "sliced_w2": sliced_wasserstein_2(actions, draws, th.randn(N_DIRECTIONS, action_dim)),
    }


class ExactPolicy:
    """
    The Boltzmann law of a learned critic as a policy, drawn from by quadrature: what a model would do if it sampled exactly.

    Draws from torch's global generator.

    :param model: for which :func:`can_compare_to_critic` holds
    :raises ValueError: if it aims at no Boltzmann law, or its actions have more than two dimensions
    """

    # Cells per dimension: an action is drawn from one, and uniform inside
    N_CELLS: ClassVar[dict[int, int]] = {1: 1_000, 2: 30}
    MAX_ROWS = 100_000

    def __init__(self, model: Any):
        if not can_compare_to_critic(model):
            raise InputError(f"model must aim at a Boltzmann law of one or two action dimensions, got {type(model).__name__}")
        self.model, self.action_dim = model, get_action_dim(model.action_space)
        n_cells = self.N_CELLS[self.action_dim]
        self.cells = cell_midpoints([n_cells] * self.action_dim).unsqueeze(1)
        self.cell_width = 2 / n_cells

    def get_vec_normalize_env(self) -> Any:
        """As in SB3."""
        return self.model.get_vec_normalize_env()

    def predict(self, observations: Any, deterministic: bool = False) -> tuple[np.ndarray, None]:
        """
        :param observations: (batch, *observation_shape)
        :param deterministic: must be False: a law has no such action
        :return: (batch, *action_shape), exact draws; None
        :raises ValueError: if a deterministic action is asked for
        """
        if deterministic:
            raise InputError("deterministic must be False: exact draws are random")
        policy, temperature = self.model.policy, boltzmann_temperature(self.model)
        assert temperature is not None
        rows, _ = policy.obs_to_tensor(observations)
        chosen = []
        critic = critic_of_policy(self.model)
        with evaluating(critic), th.no_grad():
            n_rows, rows_at_once = len(tree_leaves(rows)[0]), max(1, self.MAX_ROWS // len(self.cells))
            for start in range(0, n_rows, rows_at_once):
                part = tree_map(lambda values, start=start: values[start : start + rows_at_once], rows)
                cells = self.cells.to(policy.device).expand(-1, min(rows_at_once, n_rows - start), -1)
                q_values = smallest_q_fn(critic, part)(cells).double()
                masses = th.softmax((q_values - q_values.amax(dim=0)) / temperature, dim=0)
                chosen.append(th.multinomial(masses.T, 1).squeeze(1).cpu())
        actions = self.cells[th.cat(chosen), 0]
        actions = actions + (th.rand(actions.shape) - 0.5) * self.cell_width
        shape = (-1, *self.model.action_space.shape)
        return policy.unscale_action(actions.numpy().reshape(shape)), None


def critic_of_policy(model: BaseAlgorithm) -> BaseModel:
    """
    :param model: with a critic
    :return: the critic that the policy follows: that of the law, for DQS
    """
    return getattr(model.policy, "law_critic", None) or model.critic  # type: ignore[attr-defined]


@contextmanager
def q_values_at(model: BaseAlgorithm, observation: Any) -> Iterator[QFunction]:
    """
    Inside, the critic that the policy follows can be asked at one observation: the smallest Q of the ensemble, statistics of
    its layers at rest.

    :param model: with a critic
    :param observation: one, not batched, as the policy sees it
    :return: maps actions (n, 1, action_dim) in [-1, 1] to Q values (n, 1); on the CPU
    """
    observations, _ = model.policy.obs_to_tensor(repeated(observation, 1))
    critic = critic_of_policy(model)
    with evaluating(critic), th.no_grad():
        q_fn = smallest_q_fn(critic, observations)
        yield lambda actions: q_fn(actions.to(model.device, th.float32)).cpu()
