"""
What does the log of a run look like that learns, and of one that does not? Pendulum-v1 twice, once with a bad setting.

    python examples/healthy_and_sick.py [--steps 5000] [--temperature 100] [--seed 0] [--output runs/healthy_and_sick.png]

The sick run has a fixed temperature far above the spread of Q, so that its policy stays uniform.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch as th
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_dqs import DQS
from sb3_dqs.extras import require

# A panel for each of the keys that tell most, top to bottom in the order in which to look at them
PANELS = {
    "rollout/ep_rew_mean": "return, mean of the last episodes",
    "train/policy_entropy": "nats per dimension; uniform: 0.34",
    "train/temperature": "units of Q",
    "train/q_spread": "units of Q",
    "train/mean_q": "units of Q",
    "train/critic_loss": "units of Q, squared",
}


class Course(KVWriter):
    """A writer of SB3's logger that keeps what is logged."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        self.rows.append((step, dict(key_values)))

    def close(self) -> None:
        pass

    def of(self, key: str) -> tuple[list[int], list[float]]:
        """
        :param key: of the log
        :return: steps of the environment, and the value logged there
        """
        points = [(step, float(values[key])) for step, values in self.rows if key in values]
        return [step for step, _ in points], [value for _, value in points]


def learn(steps: int, seed: int, **settings: Any) -> Course:
    """
    :param steps: of the environment, at least an episode of 200 more than the warm-up of 100
    :param seed: of the run
    :param settings: of DQS that differ from its defaults
    :return: what the run logged after each episode
    """
    course = Course()
    model = DQS("MlpPolicy", "Pendulum-v1", seed=seed, device="cpu", stats_window_size=5, **settings)
    model.set_logger(Logger(None, [course]))
    model.learn(steps, log_interval=1, progress_bar=True)
    return course


def draw(courses: Mapping[str, Course], path: Path) -> None:
    """
    :param courses: label of a run -> what it logged
    :param path: of the picture
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 7.5), layout="constrained")
    grid = figure.subplots(3, 2, sharex=True)
    for axes, (key, unit) in zip(grid.flat, PANELS.items(), strict=True):
        for (label, course), style in zip(courses.items(), ("-", "--"), strict=True):
            axes.plot(*course.of(key), style, label=label, linewidth=1.8)
        axes.set_title(key, fontsize=10)
        axes.set_ylabel(unit, fontsize=8)
        axes.grid(alpha=0.3)
    for key in ("train/temperature", "train/critic_loss"):
        grid.flat[list(PANELS).index(key)].set_yscale("log")
    for axes in grid[-1]:
        axes.set_xlabel("environment steps", fontsize=9)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--temperature", type=float, default=100.0, help="of the sick run, in units of Q")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/healthy_and_sick.png"))
    arguments = parser.parse_args()
    require("matplotlib", "tqdm", "rich")
    # such small networks are fastest on one thread
    th.set_num_threads(1)
    courses = {
        "healthy: default settings": learn(arguments.steps, arguments.seed),
        f"sick: temperature={arguments.temperature:g}": learn(
            arguments.steps, arguments.seed, temperature=arguments.temperature
        ),
    }
    draw(courses, arguments.output)
    for label, course in courses.items():
        print(label, {key: round(course.of(key)[1][-1], 3) for key in PANELS})
    print(arguments.output)


if __name__ == "__main__":
    main()
