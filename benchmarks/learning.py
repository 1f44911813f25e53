"""
Does DQS learn as fast as SB3's SAC? Both with their default settings, on the same machine, in the same run.

    python -m benchmarks.learning --env HalfCheetah-v5 --steps 40000 --seeds 0 1 --eval-every 5000 --jobs 2
    python -m benchmarks.learning --env Pendulum-v1 --steps 10000 --seeds 0 1 2 --eval-every 2000 --episodes 20
    python -m benchmarks.learning --report

Each run writes one file under ``benchmarks/results/learning``; runs whose file exists are not repeated. The report prints
every file as a table. For DQS, the deterministic action of the trained model is measured in each of its forms: the
solution from zero start noise, from one fixed draw of start noise, and the best by the critic of 8 and 32 candidates.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3 import __version__ as sb3_version
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from benchmarks.measures import each_deterministic_form
from sb3_dqs import DQS, __version__

ALGORITHMS: dict[str, Callable[..., OffPolicyAlgorithm]] = {"dqs": DQS, "sac": SAC}
RESULTS = Path(__file__).parent / "results" / "learning"


def mean_return(model: OffPolicyAlgorithm, env_id: str, n_episodes: int, deterministic: bool) -> float:
    """Mean undiscounted return of the current policy over the same start states every time."""
    env = Monitor(gym.make(env_id))
    env.reset(seed=10_000)
    mean, _ = evaluate_policy(model, env, n_episodes, deterministic=deterministic)
    return float(np.mean(mean))


def returns_of_deterministic_forms(model: DQS, env_id: str, n_episodes: int) -> dict[str, float]:
    """Mean return of each way to make prediction deterministic."""
    return {name: mean_return(model, env_id, n_episodes, deterministic=True) for name in each_deterministic_form(model)}


class Evaluation(BaseCallback):
    """Evaluate every ``eval_every`` steps, without touching the course of training."""

    def __init__(self, env_id: str, eval_every: int, n_episodes: int):
        super().__init__()
        self.env_id, self.eval_every, self.n_episodes = env_id, eval_every, n_episodes
        self.records: list[dict[str, Any]] = []
        self.training_seconds = 0.0
        self.resumed_at = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.eval_every == 0:
            self.training_seconds += time.perf_counter() - self.resumed_at
            with th.random.fork_rng(devices=[]):
                record: dict[str, Any] = {
                    "steps": self.num_timesteps,
                    "training_seconds": round(self.training_seconds, 1),
                    "deterministic": mean_return(self.model, self.env_id, self.n_episodes, True),  # type: ignore[arg-type]
                    "stochastic": mean_return(self.model, self.env_id, self.n_episodes, False),  # type: ignore[arg-type]
                }
                is_last = self.num_timesteps + self.eval_every > self.model._total_timesteps
                if isinstance(self.model, DQS) and is_last:
                    record["forms"] = returns_of_deterministic_forms(self.model, self.env_id, self.n_episodes)
            record["logged"] = {k: v for k, v in self.logger.name_to_value.items() if k.startswith("train/")}
            self.records.append(record)
            print(self.env_id, type(self.model).__name__, self.model.seed, json.dumps(record), flush=True)
            self.resumed_at = time.perf_counter()
        return True


def run(algorithm: str, env_id: str, steps: int, seed: int, eval_every: int, n_episodes: int) -> None:
    """Train once and write the result file."""
    path = RESULTS / f"{env_id.replace('/', '_')}_{algorithm}_{seed}.json"
    if path.exists():
        return
    th.set_num_threads(1)
    evaluation = Evaluation(env_id, eval_every, n_episodes)
    model = ALGORITHMS[algorithm]("MlpPolicy", env_id, seed=seed, device="cpu")
    model.learn(steps, callback=evaluation, log_interval=10**9)  # type: ignore[arg-type]
    path.parent.mkdir(parents=True, exist_ok=True)
    versions = {"sb3_dqs": __version__, "stable_baselines3": sb3_version, "torch": th.__version__}
    header = {"algorithm": algorithm, "env": env_id, "seed": seed, "steps": steps, "episodes": n_episodes}
    content = {**header, "versions": versions, "machine": platform.machine(), "records": evaluation.records}
    path.write_text(json.dumps(content, indent=1))


def report() -> None:
    """Print every result as one row of a Markdown table per environment."""
    results = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]
    for env_id in sorted({result["env"] for result in results}):
        of_env = [result for result in results if result["env"] == env_id]
        steps = [record["steps"] for record in of_env[0]["records"]]
        print(f"\n{env_id}, {of_env[0]['episodes']} episodes per evaluation\n")
        print("| algorithm | seed | action |" + "".join(f" {step} |" for step in steps))
        print("|---|---|---|" + "---|" * len(steps))
        for result in of_env:
            rows = {mode: [record[mode] for record in result["records"]] for mode in ("deterministic", "stochastic")}
            for mode, values in rows.items():
                cells = "".join(f" {value:.0f} |" for value in values)
                print(f"| {result['algorithm'].upper()} | {result['seed']} | {mode} |{cells}")
        trained = [result for result in of_env if "forms" in result["records"][-1]]
        if trained:
            forms = list(trained[0]["records"][-1]["forms"])
            print("\n| deterministic action of the trained DQS |" + "".join(f" {form} |" for form in forms))
            print("|---|" + "---|" * len(forms))
            for result in trained:
                cells = "".join(f" {result['records'][-1]['forms'][form]:.0f} |" for form in forms)
                print(f"| seed {result['seed']} |{cells}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1")
    parser.add_argument("--algorithms", nargs="+", choices=list(ALGORITHMS), default=["dqs", "sac"])
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--eval-every", type=int, default=2_000)
    parser.add_argument("--episodes", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--report", action="store_true", help="print the tables and do nothing else")
    arguments = parser.parse_args()
    if not arguments.report:
        with ProcessPoolExecutor(arguments.jobs) as pool:
            jobs = [
                pool.submit(run, name, arguments.env, arguments.steps, seed, arguments.eval_every, arguments.episodes)
                for name in arguments.algorithms
                for seed in arguments.seeds
            ]
            for job in jobs:
                job.result()
    report()


if __name__ == "__main__":
    main()
