"""
What does a policy look like? Learn the four goals; draw the critic with its Boltzmann law, the samples, roll-outs and a film.

    python examples/pictures.py [--steps 20000] [--output runs/pictures]
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th

from sb3_dqs import DQS
from sb3_dqs.extras import require

ENV_ID = "sb3_dqs/MultiGoal-v0"


def main() -> None:
    """Train, some minutes for 20,000 steps, and save three pictures and a film."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps of training")
    parser.add_argument("--output", type=Path, default=Path("runs/pictures"), help="folder of the pictures")
    arguments = parser.parse_args()
    require("matplotlib", "tqdm", "rich")
    from sb3_dqs.inspection.evaluation import roll_out
    from sb3_dqs.inspection.plotting import animate_roll_outs, plot_critic, plot_denoising_paths, plot_roll_outs

    # Small networks rarely gain from more than one thread
    th.set_num_threads(1)
    model = DQS("MlpPolicy", ENV_ID, seed=0, device="cpu").learn(arguments.steps, progress_bar=True)
    centre = np.zeros(2, np.float32)
    envs = [gym.make(ENV_ID) for _ in range(40)]
    episodes = roll_out(model, envs, seed=0, deterministic=False)
    arena = envs[0].unwrapped.arena  # type: ignore[attr-defined]
    traces = [episode.observations for episode in episodes]
    figures = {
        "critic": plot_critic(model, centre, n_samples=20_000),
        "denoising": plot_denoising_paths(model, centre),
        "roll_outs": plot_roll_outs(arena, traces),
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(arguments.output / f"{name}.png", dpi=80)
        print(arguments.output / f"{name}.png")
    animate_roll_outs(arena, traces).save(arguments.output / "roll_outs.gif", writer="pillow", fps=8, dpi=50)
    print(arguments.output / "roll_outs.gif")


if __name__ == "__main__":
    main()
