"""
What does an update cost? DQS beside SB3's SAC, same batch and networks, alternating runs, median ratio.

    python -m benchmarks.update_cost --env HalfCheetah-v5 [--include-paper]

Absolute times are this machine's and mean nothing elsewhere; the ratios are what the README reports.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_dqs import DQS

VARIANTS: dict[str, dict[str, Any]] = {
    "DQS": {},
    "DQS, score_estimator='value'": {"score_estimator": "value"},
    "DQS, policy_delay=2": {"policy_delay": 2},
    "DQS, n_score_samples=32": {"n_score_samples": 32},
    "DQS, actor_batch_size=64": {"actor_batch_size": 64},
    "DQS, n_diffusion_steps=8": {"n_diffusion_steps": 8},
}


def seconds_per_call(function: Callable[[], Any], n_calls: int) -> float:
    start = time.perf_counter()
    for _ in range(n_calls):
        function()
    return (time.perf_counter() - start) / n_calls


def prepared(model: OffPolicyAlgorithm) -> OffPolicyAlgorithm:
    """A model with a filled buffer and some updates behind it."""
    model.learn(320, log_interval=10**9)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="HalfCheetah-v5")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--updates", type=int, default=10, help="updates per round and variant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--include-paper", action="store_true", help="one update of the published setting per round")
    arguments = parser.parse_args()
    th.set_num_threads(arguments.threads)

    common: dict[str, Any] = {"learning_starts": 300, "seed": 0, "device": "cpu"}
    models: dict[str, OffPolicyAlgorithm] = {"SAC": prepared(SAC("MlpPolicy", arguments.env, **common))}
    for name, settings in VARIANTS.items():
        models[name] = prepared(DQS("MlpPolicy", arguments.env, **common, **settings))
    n_updates = {name: arguments.updates for name in models}
    if arguments.include_paper:
        paper = DQS("MlpPolicy", arguments.env, diffusion="paper", **{**common, "learning_starts": 1_000})
        paper.learn(300, log_interval=10**9)  # random actions only: acting alone would take minutes
        models["DQS, diffusion='paper'"], n_updates["DQS, diffusion='paper'"] = paper, 1

    env = models["SAC"].get_env()
    assert env is not None
    observation = env.reset()
    update_ratios: dict[str, list[float]] = {name: [] for name in models}
    predict_ratios: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(arguments.rounds):
        update: dict[str, float] = {}
        predict: dict[str, float] = {}
        for name, model in models.items():
            update[name] = seconds_per_call(lambda model=model: model.train(1, 256), n_updates[name])  # type: ignore[misc]
            predict[name] = seconds_per_call(
                lambda model=model: model.predict(observation),  # type: ignore[misc, arg-type]
                3 * n_updates[name],
            )
        for name in models:
            update_ratios[name].append(update[name] / update["SAC"])
            predict_ratios[name].append(predict[name] / predict["SAC"])

    print(f"{arguments.env}, batch 256, {arguments.threads} thread(s), torch {th.__version__}, {arguments.rounds} rounds")
    print("| | update, times SAC's: median (quartiles) | predict of 1 observation, times SAC's |")
    print("|---|---|---|")
    for name in models:
        cells = []
        for ratios in (update_ratios[name], predict_ratios[name]):
            low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
            cells.append(f"{median:.2f} ({low:.2f}-{high:.2f})")
        print(f"| {name} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()
