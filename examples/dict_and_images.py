"""
Learn from images: four goals seen from above, in a dictionary beside the position of the point, or as a picture alone.

    python examples/dict_and_images.py [--images-only] [--steps 5000] [--seed 0]

SB3's extractor sends each image of a dictionary through a convolutional network of its own, and appends the vectors.
"""

import argparse

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_dqs import DQS
from sb3_dqs.extras import require

# Pixels per side; SB3's network for images needs 36 or more
SIZE = 40


class SeenFromAbove(gym.ObservationWrapper):
    """
    :param env: ``sb3_dqs/MultiGoal-v0``
    :param images_only: observe the picture, (40, 40, 3), uint8, alone; otherwise a dictionary of ``picture`` and ``position``
    """

    def __init__(self, env: gym.Env, images_only: bool):
        super().__init__(env)
        self.images_only = images_only
        picture = spaces.Box(0, 255, (SIZE, SIZE, 3), np.uint8)
        self.observation_space = picture if images_only else spaces.Dict(picture=picture, position=env.observation_space)

    def observation(self, observation: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        goals = self.unwrapped
        picture = goals.arena.picture(goals.trace[-1:], SIZE)  # type: ignore[attr-defined]
        return picture if self.images_only else {"picture": picture, "position": observation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images-only", action="store_true", help="leave the position to be seen in the picture")
    parser.add_argument("--steps", type=int, default=5_000, help="environment steps of training")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    require("tqdm", "rich")

    env = Monitor(SeenFromAbove(gym.make("sb3_dqs/MultiGoal-v0"), arguments.images_only))
    model = DQS(
        "CnnPolicy" if arguments.images_only else "MultiInputPolicy",
        env,
        # Both pictures of a transition are kept: the million transitions of the default would not fit into memory
        buffer_size=max(arguments.steps, 1_000),
        seed=arguments.seed,
    )
    model.learn(arguments.steps, progress_bar=True)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=10)
    print(f"Mean return over 10 deterministic episodes: {mean:.2f}")


if __name__ == "__main__":
    main()
