"""
What does a policy look like? Learn the four goals, by DQS and by SAC; draw the critic with its Boltzmann distribution, the
samples, roll-outs, what happens when the goal that the policy likes best is closed, at its temperature and at a higher one,
and an animation.

    python examples/pictures.py [--steps 20000] [--output runs/pictures]
"""

import argparse
import dataclasses
from collections import Counter
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_dqs import DQS
from sb3_dqs.envs.arena import Arena
from sb3_dqs.extras import require

ENV_ID = "sb3_dqs/MultiGoal-v0"
N_EPISODES = 40
# Times the temperature of training
HOTTER = 4


def main() -> None:
    """Train, some minutes for 20,000 steps, and save four pictures and a film."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps of training")
    parser.add_argument("--output", type=Path, default=Path("runs/pictures"), help="folder of the pictures")
    arguments = parser.parse_args()
    require("matplotlib", "tqdm", "rich")
    from sb3_dqs.inspection.evaluation import Episode, roll_out
    from sb3_dqs.inspection.plotting import (
        animate_roll_outs,
        compare_roll_outs,
        plot_critic,
        plot_denoising_paths,
        plot_roll_outs,
    )

    # Small networks rarely gain from more than one thread
    th.set_num_threads(1)
    envs = [gym.make(ENV_ID) for _ in range(N_EPISODES)]
    arena = envs[0].unwrapped.arena  # type: ignore[attr-defined]

    def episodes_of(model: BaseAlgorithm, closed: list[int]) -> list[Episode]:
        # Sampled actions, all from the centre
        options = {"start": (0.0, 0.0), "closed": closed}
        return roll_out(model, envs, seed=0, deterministic=False, options=options)

    before: dict[str, tuple[Arena, list[np.ndarray]]] = {}
    after: dict[str, tuple[Arena, list[np.ndarray]]] = {}

    def close_the_favourite_of(name: str, model: BaseAlgorithm) -> None:
        # The goal that was reached most is closed, and nothing is learned
        episodes = episodes_of(model, closed=[])
        favourite = Counter(episode.info["goal"] for episode in episodes if episode.info["is_success"]).most_common(1)
        closed = [goal for goal, _ in favourite]
        without = dataclasses.replace(arena, goals=np.delete(arena.goals, closed, axis=0))
        for panels, what, there, shown in (
            (before, name, arena, episodes),
            (after, f"{name}, closed", without, episodes_of(model, closed)),
        ):
            n_successes = sum(episode.info["is_success"] for episode in shown)
            panels[f"{what}: {n_successes} of {len(shown)}"] = (there, [episode.observations for episode in shown])

    # Default settings: both hold an entropy of -1 nat per dimension
    dqs = DQS("MlpPolicy", ENV_ID, seed=0, device="cpu").learn(arguments.steps, progress_bar=True)
    sac = SAC("MlpPolicy", ENV_ID, seed=0, device="cpu").learn(arguments.steps, progress_bar=True)
    centre = np.zeros(2, np.float32)
    traces = [episode.observations for episode in episodes_of(dqs, closed=[])]
    figures = {
        "critic": plot_critic(dqs, centre, n_samples=20_000),
        "denoising": plot_denoising_paths(dqs, centre),
        "roll_outs": plot_roll_outs(arena, traces),
    }
    close_the_favourite_of("SAC", sac)
    close_the_favourite_of("DQS", dqs)
    # The same networks: how random the policy is can be chosen after training
    dqs.temperature = HOTTER * float(dqs.policy.temperature)
    close_the_favourite_of("DQS, hotter", dqs)
    figures["closed_goal"] = compare_roll_outs({**before, **after}, n_columns=3)
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(arguments.output / f"{name}.png", dpi=80)
        print(arguments.output / f"{name}.png")
    animate_roll_outs(arena, traces).save(arguments.output / "roll_outs.gif", writer="pillow", fps=8, dpi=50)
    print(arguments.output / "roll_outs.gif")


if __name__ == "__main__":
    main()
