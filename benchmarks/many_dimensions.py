"""
How well are known laws sampled in one, six and seventeen dimensions, by each step of an action and by further correctors?

    python -m benchmarks.many_dimensions

Q is given in closed form, the actor has 2 x 256 units and default settings, and the temperature falls to 1 over the first half
of the updates, from so high that the law is nearly uniform, as in training (``--hottest 1`` starts cold). Of 4000 samples:
sliced 2-Wasserstein distance to as many exact draws (100 directions), mean log-density minus that of the exact draws, and, of
the two peaks, the weight of the larger one (0.7). Correctors move what was chosen among as many draws as by default. A
gradient of the critic is counted as three evaluations. The last row of a law compares two sets of exact draws.
"""

import math
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch as th

from benchmarks.static_targets import N_SAMPLES, LogDensity, model_of_law, parsed_arguments, train_on_law
from sb3_dqs import DQS
from sb3_dqs.critics import smallest_q_fn
from sb3_dqs.diffusion.choice import choose_by_law
from sb3_dqs.diffusion.corrector import Corrector
from sb3_dqs.inspection.metrics import boltzmann_masses, draws_from_masses, sliced_wasserstein_2

DIMENSIONS = (1, 6, 17)
HOTTEST = 100.0
N_DIRECTIONS = 100

# Among how many draws a sample is chosen, without a corrector
CHOICES = (8, 32)

# Proposals per round, noise levels of the rounds, share of the proposals that is guided uphill; the first is the default's
CORRECTORS = (
    (8, (0.3,), 0.0),
    (8, (0.3,), 0.5),
    (8, (0.1,), 0.0),
    (8, (0.3, 0.1), 0.0),
    (8, (0.3, 0.1), 0.5),
    (32, (0.3, 0.1), 0.0),
    (8, (0.3, 0.1) * 5, 0.0),
    (8, (0.3, 0.1) * 5, 0.5),
)

PEAK, PEAK_STD, SLOPE = 0.4, 0.15, 3.0
LARGER_WEIGHT = 0.7


class Law(NamedTuple):
    """
    :param log_density: maps actions (n, action_dim) to (n,)
    :param draw: number of samples and action_dim -> exact draws, (n, action_dim)
    :param least_dimension: that it needs
    """

    log_density: LogDensity
    draw: Callable[[int, int], th.Tensor]
    least_dimension: int = 1


def two_peaks(actions: th.Tensor) -> th.Tensor:
    """Peaks of standard deviation 0.15 at 0.4 and -0.4 in every coordinate, of weights 0.7 and 0.3."""
    right, left = (-((actions - sign * PEAK) ** 2).sum(dim=-1) / (2 * PEAK_STD**2) for sign in (1, -1))
    return th.logaddexp(right + math.log(LARGER_WEIGHT), left + math.log(1 - LARGER_WEIGHT))


def draw_two_peaks(n_samples: int, action_dim: int) -> th.Tensor:
    signs = th.where(th.rand(n_samples, 1) < LARGER_WEIGHT, 1.0, -1.0)
    draws = th.randn(n_samples, action_dim)
    # the walls are four standard deviations away: draw again what lies beyond
    while (outside := draws > (1 - PEAK) / PEAK_STD).any():
        draws[outside] = th.randn(int(outside.sum()))
    return signs * (PEAK + PEAK_STD * draws).clamp(min=-1)


def linear(actions: th.Tensor) -> th.Tensor:
    """Slope 3 along every coordinate."""
    return SLOPE * actions.sum(dim=-1)


def draw_linear(n_samples: int, action_dim: int) -> th.Tensor:
    uniforms = th.rand(n_samples, action_dim)
    return th.log(math.exp(-SLOPE) + uniforms * 2 * math.sinh(SLOPE)) / SLOPE


def bent(pairs: th.Tensor) -> th.Tensor:
    """A ridge along a parabola, (..., 2) to (...)."""
    along, across = pairs.unbind(dim=-1)
    return -(along**2) / (2 * 0.5**2) - (across - along**2 + 0.3) ** 2 / (2 * 0.1**2)


def bananas(actions: th.Tensor) -> th.Tensor:
    """Each two coordinates lie along a parabola; a last one without partner is uniform."""
    pairs = actions[..., : actions.shape[-1] // 2 * 2].unflatten(-1, (-1, 2))
    return bent(pairs).sum(dim=-1)


def draw_bananas(n_samples: int, action_dim: int) -> th.Tensor:
    n_pairs, rest = divmod(action_dim, 2)
    draws = draws_from_masses(boltzmann_masses(bent, 1.0, 2, n_bins=1_000, points_per_bin=1), n_samples * n_pairs).float()
    return th.cat([draws.reshape(n_samples, 2 * n_pairs), 2 * th.rand(n_samples, rest) - 1], dim=1)


LAWS = {
    "two peaks": Law(two_peaks, draw_two_peaks),
    "linear": Law(linear, draw_linear),
    "bananas": Law(bananas, draw_bananas, least_dimension=2),
}


def weight_of_the_larger_peak(actions: th.Tensor) -> float:
    """Share of the actions that are nearer to the right peak."""
    return (actions.sum(dim=1) > 0).double().mean().item()


def measures(actions: th.Tensor, draws: th.Tensor, law: str) -> str:
    """A row's cells."""
    log_density = LAWS[law].log_density
    distance = sliced_wasserstein_2(actions, draws, th.randn(N_DIRECTIONS, actions.shape[1]))
    gap = (log_density(actions).mean() - log_density(draws).mean()).item()
    weight = f"{weight_of_the_larger_peak(actions):.3f}" if law == "two peaks" else ""
    return f"{distance:.3f} | {gap:+.2f} | {weight}"


def samples_by_way(model: DQS) -> Iterator[tuple[str, int, th.Tensor]]:
    """
    :param model: trained on a law
    :return: of each way to sample: its name, evaluations of the critic per action, and actions
    """
    policy, actor, observations = model.policy, model.policy.deployed_actor, th.zeros(N_SAMPLES, 1)
    q_fn = smallest_q_fn(policy.law_critic, observations)
    samples = actor.sample_actions(actor.conditions(observations), th.randn(N_SAMPLES, model.action_dim))
    yield "diffusion, as in training", 0, samples
    yield "single draw", 0, actor(observations)

    def chosen(n_candidates: int) -> th.Tensor:
        uniforms = th.rand(N_SAMPLES)
        return choose_by_law(actor.candidates(observations, n_candidates), q_fn, policy.temperature, uniforms)

    for n_candidates in CHOICES:
        yield f"chosen among {n_candidates}", n_candidates, chosen(n_candidates)
    for n_proposals, sigmas, guided_share in CORRECTORS:
        corrector = Corrector(n_proposals, sigmas, guided_share)
        rounds = ", ".join(map(str, sigmas)) if len(sigmas) < 5 else f"{len(sigmas)} rounds of {sigmas[0]}, {sigmas[1]}"
        guided = f", {corrector.n_guided} of them uphill" if corrector.n_guided else ""
        cost = model.n_action_candidates + len(sigmas) * (1 + n_proposals + (3 if corrector.n_guided else 0))
        corrected = corrector(q_fn, chosen(model.n_action_candidates), policy.temperature)
        yield f"then {n_proposals} proposals{guided}, {rounds}", cost, corrected


def main() -> None:
    arguments = parsed_arguments(__doc__, HOTTEST)
    print(f"{arguments.updates} updates of the actor, first temperature {arguments.hottest:g}, seed {arguments.seed}\n")
    print("| law | dimensions | samples | critic evaluations per action | sliced W2 | log-density | larger peak |")
    print("|---|---|---|---|---|---|---|")
    for name, law in LAWS.items():
        for action_dim in (d for d in DIMENSIONS if d >= law.least_dimension):
            model = model_of_law(DQS, law.log_density, arguments.seed, action_dim)
            train_on_law(model, arguments.updates, arguments.hottest)
            model.policy.set_training_mode(False)
            draws = law.draw(N_SAMPLES, action_dim)
            with th.no_grad():
                for way, cost, actions in samples_by_way(model):
                    print(f"| {name} | {action_dim} | {way} | {cost} | {measures(actions, draws, name)} |", flush=True)
            print(f"| {name} | {action_dim} | exact draws | | {measures(law.draw(N_SAMPLES, action_dim), draws, name)} |")
            print(f"{name}, {action_dim} dimensions done", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
