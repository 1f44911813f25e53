"""
What does DQS cost? Beside SB3's SAC and TD3 and sb3-contrib's TQC and CrossQ: the same networks, batch and machine.

    python -m benchmarks.speed --device cpu [--threads 1] [--parts algorithms breakdown prediction scaling memory]
    python -m benchmarks.speed --device cpu --parts paper --rounds 3
    python -m benchmarks.speed --report

Runs alternate, so that load on the machine meets all of them: every figure is the median over rounds of the ratio to SAC
in the same round, with its quartiles. Absolute times are one machine's and mean nothing elsewhere. SAC with fused Adam, which
is DQS's default, stands beside. ``scaling`` holds the count of multiplications beside the time that was measured. ``paper``,
the published algorithm beside SAC and DQS, takes seconds per update on a CPU and is measured where it is asked for. The
results go to ``benchmarks/results/speed/<device>.json``; the report prints them as Markdown and draws ``<device>.png``.
"""

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from sb3_dqs.extras import require

require("matplotlib", "yaml")

import gymnasium as gym
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch as th
from sb3_contrib import TQC, CrossQ
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.sac import sac

from benchmarks.shapes import RandomEnv
from benchmarks.train import commit_of_code, processor, versions
from sb3_dqs import DQS, PaperDQS, critics
from sb3_dqs.diffusion import box, choice, corrector
from sb3_dqs.gpu import CudaGraphDQS, DeviceReplayBuffer
from sb3_dqs.signatures import default_of

matplotlib.use("Agg")

RESULTS = Path(__file__).parent / "results" / "speed"
DEFAULT_PARTS = ("algorithms", "breakdown", "prediction", "scaling", "memory")
PARTS = (*DEFAULT_PARTS, "paper")

WIDTH = 256
BATCH_SIZE = 256
ENV_ID = "HalfCheetah-v5"
N_OBSERVATIONS, N_ACTIONS = 17, 6
MEMORY_ENV_ID = "Humanoid-v5"

Variant = tuple[type[OffPolicyAlgorithm], dict[str, Any]]

ALGORITHMS: dict[str, Variant] = {
    "SAC": (SAC, {}),
    # DQS's optimisers are fused by default
    "SAC, fused Adam": (SAC, {"policy_kwargs": {"optimizer_kwargs": {"fused": True}}}),
    "TD3": (TD3, {}),
    "TQC": (TQC, {}),
    "CrossQ": (CrossQ, {}),
    "DQS": (DQS, {}),
    "DQS, policy_delay=1": (DQS, {"policy_delay": 1}),
    "DQS, score_estimator='value'": (DQS, {"component_kwargs": {"diffusion": {"score_estimator": "value"}}}),
    "DQS, n_score_samples=16": (DQS, {"n_score_samples": 16}),
    "DQS, n_score_samples=64": (DQS, {"n_score_samples": 64}),
    "DQS, actor_batch_size=64": (DQS, {"actor_batch_size": 64}),
    "DQS, n_diffusion_steps=8": (DQS, {"n_diffusion_steps": 8}),
}
PAPER: dict[str, Variant] = {"PaperDQS": (PaperDQS, {})}


class CudaGraphPaperDQS(CudaGraphDQS, PaperDQS):
    """The published algorithm, recorded."""


# What a GPU can do beside
ON_DEVICE: dict[str, Any] = {"replay_buffer_class": DeviceReplayBuffer}
ON_A_GPU: dict[str, Variant] = {
    "SAC, DeviceReplayBuffer": (SAC, ON_DEVICE),
    "CudaGraphDQS": (CudaGraphDQS, ON_DEVICE),
    "CudaGraphDQS, n_score_samples=16": (CudaGraphDQS, {"n_score_samples": 16, **ON_DEVICE}),
    "CudaGraphDQS, n_score_samples=64": (CudaGraphDQS, {"n_score_samples": 64, **ON_DEVICE}),
}
PAPER_ON_A_GPU: dict[str, Variant] = {"PaperDQS, recorded": (CudaGraphPaperDQS, ON_DEVICE)}

# What is measured of each, in the order of the columns
MEASUREMENTS = {
    "update": "update",
    "predict_1": "predict, 1",
    "predict_64": "predict, 64",
    "deterministic_1": "predict, 1, deterministic",
    "learn_step": "step of learn",
}

# A multiple of every policy_delay among them, so that each round holds the same number of actor updates
N_UPDATES = 12
N_PREDICTIONS = 3 * N_UPDATES

# One at a time changes from the default setting and HalfCheetah's shapes
SCALING: dict[str, list[int]] = {
    "n_actions": [1, 6, 12, 21, 38],
    "n_score_samples": [4, 8, 16, 32, 64],
    "n_diffusion_steps": [2, 5, 8, 16],
    "batch_size": [64, 128, 256, 512, 1024],
    "width": [64, 128, 256, 512],
}


def prepared(variant: Variant, env: gym.Env | str, device: str, width: int = WIDTH, **settings: Any) -> OffPolicyAlgorithm:
    """A model of the common network size whose buffer is filled by random actions, with some updates behind it."""
    algorithm, own = variant
    settings = {"batch_size": BATCH_SIZE, "learning_starts": 1_500, "seed": 0, "device": device, **settings, **own}
    settings["policy_kwargs"] = {"net_arch": [width, width], **own.get("policy_kwargs", {})}
    model = algorithm("MlpPolicy", env, **settings)
    model.learn(1_400, log_interval=10**9)  # random actions, no updates
    model.learning_starts = 0
    # recordings are made within the first nine updates: the third with the actor
    is_slow = algorithm is PaperDQS and device == "cpu"
    model.train(1 if is_slow else N_UPDATES, model.batch_size)
    return model


def wait_for(device: str) -> None:
    if device.startswith("cuda"):
        th.cuda.synchronize()


def seconds_per_call(function: Callable[[], Any], n_calls: int, device: str) -> float:
    wait_for(device)
    start = time.perf_counter()
    for _ in range(n_calls):
        function()
    wait_for(device)
    return (time.perf_counter() - start) / n_calls


def measured_rounds(
    tasks: Mapping[str, tuple[Callable[[], Any], int]], n_rounds: int, device: str, reference: str
) -> dict[str, dict[str, float]]:
    """
    Call each task in turn, round by round.

    :param tasks: name -> (what to call, calls per round)
    :param n_rounds: number of rounds
    :param device: of torch
    :param reference: name of the task that the others are divided by, in the same round
    :return: name -> quartiles of the ratio, and median seconds per call
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in range(n_rounds):
        for name, (function, n_calls) in tasks.items():
            seconds[name].append(seconds_per_call(function, n_calls, device))
    summary = {}
    for name, values in seconds.items():
        low, median, high = np.quantile(np.divide(values, seconds[reference]), [0.25, 0.5, 0.75])
        summary[name] = {"low": low, "median": median, "high": high, "seconds": float(np.median(values))}
    return summary


def compare_algorithms(device: str, n_rounds: int) -> dict[str, Any]:
    """All algorithms but the published one."""
    return compare({**ALGORITHMS, **(ON_A_GPU if device.startswith("cuda") else {})}, device, n_rounds)


def compare_paper(device: str, n_rounds: int) -> dict[str, Any]:
    """The published algorithm beside SAC and DQS."""
    beside = {name: ALGORITHMS[name] for name in ("SAC", "DQS")}
    return compare({**beside, **PAPER, **(PAPER_ON_A_GPU if device.startswith("cuda") else {})}, device, n_rounds)


def compare(variants: Mapping[str, Variant], device: str, n_rounds: int) -> dict[str, Any]:
    """Update, predict (sampled and deterministic, 1 and 64 observations), and ``learn`` steps, as ratios to SAC's time."""
    is_gpu = device.startswith("cuda")
    models = {name: prepared(variant, ENV_ID, device) for name, variant in variants.items()}
    observations = np.random.default_rng(0).standard_normal((64, N_OBSERVATIONS))

    def tasks_of(name: str, model: OffPolicyAlgorithm) -> dict[str, tuple[Callable[[], Any], int]]:
        is_slow = name in PAPER and not is_gpu
        n_updates = 1 if is_slow else N_UPDATES
        tasks: dict[str, tuple[Callable[[], Any], int]] = {
            "update": (lambda: model.train(1, BATCH_SIZE), n_updates),
            "predict_1": (lambda: model.predict(observations[:1]), 3 * n_updates),
            "predict_64": (lambda: model.predict(observations), n_updates),
            "deterministic_1": (lambda: model.predict(observations[:1], deterministic=True), 3 * n_updates),
        }
        return tasks if is_slow else {**tasks, "learn_step": (step_of_learn(model), 2 * N_UPDATES)}

    tasks = {name: tasks_of(name, model) for name, model in models.items()}
    return {
        measurement: measured_rounds(
            {name: of[measurement] for name, of in tasks.items() if measurement in of}, n_rounds, device, "SAC"
        )
        for measurement in MEASUREMENTS
    }


def step_of_learn(model: OffPolicyAlgorithm) -> Callable[[], None]:
    """One step of the environment and its update, as ``learn`` does them, without its preparations."""
    _, callback = model._setup_learn(10**9, None)
    callback.on_training_start({}, {})

    def step() -> None:
        assert model.env is not None
        assert model.replay_buffer is not None
        model.collect_rollouts(
            model.env,
            train_freq=model.train_freq,  # type: ignore[arg-type]
            action_noise=model.action_noise,
            callback=callback,
            learning_starts=0,
            replay_buffer=model.replay_buffer,
        )
        model.train(gradient_steps=1, batch_size=model.batch_size)

    return step


class Stopwatch:
    """Time spent in named functions, each without that of the named functions it calls."""

    def __init__(self, device: str):
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)
        self.inner: list[float] = []

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            wait_for(self.device)
            start = time.perf_counter()
            self.inner.append(0.0)
            result = function(*args, **kwargs)
            wait_for(self.device)
            elapsed = time.perf_counter() - start
            self.seconds[name] += elapsed - self.inner.pop()
            if self.inner:
                self.inner[-1] += elapsed
            return result

        return wrapper


def timed_update(name: str, device: str) -> Callable[[], dict[str, float]]:
    """
    An update of SAC or DQS that returns its seconds by part.

    SB3's SAC has its critic and actor steps in one function, so there both stand under "critic and actor step, rest".
    """
    model: Any = prepared(ALGORITHMS[name], ENV_ID, device)
    stopwatch = Stopwatch(device)
    parts: list[tuple[Any, str, str]] = [
        (model.replay_buffer, "sample", "replay sampling"),
        (model.actor.optimizer, "step", "optimiser"),
        (model.critic.optimizer, "step", "optimiser"),
    ]
    if name == "SAC":
        parts += [
            (model.critic_target, "forward", "target critic"),
            (model.ent_coef_optimizer, "step", "optimiser"),
            (sac, "polyak_update", "Polyak"),
            (model, "train", "critic and actor step, rest"),
        ]
    else:
        parts += [
            (model.actor, "forward", "next actions"),
            (model.policy, "update_average_of_critic", "averaged critic"),
            (model.policy, "update_average_of_actor", "averaged actor"),
            (model, "_update_critic", "critic step"),
            (box, "box_posterior_mean", "score target"),
            (model, "_update_actor", "actor step"),
            (model, "train", "rest"),
        ]

    def update() -> dict[str, float]:
        stopwatch.seconds.clear()
        with timed(parts, stopwatch):
            for _ in range(N_UPDATES):
                model.train(1, BATCH_SIZE)
        return dict(stopwatch.seconds)

    return update


def timed_prediction(name: str, device: str, deterministic: bool) -> Callable[[], dict[str, float]]:
    """Actions of SAC or DQS for one observation, which return their seconds by part."""
    model: Any = prepared(ALGORITHMS[name], ENV_ID, device)
    stopwatch = Stopwatch(device)
    parts: list[tuple[Any, str, str]] = [(model, "predict", "rest")]
    if name != "SAC":
        actor = model.policy.deployed_actor
        parts += [
            (actor.diffusion, "sample_candidates", "diffusion"),
            (actor.refiner, "forward", "refiner"),
            (actor.refiner, "middles", "refiner"),
            (choice.Candidates, "mixture_log_density", "density of the mixture"),
            (critics, "_smallest_q_of_features", "critic"),
            (corrector, "particle_gibbs", "corrector, rest"),
        ]
    observation = model.observation_space.sample()

    def predict() -> dict[str, float]:
        stopwatch.seconds.clear()
        with timed(parts, stopwatch):
            for _ in range(N_PREDICTIONS):
                model.predict(observation, deterministic=deterministic)
        return dict(stopwatch.seconds)

    return predict


@contextmanager
def timed(parts: Sequence[tuple[Any, str, str]], stopwatch: Stopwatch) -> Iterator[None]:
    """Inside, time spent in attributes of owners is kept by the name of their part: (owner, attribute, part)."""
    with ExitStack() as patches:
        for owner, attribute, part in parts:
            patches.enter_context(mock.patch.object(owner, attribute, stopwatch.timed(part, getattr(owner, attribute))))
        yield


def break_down(device: str, n_rounds: int) -> dict[str, dict[str, float]]:
    """Where an update's time goes: median over rounds of each part's share of SAC's whole update in the same round."""
    return shares_of_sac({name: timed_update(name, device) for name in ("SAC", "DQS")}, n_rounds)


def break_down_prediction(device: str, n_rounds: int) -> dict[str, dict[str, float]]:
    """The same of one action."""
    return shares_of_sac(
        {
            "SAC": timed_prediction("SAC", device, deterministic=False),
            "DQS": timed_prediction("DQS", device, deterministic=False),
            "DQS, deterministic": timed_prediction("DQS", device, deterministic=True),
        },
        n_rounds,
    )


def shares_of_sac(tasks: Mapping[str, Callable[[], dict[str, float]]], n_rounds: int) -> dict[str, dict[str, float]]:
    shares: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in tasks}
    for _ in range(n_rounds):
        seconds = {name: task() for name, task in tasks.items()}
        whole_of_sac = sum(seconds["SAC"].values())
        for name, parts in seconds.items():
            for part, value in parts.items():
                shares[name][part].append(value / whole_of_sac)
    return {name: {part: float(np.median(values)) for part, values in parts.items()} for name, parts in shares.items()}


def multiplications(
    n_actions: int,
    n_score_samples: int,
    n_diffusion_steps: int,
    batch_size: int,
    width: int,
    n_observations: int,
    actor_batch_size: int,
    policy_delay: int,
    n_critics: int = 2,
    embedding_dim: int = 16,
) -> float:
    """
    Multiplications in the matrix products of one default update of DQS, counted by hand.

    A layer from m to n units costs m n per row forward, as much for the gradient of its input, and as much for that of its
    weights. Products with the observation are done once per state. The critic has no target network: both ends of a transition
    go through it in one pass, which is trained, and its first layer is behind a normalisation, which is trained too.
    """
    critic_first = (n_observations + n_actions) * width
    critic_rest = width**2 + width
    denoiser_state = n_observations * width
    denoiser_rest = n_actions * width + width**2 + width * n_actions
    # of observation and noisy action to mean and width
    refiner = (n_observations + n_actions) * width + width**2 + width * 2 * n_actions
    next_actions = batch_size * (denoiser_state + n_diffusion_steps * denoiser_rest + refiner)
    critic_step = n_critics * 2 * batch_size * 3 * (critic_first + critic_rest)
    proposals = actor_batch_size * n_score_samples
    # values and gradients at the proposals and at a refined action, values at two uniform actions per point
    rows = 2 * proposals + 4 * actor_batch_size
    score_target = n_critics * (actor_batch_size * n_observations * width + rows * (n_actions * width + critic_rest))
    # one pass that is trained (three products) and two that measure the guide; the refiner's first layer needs no gradient of
    # its input
    refiner_step = 3 * refiner - (n_observations + n_actions) * width
    actor_step = actor_batch_size * (2 * (denoiser_state + embedding_dim * width) + 5 * denoiser_rest + refiner_step)
    return next_actions + critic_step + (score_target + actor_step) / policy_delay


def scale(device: str, n_rounds: int) -> dict[str, list[dict[str, float]]]:
    """Cost of an update against one setting at a time, as a ratio to the default's, measured and counted."""
    default_model = prepared(ALGORITHMS["DQS"], RandomEnv(N_OBSERVATIONS, N_ACTIONS), device)
    default = {
        "n_actions": N_ACTIONS,
        **{name: default_of(DQS, name) for name in ("n_score_samples", "n_diffusion_steps")},
        "batch_size": BATCH_SIZE,
        "width": WIDTH,
    }
    fixed = {
        "n_observations": N_OBSERVATIONS,
        **{name: default_of(DQS, name) for name in ("actor_batch_size", "policy_delay")},
    }
    curves: dict[str, list[dict[str, float]]] = {}
    for setting, values in SCALING.items():
        models = {"default": default_model}
        for value in values:
            settings = {**default, setting: value}
            env = RandomEnv(N_OBSERVATIONS, settings.pop("n_actions"))
            models[str(value)] = prepared((DQS, {}), env, device, **settings)
        tasks = {name: (functools.partial(model.train, 1, model.batch_size), N_UPDATES) for name, model in models.items()}
        summary = measured_rounds(tasks, n_rounds, device, "default")
        curves[setting] = [
            {
                "value": value,
                **summary[str(value)],
                "counted": multiplications(**{**default, setting: value}, **fixed) / multiplications(**default, **fixed),
            }
            for value in values
        ]
    return curves


def peak_memory_of(name: str, device: str, is_full: bool) -> None:
    """Print the peak memory of host and device, MiB, of ``learn`` with a buffer of 1e6; run in its own process."""
    algorithm, settings = ALGORITHMS[name]
    model = algorithm("MlpPolicy", MEMORY_ENV_ID, seed=0, device=device, learning_starts=500, **settings)
    if is_full:
        for array in (model.replay_buffer.observations, model.replay_buffer.next_observations):  # type: ignore[union-attr]
            array.fill(0)
    model.learn(1_000, log_interval=10**9)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.startswith("cuda"):
        peak += th.cuda.max_memory_allocated() / 2**20
    print(json.dumps(peak))


def compare_memory(device: str) -> dict[str, dict[str, float]]:
    """Peak memory, MiB, of ``learn`` on Humanoid's shapes, buffer of 1e6: all of it in memory, or what was used."""
    peaks: dict[str, dict[str, float]] = {}
    for name in ("SAC", "DQS"):
        peaks[name] = {}
        for label, is_full in (("full buffer", True), ("1000 transitions", False)):
            code = f"from benchmarks.speed import peak_memory_of; peak_memory_of({name!r}, {device!r}, {is_full})"
            output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
            peaks[name][label] = json.loads(output.splitlines()[-1])
    return peaks


def ratio_cell(summary: dict[str, float] | None) -> str:
    return "-" if summary is None else f"{summary['median']:.2f} ({summary['low']:.2f}-{summary['high']:.2f})"


def print_shares(shares: dict[str, dict[str, float]], whole: str) -> None:
    """A table of parts (rows) by algorithms; parts of the last come first."""
    print(f"| share of SAC's {whole} | " + " | ".join(shares) + " |\n|---|" + "---|" * len(shares))
    for label in dict.fromkeys(label for name in reversed(shares) for label in shares[name]):
        cells = [f"{of_one[label]:.2f}" if label in of_one else "-" for of_one in shares.values()]
        print(f"| {label} | " + " | ".join(cells) + " |")
    print("| all | " + " | ".join(f"{sum(of_one.values()):.2f}" for of_one in shares.values()) + " |")


def report(path: Path) -> None:
    """Print the tables of one result file and draw its figure."""
    parts = json.loads(path.read_text())
    results = {name: part["measured"] for name, part in parts.items()}
    captions = {}
    for name, part in parts.items():
        of = part["conditions"]
        captions[name] = f"{of['machine']}, {of['threads']} thread(s), torch {of['versions']['torch']}, commit {of['commit']}"
        captions[name] += " and changes that were not committed" if of["uncommitted_changes"] else ""
    for part in ("algorithms", "paper"):
        if part not in results:
            continue
        measurements = results[part]
        print(f"\n{captions[part]}; all networks 2 x {WIDTH}, CrossQ's critics too, whose default is wider\n")
        print("| time, times SAC's: median (quartiles) | " + " | ".join(MEASUREMENTS.values()) + " |")
        print("|---|" + "---|" * len(MEASUREMENTS))
        for name in measurements["update"]:
            cells = [ratio_cell(measurements.get(key, {}).get(name)) for key in MEASUREMENTS]
            print(f"| {name} | " + " | ".join(cells) + " |")
    for part, whole in (("breakdown", "update"), ("prediction", "action")):
        if part in results:
            print(f"\n{captions[part]}\n")
            print_shares(results[part], whole)
    if "scaling" in results:
        print(f"\n{captions['scaling']}\n")
        print("| setting | value | update, times the default's | multiplications, times the default's |\n|---|---|---|---|")
        for setting, points in results["scaling"].items():
            for point in points:
                print(f"| {setting} | {point['value']} | {ratio_cell(point)} | {point['counted']:.2f} |")
    if "memory" in results:
        print(f"\n{captions['memory']}\n")
        print("| peak memory, MiB | full buffer | 1000 transitions |\n|---|---|---|")
        for name, peaks in results["memory"].items():
            print(f"| {name} | {peaks['full buffer']:.0f} | {peaks['1000 transitions']:.0f} |")
    draw(results, path.with_suffix(".png"))


def draw(results: dict[str, Any], path: Path) -> None:
    """Bars of the algorithms' ratios, curves of the scaling."""
    measurements, curves = results.get("algorithms", {}), results.get("scaling", {})
    n_panels = len(measurements) + len(curves)
    if n_panels == 0:
        return
    n_columns = 3
    n_rows = -(-n_panels // n_columns)
    figure, grid = plt.subplots(n_rows, n_columns, figsize=(15, 3.6 * n_rows), squeeze=False, layout="constrained")
    panels = iter(grid.flat)
    for measurement, summaries in measurements.items():
        axes = next(panels)
        medians = np.array([summary["median"] for summary in summaries.values()])
        errors = np.abs([[summary[end] - summary["median"] for summary in summaries.values()] for end in ("low", "high")])
        axes.barh(list(summaries), medians, xerr=errors, color=["C1" if "DQS" in name else "C0" for name in summaries])
        axes.axvline(1.0, color="black", linewidth=0.8)
        if medians.max() > 20:
            axes.set_xscale("log")
        axes.invert_yaxis()
        axes.set(title=MEASUREMENTS[measurement], xlabel="time, times SAC's")
    for setting, points in curves.items():
        axes = next(panels)
        values = [point["value"] for point in points]
        medians = np.array([point["median"] for point in points])
        errors = np.abs([[point[end] - point["median"] for point in points] for end in ("low", "high")])
        axes.errorbar(values, medians, errors, marker="o", capsize=3, color="C1", label="time")
        axes.plot(values, [point["counted"] for point in points], "--", color="gray", label="multiplications")
        axes.set(title=f"DQS's update against {setting}", xlabel=setting, ylabel="times the default's", ylim=(0, None))
        axes.legend()
    for axes in panels:
        axes.set_axis_off()
    figure.savefig(path, dpi=100)
    print(f"\n{path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda; also the name of the result file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(DEFAULT_PARTS))
    parser.add_argument("--report", action="store_true", help="print the tables of all results and do nothing else")
    arguments = parser.parse_args()
    path = RESULTS / f"{arguments.device}.json"
    if not arguments.report:
        th.set_num_threads(arguments.threads)
        results = json.loads(path.read_text()) if path.exists() else {}
        machine = th.cuda.get_device_name() if arguments.device.startswith("cuda") else processor()
        conditions = {
            "machine": f"{machine}, {os.cpu_count()} cores",
            "threads": arguments.threads,
            "versions": versions(),
            **commit_of_code(),
        }
        measure: dict[str, Callable[[], Any]] = {
            "algorithms": lambda: compare_algorithms(arguments.device, arguments.rounds),
            "breakdown": lambda: break_down(arguments.device, arguments.rounds),
            "prediction": lambda: break_down_prediction(arguments.device, arguments.rounds),
            "scaling": lambda: scale(arguments.device, arguments.rounds),
            "memory": lambda: compare_memory(arguments.device),
            "paper": lambda: compare_paper(arguments.device, arguments.rounds),
        }
        for part in arguments.parts:
            results[part] = {"conditions": conditions, "measured": measure[part]()}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(results, indent=1) + "\n")
    for result in [path] if not arguments.report else sorted(RESULTS.glob("*.json")):
        report(result)


if __name__ == "__main__":
    main()
