"""
Several environments, normalised observations and rewards, and checkpoints: start it again after a kill, and it goes on.

    python examples/checkpoints.py [--env Pendulum-v1] [--n-envs 4] [--steps 10000] [--every 2000] [--output runs/checkpoints]

A checkpoint is three files: the model, its replay buffer, and the statistics of the normalisation.
"""

import argparse
import re
from pathlib import Path

from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqs import DQS
from sb3_dqs.extras import require


def newest_checkpoint(folder: Path) -> int | None:
    """
    :param folder: of the checkpoints
    :return: environment steps of the newest that is whole, or None; the statistics are written last
    """
    names = [re.fullmatch(r"dqs_vecnormalize_(\d+)_steps\.pkl", path.name) for path in folder.glob("*.pkl")]
    return max((int(name[1]) for name in names if name), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="id of an environment with bounded continuous actions")
    parser.add_argument("--n-envs", type=int, default=4, help="environments that are stepped together")
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps of training, of all environments")
    parser.add_argument("--every", type=int, default=2_000, help="environment steps between two checkpoints")
    parser.add_argument("--episodes", type=int, default=10, help="episodes of the evaluation")
    parser.add_argument("--output", type=Path, default=Path("runs/checkpoints"), help="folder of the checkpoints")
    arguments = parser.parse_args()
    require("tqdm", "rich")

    envs = make_vec_env(arguments.env, n_envs=arguments.n_envs, seed=0)
    steps, folder = newest_checkpoint(arguments.output), arguments.output
    if steps is None:
        envs = VecNormalize(envs)
        # gradient_steps=-1: as many updates as environment steps, also with several environments
        model = DQS("MlpPolicy", envs, gradient_steps=-1, seed=0)
    else:
        envs = VecNormalize.load(str(folder / f"dqs_vecnormalize_{steps}_steps.pkl"), envs)
        model = DQS.load(folder / f"dqs_{steps}_steps", env=envs)
        model.load_replay_buffer(folder / f"dqs_replay_buffer_{steps}_steps.pkl")
        print(f"Going on from {model.num_timesteps} steps and {model.replay_buffer.size()} stored steps per environment")

    checkpoints = CheckpointCallback(
        # counted in steps of all environments together
        save_freq=max(arguments.every // arguments.n_envs, 1),
        save_path=str(folder),
        name_prefix="dqs",
        save_replay_buffer=True,
        save_vecnormalize=True,
    )
    left = arguments.steps - model.num_timesteps
    if left > 0:
        model.learn(left, callback=checkpoints, reset_num_timesteps=False, progress_bar=True)

    # Statistics of training, not those of the evaluation; returns in the environment's own units
    envs.training = envs.norm_reward = False
    print(f"Evaluating over {arguments.episodes} episodes", flush=True)
    mean, _ = evaluate_policy(model, envs, n_eval_episodes=arguments.episodes)
    print(f"After {model.num_timesteps} steps, mean return over {arguments.episodes} deterministic episodes: {mean:.1f}")


if __name__ == "__main__":
    main()
