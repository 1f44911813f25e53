"""
From training to a file that runs without torch: train, export, act by onnxruntime, and compare the time of an action.

    python examples/deploy.py [--env Pendulum-v1] [--steps 5000] [--seed 0] [--output runs/deploy.onnx]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch as th

from sb3_dqs import DQS
from sb3_dqs.export import export_onnx
from sb3_dqs.extras import require


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="an environment whose observations are vectors")
    parser.add_argument("--steps", type=int, default=5_000, help="environment steps of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("runs/deploy.onnx"))
    arguments = parser.parse_args()
    require("tqdm", "rich", "onnx", "onnxruntime", "onnxscript")
    import onnxruntime

    th.set_num_threads(1)
    model = DQS("MlpPolicy", arguments.env, seed=arguments.seed, device="cpu")
    model.learn(arguments.steps, progress_bar=True)

    print(f"Exporting to {arguments.output}", flush=True)
    export_onnx(model, arguments.output, batch_size=1)

    # From here on, as it is on the robot
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(arguments.output, options)

    def act(observation: np.ndarray) -> np.ndarray:
        # a batch of one
        return session.run(["actions"], {"observations": observation[None]})[0][0]

    env = gym.make(arguments.env)
    observation, _ = env.reset(seed=arguments.seed)
    total, is_over = 0.0, False
    while not is_over:
        observation, reward, terminated, truncated, _ = env.step(act(observation))
        total, is_over = total + float(reward), terminated or truncated
    print(f"Return of an episode: {total:.1f}")

    by_file, by_predict = seconds_per_call(
        lambda: act(observation), lambda: model.predict(observation, deterministic=True), n_calls=500
    )
    ratio = by_predict / by_file
    print(f"An action takes {by_file * 1e3:.2f} ms; by predict() {by_predict * 1e3:.2f} ms, {ratio:.1f} times that")


def seconds_per_call(*functions: Callable[[], object], n_calls: int) -> list[float]:
    """The median of each, called in turns, so that what else the machine does slows down all of them."""
    seconds = np.empty((n_calls, len(functions)))
    for row in seconds:
        for column, function in enumerate(functions):
            start = time.perf_counter()
            function()
            row[column] = time.perf_counter() - start
    return np.median(seconds, axis=0).tolist()


if __name__ == "__main__":
    main()
