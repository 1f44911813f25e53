"""
Train DQS on Pendulum-v1, evaluate it over 20 episodes, and keep the model and its learning curve.

    python examples/train.py [--env Pendulum-v1] [--steps 10000] [--seed 0]
"""

import argparse
from datetime import datetime
from pathlib import Path

import gymnasium as gym
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_dqs import DQS

matplotlib.use("Agg")


def plot_learning_curve(monitor: Monitor, env_id: str, path: Path) -> None:
    """Draw the return of every training episode that the monitor recorded."""
    steps = np.cumsum(monitor.get_episode_lengths())
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(steps, monitor.get_episode_rewards(), marker=".", markersize=4, linewidth=1)
    axes.set(title=f"DQS on {env_id}", xlabel="environment steps", ylabel="return of a training episode")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs"))
    arguments = parser.parse_args()

    folder = arguments.output / f"{arguments.env.replace('/', '_')}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder.mkdir(parents=True)
    monitor = Monitor(gym.make(arguments.env), str(folder / "train"))
    model = DQS("MlpPolicy", monitor, seed=arguments.seed)
    model.learn(arguments.steps, progress_bar=True)
    model.save(folder / "model")
    plot_learning_curve(monitor, arguments.env, folder / "learning_curve.png")

    evaluation_env = Monitor(gym.make(arguments.env))
    evaluation_env.reset(seed=arguments.seed + 1)
    mean, standard_deviation = evaluate_policy(model, evaluation_env, n_eval_episodes=20, deterministic=True)
    print(f"Return over 20 deterministic episodes: {mean:.1f} +- {standard_deviation:.1f} (mean +- standard deviation)")
    print(f"Model and learning curve are in {folder}")


if __name__ == "__main__":
    main()
