"""
An environment of your own, whose action has a unit and bounds that are not symmetric: keep a room at 20 degrees.

    python examples/own_environment.py [--steps 5000] [--seed 0]

DQS works on [-1, 1] inside, and SB3 scales to the bounds of the action space, so the action arrives in kilowatts.
"""

import argparse
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_dqs import DQS
from sb3_dqs.extras import require


class RoomEnv(gym.Env[np.ndarray, np.ndarray]):
    """
    A room with a heater of 2 kW that can also cool with 0.5 kW; a step is a quarter of an hour.

    Observation: (2,), degrees inside and outside. Action: (1,), kW, in [-0.5, 2]. Reward: minus the squared distance to 20
    degrees, and minus the energy spent. Episodes end by a time limit alone, which belongs outside, in a wrapper.
    """

    WANTED = 20.0
    LOSS = 0.05  # share of the difference to outside that is lost in a step
    HEATING = 0.8  # degrees per step and kW

    def __init__(self) -> None:
        # Finite bounds of roughly the true range; without them, VecNormalize scales observations
        self.observation_space = spaces.Box(np.float32([0, -10]), np.float32([40, 30]))
        self.action_space = spaces.Box(np.float32([-0.5]), np.float32([2.0]))
        self.inside = self.outside = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.inside = self.np_random.uniform(10.0, 30.0)
        self.outside = self.np_random.uniform(-10.0, 30.0)
        return self._observation(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        power = float(action[0])
        self.inside += self.LOSS * (self.outside - self.inside) + self.HEATING * power
        reward = -((self.inside - self.WANTED) ** 2) / 10 - abs(power) / 10
        return self._observation(), reward, False, False, {"power": power}

    def _observation(self) -> np.ndarray:
        return np.clip(np.float32([self.inside, self.outside]), self.observation_space.low, self.observation_space.high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5_000, help="environment steps of training")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    require("tqdm", "rich")

    # Says what is wrong with an environment, before a run does; its advice on the scale of actions is followed by SB3 itself
    check_env(RoomEnv(), warn=False)
    env = Monitor(TimeLimit(RoomEnv(), max_episode_steps=48))
    model = DQS("MlpPolicy", env, seed=arguments.seed)
    model.learn(arguments.steps, progress_bar=True)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=10)
    print(f"Mean return over 10 deterministic episodes: {mean:.2f}")
    for outside in (-10.0, 20.0, 30.0):
        power, _ = model.predict(np.float32([20, outside]), deterministic=True)
        print(f"20 degrees inside, {outside:.0f} outside: {power[0]:+.2f} kW")


if __name__ == "__main__":
    main()
