"""
What does a policy look like? Learn the four goals, by DQS and by SAC; draw the critic with its Boltzmann law, the samples,
roll-outs, what happens when the goal that the policy likes best is closed, and a film.

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

from sb3_dqs import DQS
from sb3_dqs.extras import require

ENV_ID = "sb3_dqs/MultiGoal-v0"
N_EPISODES = 40


def main() -> None:
    """Train, some minutes for 20,000 steps, and save four pictures and a film."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps of training")
    parser.add_argument("--output", type=Path, default=Path("runs/pictures"), help="folder of the pictures")
    arguments = parser.parse_args()
    require("matplotlib", "tqdm", "rich")
    from sb3_dqs.inspection.evaluation import roll_out
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
    models, traces, panels = {}, {}, {}
    for algorithm in (DQS, SAC):
        name = algorithm.__name__
        # Default settings: both hold an entropy of -1 nat per dimension
        model = algorithm("MlpPolicy", ENV_ID, seed=0, device="cpu")
        models[name] = model.learn(arguments.steps, progress_bar=True)
        # Sampled actions, all from the centre; then again, without any learning, with the goal closed that was reached most
        episodes = roll_out(model, envs, seed=0, deterministic=False, options={"start": (0.0, 0.0)})
        favourite = Counter(episode.info["goal"] for episode in episodes if episode.info["is_success"]).most_common(1)
        closed = [goal for goal, _ in favourite]
        options = {"start": (0.0, 0.0), "closed": closed}
        after = roll_out(model, envs, seed=0, deterministic=False, options=options)
        without = dataclasses.replace(arena, goals=np.delete(arena.goals, closed, axis=0))
        traces[name] = [episode.observations for episode in episodes]
        for world, there, shown in (("four goals", arena, episodes), ("the favourite closed", without, after)):
            n_successes = sum(episode.info["is_success"] for episode in shown)
            title = f"{name}, {world}: {n_successes} of {len(shown)} arrive"
            panels[title] = (there, [episode.observations for episode in shown])

    centre = np.zeros(2, np.float32)
    figures = {
        "critic": plot_critic(models["DQS"], centre, n_samples=20_000),
        "denoising": plot_denoising_paths(models["DQS"], centre),
        "roll_outs": plot_roll_outs(arena, traces["DQS"]),
        "closed_goal": compare_roll_outs(panels, n_columns=2),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(arguments.output / f"{name}.png", dpi=80)
        print(arguments.output / f"{name}.png")
    animate_roll_outs(arena, traces["DQS"]).save(arguments.output / "roll_outs.gif", writer="pillow", fps=8, dpi=50)
    print(arguments.output / "roll_outs.gif")


if __name__ == "__main__":
    main()
