"""
What does a policy look like? Learn the four goals; draw the critic with its Boltzmann law, the samples and roll-outs.

    python examples/pictures.py [--steps 20000]
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np

from sb3_dqs import DQS
from sb3_dqs.inspection.evaluation import roll_out
from sb3_dqs.inspection.plotting import plot_critic, plot_denoising_paths, plot_roll_outs

ENV_ID = "sb3_dqs/MultiGoal-v0"
FOLDER = Path("runs/pictures")


def main() -> None:
    """Train, some minutes for 20,000 steps, and save three pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000)
    model = DQS("MlpPolicy", ENV_ID, seed=0, device="cpu").learn(parser.parse_args().steps, progress_bar=True)
    centre = np.zeros(2, np.float32)
    envs = [gym.make(ENV_ID) for _ in range(40)]
    episodes = roll_out(model, envs, seed=0, deterministic=False)
    figures = {
        "critic": plot_critic(model, centre, n_samples=20_000),
        "denoising": plot_denoising_paths(model, centre),
        "roll_outs": plot_roll_outs(envs[0].unwrapped.arena, [episode.observations for episode in episodes]),  # type: ignore[attr-defined]
    }
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        figure.savefig(FOLDER / f"{name}.png", dpi=80)
        print(FOLDER / f"{name}.png")


if __name__ == "__main__":
    main()
