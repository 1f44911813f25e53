"""
How far is the few-step sampler from the law it is given? Total variation with the exact denoiser, for grids of noise levels.

    python -m benchmarks.sampler_grids

Nothing is learned here: what is left is the sampler's own error. 50 bins on [-1, 1], 4000 quantiles of start
noise.
"""

import argparse

import numpy as np
import torch as th

from sb3_dqs.diffusion.noise import geometric_sigmas
from sb3_dqs.diffusion.samplers import dpm_solver_pp_2m

ACTIONS = th.linspace(-1, 1, 1_001, dtype=th.float64)

# Log-densities of one action coordinate
LAWS = {
    "uniform": lambda a: 0 * a,
    "Gaussian": lambda a: -((a - 0.2) ** 2) / (2 * 0.3**2),
    "narrow": lambda a: -((a - 0.3) ** 2) / (2 * 0.1**2),
    "linear": lambda a: 3 * a,
    "corner": lambda a: 20 * a,
    "two peaks": lambda a: th.logaddexp(0.85 - (a - 0.5) ** 2 / 0.18, -((a + 0.5) ** 2) / 0.18),
    "sharp peaks": lambda a: 10 * th.logaddexp(-((a - 0.6) ** 2) / 0.18, -((a + 0.6) ** 2) / 0.18),
}


def edm_sigmas(sigma_min: float, sigma_max: float, n_steps: int, rho: float = 7.0) -> list[float]:
    """The grid of the EDM sampler, arXiv:2206.00364, for comparison."""
    return list(np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), n_steps) ** rho)


def total_variation(law: str, sigmas: list[float]) -> float:
    log_density = LAWS[law](ACTIONS)
    trapezoid = th.ones_like(ACTIONS)
    trapezoid[[0, -1]] = 0.5
    bin_edges = np.linspace(-1, 1, 51)

    def denoise(noisy_actions: th.Tensor, sigma: float) -> th.Tensor:
        weights = trapezoid * th.softmax(log_density - (noisy_actions - ACTIONS) ** 2 / (2 * sigma**2), dim=1)
        return (weights @ ACTIONS / weights.sum(dim=1)).unsqueeze(1)

    quantiles = (th.arange(4_000, dtype=th.float64).unsqueeze(1) + 0.5) / 4_000
    sampled = dpm_solver_pp_2m(denoise, sigmas[0] * th.special.ndtri(quantiles), sigmas, recentre=True)
    found = np.histogram(sampled.numpy(), bin_edges)[0] / len(sampled)
    fine = (ACTIONS[1:] + ACTIONS[:-1]) / 2
    exact = np.histogram(fine, bin_edges, weights=th.softmax(LAWS[law](fine), dim=0))[0]
    return float(np.abs(found - exact).sum() / 2)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    grids = {
        "EDM, 3 to 0.02": lambda n: edm_sigmas(0.02, 3.0, n),
        "EDM, 1.5 to 0.02": lambda n: edm_sigmas(0.02, 1.5, n),
        "geometric, 3 to 0.02": lambda n: geometric_sigmas(0.02, 3.0, n),
        "geometric, 1.5 to 0.02": lambda n: geometric_sigmas(0.02, 1.5, n),
    }
    print("| grid | levels |" + "".join(f" {law} |" for law in LAWS) + " mean |")
    print("|---|---|" + "---|" * (len(LAWS) + 1))
    for n_levels in (5, 6, 8):
        for name, grid in grids.items():
            values = [total_variation(law, grid(n_levels)) for law in LAWS]
            print(f"| {name} | {n_levels} |" + "".join(f" {value:.3f} |" for value in [*values, np.mean(values)]))


if __name__ == "__main__":
    main()
