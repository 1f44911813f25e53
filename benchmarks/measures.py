"""How multimodal is a trained policy? Measures beside the return, chosen by what the environment knows about its answers."""

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ContinuousCritic

from sb3_dqs import DQS
from sb3_dqs.envs import BanditEnv, GaussianMixtureEnv
from sb3_dqs.evaluation import Episode, roll_out
from sb3_dqs.metrics import (
    boltzmann_masses,
    goal_statistics,
    maximum_mean_discrepancy,
    mode_masses,
    mode_shares,
    sliced_wasserstein_2,
    total_variation,
)
from sb3_dqs.policies import fixed_start_noise, min_q_fn

CONTEXTS = (-0.8, -0.4, 0.0, 0.4, 0.8)
N_ACTIONS = 20_000
N_DRAWS = 2_000
N_DIRECTIONS = 100
# Bins per dimension: histograms of 20000 exact draws then lie about 0.02 (1-D) and 0.04 (2-D) away from a broad law
N_BINS = {1: 50, 2: 20}

# Bandwidths of the MMD's kernel, in units of the box's half width and of the mixture's standard deviation
ACTION_BANDWIDTH = 0.3
POSITION_BANDWIDTH = 5.0
N_MIXTURE_EPISODES = 500

# Observations, met in evaluation, at which sampled actions are compared with the exact law of the learned critic
N_OBSERVATIONS = 10


def goals_of(episodes: Sequence[Episode], env: gym.Env) -> dict[str, Any] | None:
    """Success, goals reached and their normalised entropy, where the environment has goals."""
    if "goal" not in episodes[0].info:
        return None
    statistics = goal_statistics([episode.info["goal"] for episode in episodes], len(env.unwrapped.arena.goals))  # type: ignore[attr-defined]
    return {
        "success": statistics.success,
        "goals_reached": statistics.goals_reached,
        "goal_entropy": statistics.entropy,
        "goal_counts": statistics.counts,
    }


def final_measures(
    model: BaseAlgorithm, env: gym.Env, episodes: Sequence[Episode], deterministic_forms: bool, seed: int
) -> dict[str, float]:
    """
    Measures of the trained policy.

    :param model: trained
    :param env: one environment of its kind
    :param episodes: of the stochastic policy; their observations are used
    :param deterministic_forms: whether to compare the forms of DQS's deterministic action
    :param seed: of roll-outs and reference draws
    :return: name -> value
    """
    measures: dict[str, float] = {}
    if isinstance(env.unwrapped, BanditEnv):
        measures |= bandit_measures(model, env.unwrapped, seed)
    if isinstance(env.unwrapped, GaussianMixtureEnv):
        measures |= mixture_measures(model, env, seed)
    measures |= critic_law_measures(model, episodes)
    if deterministic_forms and isinstance(model, DQS):
        measures |= returns_of_deterministic_forms(model, env, len(episodes), seed)
    return measures


def sample_actions(model: BaseAlgorithm, observation: np.ndarray, n_samples: int) -> th.Tensor:
    """
    :return: (n_samples, action_dim), actions of the stochastic policy at one observation, on [-1, 1]
    """
    actions, _ = model.predict(np.repeat(np.asarray(observation)[None], n_samples, axis=0))
    return th.as_tensor(model.policy.scale_action(actions))


def bandit_measures(model: BaseAlgorithm, env: BanditEnv, seed: int) -> dict[str, float]:
    """Distances between sampled actions and the bandit's law, mean over contexts; for the peaks, the worst of all."""
    rng = np.random.default_rng(seed)
    directions = th.as_tensor(rng.standard_normal((N_DIRECTIONS, env.action_dim)))
    radius = 2 * env.landscape.width
    per_context = []
    for context in CONTEXTS:
        actions = sample_actions(model, np.array([context], np.float32), N_ACTIONS).double()
        draws = th.as_tensor(env.draw(N_ACTIONS, context, rng))

        def log_law(points: th.Tensor, context: float = context) -> th.Tensor:
            return th.as_tensor(np.log(env.density(points.numpy(), context)))

        masses = boltzmann_masses(log_law, 1.0, env.action_dim, N_BINS[env.action_dim])
        fine_masses = boltzmann_masses(log_law, 1.0, env.action_dim, 400, 1)
        centres = th.as_tensor(env.centres(context))
        peak_errors = mode_shares(actions, centres, radius) - mode_masses(fine_masses, centres, radius)
        per_context.append(
            {
                "total_variation": total_variation(actions, masses),
                "total_variation_of_exact_draws": total_variation(draws, masses),
                "largest_peak_error": peak_errors.abs().max().item(),
                "mmd": maximum_mean_discrepancy(actions[:N_DRAWS], draws[:N_DRAWS], ACTION_BANDWIDTH),
                "sliced_w2": sliced_wasserstein_2(actions, draws, directions),
            }
        )
    measures = {name: float(np.mean([values[name] for values in per_context])) for name in per_context[0]}
    measures["largest_peak_error"] = max(values["largest_peak_error"] for values in per_context)
    return measures


def mixture_measures(model: BaseAlgorithm, env: gym.Env, seed: int) -> dict[str, float]:
    """Modes of the mixture that the last positions of the episodes, and the episodes on their way, recover; their MMD."""
    mixture = env.unwrapped
    assert isinstance(mixture, GaussianMixtureEnv)
    assert env.spec is not None
    episodes = roll_out(model, [gym.make(env.spec) for _ in range(N_MIXTURE_EPISODES)], seed, deterministic=False)
    last_positions = th.as_tensor(np.stack([episode.observations[-1] for episode in episodes])).double()
    positions = th.as_tensor(np.concatenate([episode.observations for episode in episodes])).double()
    means = th.as_tensor(mixture.means)
    draws = th.as_tensor(mixture.draw(N_DRAWS, np.random.default_rng(seed)))
    shares = mode_shares(last_positions, means, mixture.MODE_RADIUS)
    return {
        "modes_at_the_end": int((shares > 0).sum()),
        "modes_on_the_way": int((mode_shares(positions, means, mixture.MODE_RADIUS) > 0).sum()),
        "share_at_a_mode": shares.sum().item(),
        "mmd": maximum_mean_discrepancy(last_positions, draws, POSITION_BANDWIDTH),
    }


def critic_law_measures(model: BaseAlgorithm, episodes: Sequence[Episode]) -> dict[str, float]:
    """
    Total variation between sampled actions and the Boltzmann law of the learned critic, by quadrature, at observations met.

    For DQS at its temperature, and for SAC, whose Gaussian aims at the same law, at its entropy coefficient.
    """
    temperature = boltzmann_temperature(model)
    if temperature is None or model.action_space.shape[0] not in N_BINS:  # type: ignore[index]
        return {}
    met = np.concatenate([episode.observations[:-1] for episode in episodes])
    chosen = met[np.linspace(0, len(met) - 1, N_OBSERVATIONS).astype(int)]
    distances = [total_variation_to_critic(model, observation, temperature) for observation in chosen]
    return {"total_variation_to_critic": float(np.mean(distances))}


def boltzmann_temperature(model: BaseAlgorithm) -> float | None:
    """
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


def total_variation_to_critic(model: BaseAlgorithm, observation: np.ndarray, temperature: float) -> float:
    """
    :param model: with a ``ContinuousCritic``
    :param observation: one, not batched
    :param temperature: > 0, in units of Q
    :return: in [0, 1]
    """
    observations, _ = model.policy.obs_to_tensor(observation[None])
    action_dim = model.action_space.shape[0]  # type: ignore[index]
    q_fn = min_q_fn(model.critic, observations)  # type: ignore[attr-defined]
    masses = boltzmann_masses(
        lambda actions: q_fn(actions.to(model.device)).cpu(), temperature, action_dim, N_BINS[action_dim]
    )
    return total_variation(sample_actions(model, observation, N_ACTIONS), masses)


def returns_of_deterministic_forms(model: DQS, env: gym.Env, n_episodes: int, seed: int) -> dict[str, float]:
    """Mean return of each way to make DQS's prediction deterministic."""
    assert env.spec is not None
    envs = [gym.make(env.spec) for _ in range(n_episodes)]
    returns = {}
    for name in each_deterministic_form(model):
        episodes = roll_out(model, envs, seed, deterministic=True)
        returns[f"return, {name}"] = float(np.mean([episode.total_reward for episode in episodes]))
    return returns


def each_deterministic_form(model: DQS) -> Iterator[str]:
    """Name after name of the ways to make DQS's prediction deterministic; meanwhile the model predicts in that way."""
    actor = model.actor
    configured = (actor.n_action_candidates, actor.start_noise)
    draws = fixed_start_noise(33, model.action_dim).to(model.device)
    forms = {"zero noise": draws[:1], "fixed noise": draws[1:2], "best of 8": draws[:8], "best of 32": draws[:32]}
    try:
        for name, start_noise in forms.items():
            actor.n_action_candidates, actor.start_noise = len(start_noise), start_noise
            yield name
    finally:
        actor.n_action_candidates, actor.start_noise = configured
