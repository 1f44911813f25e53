"""
How well is a known law sampled? The box setting beside the published one, on three 2-D laws, equally many updates.

    python -m benchmarks.static_targets

Q is given in closed form, the temperature is 1, the network has 2 x 256 units. Maximum mean discrepancy (Gaussian kernel,
bandwidth 0.3) between 4000 sampled actions and exact draws; the last row is the same for two sets of exact draws.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BaseModel
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.utils import update_learning_rate
from torch import nn

from benchmarks.measures import reloaded
from benchmarks.plan import STATIC_TEMPERATURE
from benchmarks.shapes import RandomEnv
from sb3_dqs import DQS, PaperDQS
from sb3_dqs.inspection.evaluation import BANDWIDTH
from sb3_dqs.inspection.metrics import boltzmann_masses, draws_from_masses, maximum_mean_discrepancy
from sb3_dqs.temperature import LogLinearSchedule

LogDensity = Callable[[th.Tensor], th.Tensor]
N_SAMPLES = 4_000
ACTION_DIM = 2

# Settings that mean something where there is nothing but an actor and a law
STATIC_SETTINGS = (
    "n_score_samples",
    "n_diffusion_steps",
    "actor_batch_size",
    "actor_learning_rate_factor",
    "component_kwargs",
)


def four_peaks(actions: th.Tensor) -> th.Tensor:
    """Peaks of standard deviation 0.15 at (+-0.5, +-0.5), of weights 0.4, 0.3, 0.2 and 0.1."""
    centres = th.tensor([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])
    weights = th.tensor([0.4, 0.3, 0.2, 0.1])
    squared_distances = ((actions.unsqueeze(-2) - centres) ** 2).sum(dim=-1)
    return th.logsumexp(weights.log() - squared_distances / (2 * 0.15**2), dim=-1)


def ring(actions: th.Tensor) -> th.Tensor:
    """Ridge of width 0.1 around the origin at radius 0.6."""
    return -((actions.norm(dim=-1) - 0.6) ** 2) / (2 * 0.1**2)


def corner(actions: th.Tensor) -> th.Tensor:
    """Linear: most mass lies in a corner of the box, as where controls saturate."""
    return actions @ th.tensor([6.0, 3.0])


LAWS: dict[str, LogDensity] = {"four peaks": four_peaks, "ring": ring, "corner": corner}


def exact_draws(log_density: LogDensity, n_samples: int) -> th.Tensor:
    """Draws from the law on the box, by its masses on a fine grid."""
    return draws_from_masses(boltzmann_masses(log_density, 1.0, ACTION_DIM, n_bins=1_000, points_per_bin=1), n_samples).float()


class LawCritic(BaseModel):
    """
    A critic that knows Q beforehand: the log-density of a law, whatever the observation.

    :param observation_space: Observation space
    :param action_space: Action space
    :param features_extractor: Network to extract features; not asked
    :param log_density: maps actions (batch, action_dim) to Q values (batch,)
    :param network_settings: of a critic that learns; without effect
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        features_extractor: BaseFeaturesExtractor,
        log_density: LogDensity,
        **network_settings: Any,
    ):
        super().__init__(observation_space, action_space, features_extractor=features_extractor)
        self.log_density = log_density
        # an optimiser wants a parameter
        self.unused = nn.Parameter(th.zeros(()))

    def forward(self, observations: th.Tensor, actions: th.Tensor) -> tuple[th.Tensor]:
        return (self.log_density(actions).unsqueeze(1),)


def model_of_law(
    algorithm: type[OffPolicyAlgorithm], log_density: LogDensity, seed: int, action_dim: int = ACTION_DIM, **settings: Any
) -> DQS:
    """
    :param algorithm: DQS or a subclass
    :param log_density: of the law that stands for Q at temperature 1
    :param seed: of weights and training
    :param action_dim: of the law
    :param settings: of the algorithm, among ``STATIC_SETTINGS``
    :return: an untrained model whose critic is the law
    :raises ValueError: if a setting means nothing here
    """
    if unknown := sorted(set(settings) - set(STATIC_SETTINGS)):
        raise ValueError(
            f"settings of a static target must be among {list(STATIC_SETTINGS)}, got {unknown}; "
            "list the algorithm's environments without static targets"
        )
    assert issubclass(algorithm, DQS)
    policy_kwargs = {"critic_class": LawCritic, "critic_kwargs": {"log_density": log_density}}
    settings = {"temperature": STATIC_TEMPERATURE, "buffer_size": 1, "policy_kwargs": policy_kwargs, **settings}
    return algorithm("MlpPolicy", RandomEnv(1, action_dim), seed=seed, device="cpu", **settings)


def train_on_law(model: DQS, n_updates: int, hottest: float = STATIC_TEMPERATURE) -> None:
    """
    Update the actor alone, whose critic is the law; replay actions are uniform on the box.

    :param model: from :func:`model_of_law`
    :param n_updates: of the actor
    :param hottest: temperature of the first update, which falls over the first half of them
    """
    update_learning_rate(model.actor.optimizer, model.actor_learning_rate_factor * model.lr_schedule(1.0))
    n_rows = model.actor_batch_size
    observations, nothing = th.zeros(n_rows, 1), th.zeros(n_rows, 1)
    cooling = LogLinearSchedule(hottest, STATIC_TEMPERATURE, end_fraction=0.5)
    for update in range(n_updates):
        model.temperature = cooling(1 - update / n_updates)
        actions = 2 * th.rand(n_rows, model.action_dim) - 1
        with th.no_grad():
            # the published algorithm takes no regression points from the policy
            next_actions = actions if isinstance(model, PaperDQS) else model.actor(observations)
        batch = ReplayBufferSamples(observations, actions, observations, dones=nothing, rewards=nothing)
        model._update_actor(batch, observations, next_actions)


def sampled_actions(model: DQS) -> th.Tensor:
    """Single draws of the actor itself, as TD targets take them, (N_SAMPLES, ACTION_DIM)."""
    with th.no_grad():
        return model.actor(th.zeros(N_SAMPLES, 1))


def distance_to_law(model: DQS, log_density: LogDensity) -> float:
    """Maximum mean discrepancy between sampled actions and exact draws."""
    return maximum_mean_discrepancy(sampled_actions(model), exact_draws(log_density, N_SAMPLES), BANDWIDTH)


def parsed_arguments(about: str | None, hottest: float = STATIC_TEMPERATURE) -> argparse.Namespace:
    """
    The command line of a script that trains on known laws, which takes one thread.

    :param about: its docstring
    :return: ``updates`` of the actor, ``seed``, and ``hottest``, the temperature to start from
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--hottest", type=float, default=hottest)
    th.set_num_threads(1)
    return parser.parse_args()


def main() -> None:
    arguments = parsed_arguments(__doc__)
    distances: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, str] = {}
    for law, log_density in LAWS.items():
        box = model_of_law(DQS, log_density, arguments.seed)
        train_on_law(box, arguments.updates, arguments.hottest)
        paper = model_of_law(PaperDQS, log_density, arguments.seed)
        train_on_law(paper, arguments.updates, arguments.hottest)
        clipped = reloaded(paper, component_kwargs={"diffusion": {"squash": "clip"}})
        models = {"DQS": box, "PaperDQS": paper, "PaperDQS, actions clipped instead of tanh": clipped}
        for name, model in models.items():
            distances[name].append(distance_to_law(model, log_density))
            costs[name] = f"{model.actor_batch_size * model.n_score_samples} | {model.n_diffusion_steps}"

        first, second = exact_draws(log_density, N_SAMPLES), exact_draws(log_density, N_SAMPLES)
        distances["two sets of exact draws"].append(maximum_mean_discrepancy(first, second, BANDWIDTH))
        print(f"{law} done", file=sys.stderr, flush=True)

    print(f"{arguments.updates} updates, seed {arguments.seed}\n")
    print("| setting | critic evaluations per update | network passes per draw | " + " | ".join(LAWS) + " |")
    print("|---|---|---|" + "---|" * len(LAWS))
    for name, values in distances.items():
        cells = " | ".join(f"{value:.3f}" for value in values)
        print(f"| {name} | {costs.get(name, ' | ')} | {cells} |")


if __name__ == "__main__":
    main()
