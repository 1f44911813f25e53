"""How multimodal is a trained policy? Measures beside the return, chosen by what the environment knows about its answers."""

import io
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.envs import BanditEnv, GaussianMixtureEnv, MultiGoalEnv
from sb3_dqs.inspection.evaluation import (
    BANDWIDTH,
    N_BINS,
    N_DIRECTIONS,
    Episode,
    ExactPolicy,
    can_compare_to_critic,
    distances_to_critic,
    goals_of,
    roll_out,
    sample_actions,
)
from sb3_dqs.inspection.metrics import (
    boltzmann_masses,
    maximum_mean_discrepancy,
    mode_masses,
    mode_shares,
    sliced_wasserstein_2,
    total_variation,
)

CONTEXTS = (-0.8, -0.4, 0.0, 0.4, 0.8)
N_ACTIONS = 20_000
N_DRAWS = 2_000

# Bandwidth of the MMD's kernel between positions, in units of the mixture's standard deviation
POSITION_BANDWIDTH = 5.0
N_MIXTURE_EPISODES = 500

N_CENTRE_EPISODES = 100

# After the goal that the policy prefers is closed: numbers of tries from each start
TRIES = (1, 3, 10)

# Observations, met in evaluation, at which sampled actions are compared with the exact law of the learned critic
N_OBSERVATIONS = 10

# Numbers of candidates of DQS's deterministic action that are compared
N_CANDIDATES = (1, 8, 32)

# Shares of the temperature that DQS was trained at, which its sampled actions are compared at
TEMPERATURE_SHARES = (0.5, 0.25, 0.125, 0.0625)


def final_measures(model: BaseAlgorithm, env: gym.Env, episodes: Sequence[Episode], seed: int) -> dict[str, float]:
    """
    Measures of the trained policy.

    :param model: trained
    :param env: one environment of its kind
    :param episodes: of the stochastic policy; their observations are used
    :param seed: of roll-outs and reference draws
    :return: name -> value
    """
    measures: dict[str, float] = {}
    if isinstance(env.unwrapped, BanditEnv):
        measures |= bandit_measures(model, env.unwrapped, seed)
    if isinstance(env.unwrapped, GaussianMixtureEnv):
        measures |= mixture_measures(model, env, seed)
    if isinstance(env.unwrapped, MultiGoalEnv):
        measures |= measures_from_the_centre(model, env, seed)
        measures |= closed_goal_measures(model, env, len(episodes), seed)
        measures |= goal_law_measures(model, env, len(episodes), seed)
    return measures | critic_law_measures(model, episodes)


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
                "mmd": maximum_mean_discrepancy(actions[:N_DRAWS], draws[:N_DRAWS], BANDWIDTH),
                "sliced_w2": sliced_wasserstein_2(actions, draws, directions),
            }
        )
    measures = {name: float(np.mean([values[name] for values in per_context])) for name in per_context[0]}
    measures["largest_peak_error"] = max(values["largest_peak_error"] for values in per_context)
    return measures


def measures_from_the_centre(model: BaseAlgorithm, env: gym.Env, seed: int) -> dict[str, float]:
    """Goals reached from exactly the same start: a policy that picks its goal by the noise of the start reaches one."""
    assert env.spec is not None
    envs = [gym.make(env.spec) for _ in range(N_CENTRE_EPISODES)]
    goals = goals_of(roll_out(model, envs, seed, deterministic=False, options={"start": (0.0, 0.0)}), envs[0])
    assert goals is not None
    return {"success, exact centre": goals.success, "goal entropy, exact centre": goals.goal_entropy}


def favourite_goal(episodes: Sequence[Episode], env: gym.Env) -> int:
    """
    :param episodes: in an arena with goals
    :param env: one of its kind
    :return: number of the goal that is reached most
    """
    reached = [episode.info["goal"] for episode in episodes if episode.info["goal"] >= 0]
    return int(np.bincount(reached, minlength=len(env.unwrapped.arena.goals)).argmax())  # type: ignore[attr-defined]


def recovery_measures(records: Sequence[dict[str, Any]], at: int, recovered_at: float) -> dict[str, float]:
    """
    After the goal that the policy preferred was moved: how soon its sampled episodes return as much as they could.

    :param records: of all evaluations
    :param at: step of the move
    :param recovered_at: mean return of sampled episodes from which on it has recovered
    :return: steps from the move to the first evaluation there, the whole rest of the run if there is none, and whether there
        is one; returns at the move and mean of those after it
    """
    returns = {record["steps"]: float(np.mean(record["stochastic"])) for record in records}
    after = {step: value for step, value in returns.items() if step > at}
    recovered = [step for step, value in after.items() if value >= recovered_at]
    return {
        "steps to recover": float((recovered[0] if recovered else max(after)) - at),
        "recovered": float(bool(recovered)),
        "stochastic return at the move": returns[at],
        "stochastic return after the move, mean": float(np.mean(list(after.values()))),
    }


def closed_goal_measures(model: BaseAlgorithm, env: gym.Env, n_starts: int, seed: int) -> dict[str, float]:
    """How often one of several tries succeeds, without any learning, after the goal that the policy reaches most is closed."""
    assert env.spec is not None
    envs = [gym.make(env.spec) for _ in range(n_starts)]
    favourite = favourite_goal(roll_out(model, envs, seed, deterministic=False), env)
    # the same starts in each try
    tries = [
        [e.info["is_success"] for e in roll_out(model, envs, seed, deterministic=False, options={"closed": [favourite]})]
        for _ in range(max(TRIES))
    ]
    return {f"success within {k}, favourite closed": float(np.any(tries[:k], axis=0).mean()) for k in TRIES}


def goal_law_measures(model: BaseAlgorithm, env: gym.Env, n_episodes: int, seed: int) -> dict[str, float]:
    """
    Total variation between the goals that the policy reaches and those that exact draws from its critic's law reach, from the
    same starts; that between two sets of as many exact draws, from the same starts as well; and the shares of the goals by the
    law, without the failures.
    """
    if not can_compare_to_critic(model):
        return {}
    assert env.spec is not None
    envs = [gym.make(env.spec) for _ in range(n_episodes)]
    n_goals = len(env.unwrapped.arena.goals)  # type: ignore[attr-defined]

    def shares(policy: "BaseAlgorithm | ExactPolicy") -> np.ndarray:
        # the first outcome is no goal
        outcomes = [1 + episode.info["goal"] for episode in roll_out(policy, envs, seed, deterministic=False)]
        return np.bincount(outcomes, minlength=1 + n_goals) / len(outcomes)

    by_policy, by_law, again = shares(model), shares(ExactPolicy(model)), shares(ExactPolicy(model))
    return {
        "goals, total variation to the law": float(np.abs(by_policy - by_law).sum() / 2),
        "goals, total variation of exact draws from the same starts": float(np.abs(again - by_law).sum() / 2),
        **{f"goal {goal}, share by the law": float(share) for goal, share in enumerate(by_law[1:])},
    }


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
    """Distances between sampled actions and the Boltzmann law of the learned critic, at observations met; DQS and SAC."""
    if not can_compare_to_critic(model):
        return {}
    met = np.concatenate([episode.observations[:-1] for episode in episodes])
    chosen = met[np.linspace(0, len(met) - 1, N_OBSERVATIONS).astype(int)]
    return {f"{name}_to_critic": value for name, value in distances_to_critic(model, chosen).items()}


def returns_by_candidates(model: BaseAlgorithm, envs: Sequence[gym.Env], seed: int) -> dict[str, float]:
    """Mean deterministic return of DQS with other numbers of candidates; nothing for algorithms that have no such setting."""
    if not isinstance(model, DQS) or isinstance(model, PaperDQS):
        return {}
    returns = {}
    for n_candidates in N_CANDIDATES:
        episodes = roll_out(reloaded(model, n_action_candidates=n_candidates), envs, seed, deterministic=True)
        candidates = "1 candidate" if n_candidates == 1 else f"best of {n_candidates}"
        returns[f"return, {candidates}"] = float(np.mean([episode.total_reward for episode in episodes]))
    return returns


def goals_by_temperature(model: BaseAlgorithm, env: gym.Env, n_episodes: int, seed: int) -> dict[str, float]:
    """
    What a policy that was trained at one temperature does at lower ones: mean return of its sampled episodes, entropy of the
    goals from the exact centre, success after its favourite goal is closed. Nothing where there are no goals, or the algorithm
    has no such temperature.
    """
    if not isinstance(env.unwrapped, MultiGoalEnv) or not isinstance(model, DQS) or isinstance(model, PaperDQS):
        return {}
    assert env.spec is not None
    envs = [gym.make(env.spec) for _ in range(n_episodes)]
    measures: dict[str, float] = {}
    for share in TEMPERATURE_SHARES:
        cooled = reloaded(model)
        # not as a setting: the model may hold others that are of its own kind of temperature alone
        cooled.policy.follow_temperature(share * model.thermostat.value)
        episodes = roll_out(cooled, envs, seed, deterministic=False)
        found = {"return of sampled actions": float(np.mean([episode.total_reward for episode in episodes]))}
        found |= measures_from_the_centre(cooled, env, seed) | closed_goal_measures(cooled, env, n_episodes, seed)
        measures |= {f"{name}, at {share} of the temperature": value for name, value in found.items()}
    return measures


def reloaded(model: DQS, **settings: Any) -> DQS:
    """
    :param model: to copy, as saving and loading does it
    :param settings: that the copy has otherwise
    :return: a copy for prediction, without transitions
    """
    saved = io.BytesIO()
    model.save(saved)
    saved.seek(0)
    return type(model).load(saved, device=model.device, buffer_size=1, **settings)
