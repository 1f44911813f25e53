"""
What does acting at random earn? The zero of a tier's normalised returns.

    python -m benchmarks.random_returns small --episodes 100
"""

import argparse

import numpy as np

from benchmarks.plan import load_tier
from benchmarks.train import EVALUATION_SEED, make_env


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tier")
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    one_run_each = {run.environment: run for run in load_tier(arguments.tier).runs if "law" not in run.env_spec}
    print("| environment | mean return of uniform actions | standard error |\n|---|---|---|")
    for name, run in one_run_each.items():
        env = make_env(run)
        env.action_space.seed(EVALUATION_SEED)
        returns = []
        for episode in range(arguments.episodes):
            env.reset(seed=EVALUATION_SEED + episode)
            total_reward, done = 0.0, False
            while not done:
                _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
                total_reward += float(reward)
                done = terminated or truncated
            returns.append(total_reward)
        print(f"| {name} | {np.mean(returns):.2f} | {np.std(returns, ddof=1) / np.sqrt(len(returns)):.2f} |", flush=True)


if __name__ == "__main__":
    main()
