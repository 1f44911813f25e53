"""
How well is a known law sampled? The box setting beside the published one, on three 2-D laws, equally many updates.

    python -m benchmarks.static_targets

Q is given in closed form, the temperature is 1, the network has 2 x 256 units. Maximum mean discrepancy (Gaussian kernel,
bandwidth 0.3) between 4000 sampled actions and exact draws; the last row is the same for two sets of exact draws.
"""

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable

import torch as th
from torch import nn

from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.diffusion.paper import PaperDiffusion
from sb3_dqs.evaluation import BANDWIDTH
from sb3_dqs.metrics import boltzmann_masses, draws_from_masses, maximum_mean_discrepancy

LogDensity = Callable[[th.Tensor], th.Tensor]
N_SAMPLES = 4_000
LEARNING_RATE = 3e-4  # SAC's
ACTION_DIM = 2


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


def trained(diffusion: BoxDiffusion | PaperDiffusion, log_density: LogDensity, n_updates: int, n_rows: int) -> None:
    """Train on the law with this many rows per update; replay actions are uniform on the box."""
    n_on_policy = math.ceil(diffusion.ON_POLICY_SHARE * n_rows)
    optimizer = th.optim.Adam(diffusion.parameters(), lr=LEARNING_RATE * diffusion.DEFAULT_LEARNING_RATE_FACTOR)
    features = th.zeros(n_rows, 1)
    for _ in range(n_updates):
        with th.no_grad():
            on_policy = diffusion.sample_actions(features[:n_on_policy], th.randn(n_on_policy, ACTION_DIM))
        actions = th.cat([on_policy, 2 * th.rand(n_rows - n_on_policy, ACTION_DIM) - 1])
        loss = diffusion.regress(features, actions, n_on_policy, log_density, th.tensor(1.0)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def rows_per_update(diffusion: BoxDiffusion | PaperDiffusion) -> int:
    """Regression points per update, at SAC's batch of 256."""
    return diffusion.DEFAULT_BATCH_SIZE or 256


def sampled_actions(diffusion: BoxDiffusion | PaperDiffusion) -> th.Tensor:
    """Samples of the trained diffusion, (N_SAMPLES, ACTION_DIM)."""
    with th.no_grad():
        return diffusion.sample_actions(th.zeros(N_SAMPLES, 1), th.randn(N_SAMPLES, ACTION_DIM))


def distance_to_law(diffusion: BoxDiffusion | PaperDiffusion, log_density: LogDensity) -> float:
    """Maximum mean discrepancy between sampled actions and exact draws."""
    return maximum_mean_discrepancy(sampled_actions(diffusion), exact_draws(log_density, N_SAMPLES), BANDWIDTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1_500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    th.set_num_threads(1)

    distances: dict[str, list[float]] = defaultdict(list)
    costs: dict[str, str] = {}
    for law, log_density in LAWS.items():
        th.manual_seed(arguments.seed)
        box = BoxDiffusion(1, ACTION_DIM, [256, 256], nn.ReLU)
        trained(box, log_density, arguments.updates, rows_per_update(box))
        distances["box"].append(distance_to_law(box, log_density))
        costs["box"] = f"{rows_per_update(box) * box.n_score_samples} | {len(box.sigmas)}"

        th.manual_seed(arguments.seed)
        paper = PaperDiffusion(1, ACTION_DIM, [256, 256], nn.ReLU)
        trained(paper, log_density, arguments.updates, rows_per_update(paper))
        for squash in ("tanh", "clip"):
            paper.squash = squash
            name = "paper" if squash == "tanh" else "paper, actions clipped instead of tanh"
            distances[name].append(distance_to_law(paper, log_density))
            costs[name] = f"{rows_per_update(paper) * paper.n_score_samples} | {paper.n_diffusion_steps}"

        first, second = exact_draws(log_density, N_SAMPLES), exact_draws(log_density, N_SAMPLES)
        distances["two sets of exact draws"].append(maximum_mean_discrepancy(first, second, BANDWIDTH))
        print(f"{law} done", file=sys.stderr, flush=True)

    print(f"{arguments.updates} updates, seed {arguments.seed}\n")
    print("| setting | critic evaluations per update | network passes per action | " + " | ".join(LAWS) + " |")
    print("|---|---|---|" + "---|" * len(LAWS))
    for name, values in distances.items():
        cells = " | ".join(f"{value:.3f}" for value in values)
        print(f"| {name} | {costs.get(name, ' | ')} | {cells} |")


if __name__ == "__main__":
    main()
