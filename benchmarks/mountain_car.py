"""
How long should the start noise stay correlated? The share of simulated mountain cars that meet the goal while it fades.

    python -m benchmarks.mountain_car

Nothing is learned here: until the goal is met, MountainCarContinuous-v0 rewards nothing but small actions, -0.1 a^2, so the
policy is a normal law truncated to [-1, 1]. Its entropy is the target of the automatic temperature; one update per step, from
the first step on.
"""

import argparse
import functools
import math
from collections.abc import Callable
from typing import Any

import torch as th

from sb3_dqs import DQS
from sb3_dqs.diffusion.proposals import TruncatedNormal
from sb3_dqs.exploration import CorrelatedNoise
from sb3_dqs.signatures import default_of
from sb3_dqs.temperature import UNIFORM_ENTROPY, AutomaticTemperature, cooled_share

CORRELATION_TIME: float = default_of(DQS, "exploration_correlation_time")
COOLING_UPDATES: int = default_of(DQS, "cooling_updates")

# Of the run whose first episodes are simulated
STEPS_IN_RUN = 50_000

N_CARS = 2_000
EPISODE_STEPS = 999
N_EPISODES = 6
CORRELATION_TIMES = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
ACTIONS = th.linspace(-1, 1, 1_001, dtype=th.float64)


def entropy(sigma: float) -> float:
    """Nats, of N(0, sigma^2) truncated to [-1, 1], by quadrature."""
    log_weights = -ACTIONS.square() / (2 * sigma**2)
    density = th.exp(log_weights) / th.trapezoid(th.exp(log_weights), ACTIONS)
    return -float(th.trapezoid(th.xlogy(density, density), ACTIONS))


@functools.cache
def sigma_of_entropy(nats: float) -> float:
    low, high = math.log(0.01), math.log(100.0)
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if entropy(math.exp(middle)) < nats else (low, middle)
    return math.exp(low)


class MountainCars:
    """The dynamics of MountainCarContinuous-v0, many at once."""

    def __init__(self, n_cars: int):
        self.position = th.empty(n_cars).uniform_(-0.6, -0.4)
        self.velocity = th.zeros(n_cars)

    def step(self, force: th.Tensor) -> None:
        self.velocity = (self.velocity + 0.0015 * force - 0.0025 * th.cos(3 * self.position)).clamp(-0.07, 0.07)
        self.position = (self.position + self.velocity).clamp(-1.2, 0.6)
        self.velocity[(self.position == -1.2) & (self.velocity < 0)] = 0.0

    @property
    def at_goal(self) -> th.Tensor:
        return (self.position >= 0.45) & (self.velocity >= 0)


def shares_at_goal(
    correlation_time: float, persistent_share: Callable[[float], float], cooling_updates: int = COOLING_UPDATES
) -> list[float]:
    """
    After each episode, the share of cars that met the goal in it or in one before.

    :param correlation_time: of the persistent part of the noise, steps
    :param persistent_share: of the noise, given the share of the cooling that is done
    :param cooling_updates: number of updates that the cooling takes
    """
    has_met = th.zeros(N_CARS, dtype=th.bool)
    thermostat = AutomaticTemperature(1, "auto", (-math.inf, UNIFORM_ENTROPY))
    shares = []
    for episode in range(N_EPISODES):
        cars, noise = MountainCars(N_CARS), CorrelatedNoise(N_CARS, 1, correlation_time=correlation_time)
        for step in range(episode * EPISODE_STEPS, (episode + 1) * EPISODE_STEPS):
            cooled = cooled_share(step, cooling_updates, step, STEPS_IN_RUN)
            thermostat.start_update(cooled)
            sigma = th.full((N_CARS, 1), sigma_of_entropy(round(thermostat.target.item(), 3)))
            uniforms = th.special.ndtr(noise.step(persistent_share(cooled)))
            cars.step(TruncatedNormal(th.zeros(N_CARS, 1), sigma).sample(uniforms[None])[0, :, 0])
            has_met |= cars.at_goal
        shares.append(float(has_met.float().mean()))
    return shares


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    print("| noise |" + "".join(f" episode {n} |" for n in range(1, N_EPISODES + 1)))
    print("|---|" + "---|" * N_EPISODES)

    def report(name: str, *settings: Any) -> None:
        th.manual_seed(0)
        print(f"| {name} |" + "".join(f" {share:.2f} |" for share in shares_at_goal(*settings)), flush=True)

    report("white", CORRELATION_TIME, lambda cooled: 0.0)
    for time in CORRELATION_TIMES:
        report(f"correlation time {time:g}, fading", time, lambda cooled: 1.0 - cooled)
    for cooling_updates in (10_000, 20_000):
        report(f"the default, cooling over {cooling_updates}", CORRELATION_TIME, lambda cooled: 1.0 - cooled, cooling_updates)
    for time in CORRELATION_TIMES:
        report(f"correlation time {time:g}, not fading", time, lambda cooled: 1.0)


if __name__ == "__main__":
    main()
