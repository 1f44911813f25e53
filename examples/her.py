"""
Reach goals that are part of the observation, by hindsight experience replay: a point in a maze with a sparse reward.

    python examples/her.py [--env PointMaze_UMaze-v3] [--steps 20000] [--seed 0]

Any environment with ``observation``, ``achieved_goal`` and ``desired_goal`` and a ``compute_reward`` works, FetchReach-v4
for instance.
"""

import argparse

import gymnasium as gym
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_dqs import DQS
from sb3_dqs.extras import require


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="PointMaze_UMaze-v3", help="id of an environment with goals")
    parser.add_argument("--steps", type=int, default=20_000, help="environment steps of training")
    parser.add_argument("--episodes", type=int, default=10, help="episodes of the evaluation")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    require("gymnasium_robotics", "tqdm", "rich")
    import gymnasium_robotics

    gym.register_envs(gymnasium_robotics)
    env = Monitor(gym.make(arguments.env))
    assert env.spec is not None
    model = DQS(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HerReplayBuffer,
        # four of five sampled transitions get a goal that the same episode reached later
        replay_buffer_kwargs=dict(n_sampled_goal=4, goal_selection_strategy="future"),
        # transitions can be relabelled once their episode has ended
        learning_starts=(env.spec.max_episode_steps or 1_000) + 1,
        gamma=0.95,
        seed=arguments.seed,
    )
    model.learn(arguments.steps, progress_bar=True)
    print(f"Evaluating over {arguments.episodes} episodes", flush=True)
    mean, _ = evaluate_policy(model, env, n_eval_episodes=arguments.episodes)
    print(f"Mean return over {arguments.episodes} deterministic episodes: {mean:.2f}")


if __name__ == "__main__":
    main()
