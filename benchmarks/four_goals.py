"""
Does the policy keep all four goals of ``sb3_dqs/MultiGoal-v0``? DQS with its default settings, beside SB3's SAC.

    python -m benchmarks.four_goals --seeds 0 1 --steps 12000

Every 2000 steps, 100 episodes of the stochastic policy from the centre. Each run writes one file under
``benchmarks/results/four_goals``; runs whose file exists are not repeated.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.learning import ALGORITHMS
from sb3_dqs.envs.multi_goal import GOALS
from sb3_dqs.metrics import normalised_entropy

ENV_ID = "sb3_dqs/MultiGoal-v0"
RESULTS = Path(__file__).parent / "results" / "four_goals"


def roll_out(model: OffPolicyAlgorithm, n_episodes: int = 100) -> dict[str, Any]:
    """Episodes of the stochastic policy: how often each goal was reached, success rate, entropy of the goals, return."""
    env = gym.make(ENV_ID)
    counts = th.zeros(len(GOALS))
    total_return = 0.0
    for episode in range(n_episodes):
        observation, _ = env.reset(seed=10_000 + episode)
        done = False
        while not done:
            action, _ = model.predict(observation, deterministic=False)
            observation, reward, terminated, truncated, info = env.step(action)
            total_return += float(reward)
            done = terminated or truncated
        if info["is_success"]:
            counts[info["goal"]] += 1
    return {
        "goals": counts.int().tolist(),
        "success": counts.sum().item() / n_episodes,
        "goal_entropy": round(normalised_entropy(counts), 3),
        "return": round(total_return / n_episodes, 2),
    }


class RollOuts(BaseCallback):
    """Roll out every ``every`` steps, without touching the course of training."""

    def __init__(self, every: int):
        super().__init__()
        self.every = every
        self.records: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            with th.random.fork_rng(devices=[]):
                record = {"steps": self.num_timesteps, **roll_out(self.model)}  # type: ignore[arg-type]
            self.records.append(record)
            print(type(self.model).__name__, self.model.seed, json.dumps(record), flush=True)
        return True


def run(algorithm: str, seed: int, steps: int) -> None:
    """Train once and write the result file."""
    path = RESULTS / f"{algorithm}_{seed}.json"
    if path.exists():
        return
    th.set_num_threads(1)
    roll_outs = RollOuts(every=2_000)
    ALGORITHMS[algorithm]("MlpPolicy", ENV_ID, seed=seed, device="cpu").learn(  # type: ignore[arg-type]
        steps, callback=roll_outs, log_interval=10**9
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"algorithm": algorithm, "seed": seed, "records": roll_outs.records}, indent=1))


def report() -> None:
    """Print the last record of every run as a Markdown table."""
    print("| algorithm | seed | steps | success | goals reached | normalised goal entropy | return |")
    print("|---|---|---|---|---|---|---|")
    for path in sorted(RESULTS.glob("*.json")):
        result = json.loads(path.read_text())
        last = result["records"][-1]
        goals = " / ".join(map(str, last["goals"]))
        print(
            f"| {result['algorithm'].upper()} | {result['seed']} | {last['steps']} | {last['success']:.0%} | {goals} | "
            f"{last['goal_entropy']:.2f} | {last['return']:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithms", nargs="+", choices=list(ALGORITHMS), default=["dqs", "sac"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.jobs) as pool:
        jobs = [pool.submit(run, name, seed, arguments.steps) for name in arguments.algorithms for seed in arguments.seeds]
        for job in jobs:
            job.result()
    report()


if __name__ == "__main__":
    main()
