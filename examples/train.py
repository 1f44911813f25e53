"""
Train DQS on Pendulum-v1, evaluate it over 20 episodes, and keep the model and its learning curve.

    python examples/train.py [--env Pendulum-v1] [--steps 10000] [--seed 0]
"""

import argparse
from datetime import datetime
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_dqs import DQS
from sb3_dqs.extras import require


def plot_learning_curve(monitor: Monitor, env_id: str, path: Path) -> None:
    """Draw the return of every training episode that the monitor recorded."""
    from matplotlib.figure import Figure

    steps = np.cumsum(monitor.get_episode_lengths())
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, monitor.get_episode_rewards(), marker=".", markersize=4, linewidth=1)
    axes.set(title=f"DQS on {env_id}", xlabel="environment steps", ylabel="return of a training episode")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="id of an environment with bounded continuous actions")
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps of training")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of the evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch; small networks rarely gain from more than one")
    parser.add_argument("--output", type=Path, default=Path("runs"), help="folder in which the run gets a folder")
    arguments = parser.parse_args()
    require("matplotlib", "tqdm", "rich")
    # By default torch takes every core, and on a busy machine its threads wait for each other
    th.set_num_threads(arguments.threads)

    folder = arguments.output / f"{arguments.env.replace('/', '_')}_{datetime.now():%Y-%m-%d_%H-%M-%S}"
    folder.mkdir(parents=True)
    monitor = Monitor(gym.make(arguments.env), str(folder / "train"))
    model = DQS("MlpPolicy", monitor, seed=arguments.seed)
    model.learn(arguments.steps, progress_bar=True)
    model.save(folder / "model")
    plot_learning_curve(monitor, arguments.env, folder / "learning_curve.png")

    print(f"Evaluating over {arguments.episodes} episodes", flush=True)
    evaluation_env = Monitor(gym.make(arguments.env))
    evaluation_env.reset(seed=arguments.seed + 1)
    mean, standard_deviation = evaluate_policy(model, evaluation_env, n_eval_episodes=arguments.episodes, deterministic=True)
    print(
        f"Return over {arguments.episodes} deterministic episodes: {mean:.1f} +- {standard_deviation:.1f} "
        "(mean +- standard deviation)"
    )
    print(f"Model and learning curve are in {folder}")


if __name__ == "__main__":
    main()
