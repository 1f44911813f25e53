"""What happens in one run? Train, evaluate at fixed intervals without touching the course of training, keep the state."""

import contextlib
import copy
import dataclasses
import functools
import hashlib
import importlib
import json
import os
import pickle
import platform
import pydoc
import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import LinearSchedule, get_device
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.measures import (
    favourite_goal,
    final_measures,
    goals_by_temperature,
    recovery_measures,
    returns_by_candidates,
)
from benchmarks.plan import CLASSES, Run
from benchmarks.static_targets import ACTION_DIM, LAWS, N_SAMPLES, exact_draws, model_of_law, sampled_actions, train_on_law
from benchmarks.store import Store, aside_of, write_whole
from benchmarks.wrappers import ActionRepeat
from sb3_dqs.inspection.evaluation import BANDWIDTH, N_DIRECTIONS, Episode, goals_of, roll_out
from sb3_dqs.inspection.metrics import (
    boltzmann_masses,
    maximum_mean_discrepancy,
    sliced_wasserstein_2,
    total_variation,
)

PACKAGES = (
    *("sb3-dqs", "stable-baselines3", "sb3-contrib", "torch", "gymnasium", "numpy"),
    *("mujoco", "box2d", "shimmy", "dm-control", "gymnasium-robotics"),
)
REPOSITORY = Path(__file__).parent.parent

# What a run depends on, as glob patterns, and files among it that may change meanwhile
TRAINING_CODE = (
    *("benchmarks/plan.py", "benchmarks/train.py", "benchmarks/measures.py", "benchmarks/wrappers.py"),
    *("benchmarks/static_targets.py", "benchmarks/shapes.py"),
    *("sb3_dqs/*.py", "sb3_dqs/diffusion/*.py", "sb3_dqs/envs/*.py", "sb3_dqs/envs/data/*.csv"),
    *("sb3_dqs/inspection/evaluation.py", "sb3_dqs/inspection/metrics.py"),
)
NOT_TRAINING_CODE = ("__main__.py", "command_line.py", "extras.py", "usage.py", "version.py")

# Of SB3: a longer buffer than the default would be another algorithm, one longer than the run only costs memory
DEFAULT_BUFFER_SIZE = 1_000_000

# Start states of evaluation: the same in all runs, for deterministic and sampled episodes, and none of training
EVALUATION_SEED = 10_000

# Of the noise of sampled actions
SAMPLING_SEED = 20_000

# A continued run's episodes start elsewhere than those of evaluation and of the first part
CONTINUATION_SEED = 1_000_000_000

# Of several environments at once each has a seed of its own, counted up from the first: runs share none
SEVERAL_ENVS_SEED = 1_000_000
SEEDS_APART = 1_000


def train(run: Run, store: Store | None, device: str, commit: dict[str, Any]) -> dict[str, Any]:
    """
    Train and evaluate.

    :param run: what to do
    :param store: keeps the state after each evaluation, and continues from there; None starts afresh
    :param device: of torch
    :param commit: of the code, as :func:`commit_of_code` gives it before any training: it may have moved on since
    :return: the result: settings, records, measures, versions
    """
    th.set_num_threads(1)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    content = train_static(run) if "law" in run.env_spec else train_agent(run, store, device)
    return {
        "key": run.key,
        "run": run.__dict__,
        **content,
        **origin(),
        **commit,
        "machine": {"processor": processor(), "cores": os.cpu_count(), "device": device},
        "started": started,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def train_agent(run: Run, store: Store | None, device: str) -> dict[str, Any]:
    """Learn from an environment; the state is kept after each evaluation."""
    checkpoints = None if store is None else Checkpoints(store.checkpoints(run))
    env = make_training_env(run)
    model, evaluation = checkpoints.load(run, env, device) if checkpoints is not None else (None, None)
    if model is None or evaluation is None:
        # a copy, since SB3 writes into policy_kwargs
        settings: dict[str, Any] = {"buffer_size": min(run.steps, DEFAULT_BUFFER_SIZE), **copy.deepcopy(run.settings)}
        learning_rate = settings.get("learning_rate")
        if isinstance(learning_rate, str):
            settings["learning_rate"] = falling_to_zero(learning_rate)
        if "policy_kwargs" in settings:
            settings["policy_kwargs"] = with_classes(settings["policy_kwargs"])
        model = CLASSES[run.class_name]("MlpPolicy", env, seed=run.seed, device=device, **settings)
        if isinstance(env, VecEnv):
            env.seed(SEVERAL_ENVS_SEED + SEEDS_APART * run.seed)
        evaluation = Evaluation(run)
    evaluation.checkpoints = checkpoints
    model.learn(
        run.steps - model.num_timesteps, callback=evaluation, log_interval=10**9, reset_num_timesteps=model.num_timesteps == 0
    )
    with untouched_randomness():
        move = run.env_spec.get("move_favourite")
        if move is not None:  # the others know the world as it was
            measures = recovery_measures(evaluation.records, move["at"], move["recovered_at"])
        else:
            measures = final_measures(model, evaluation.envs[0], evaluation.last_episodes, EVALUATION_SEED)
        if run.evaluation["deterministic_forms"]:
            measures |= returns_by_candidates(model, evaluation.deterministic_envs, EVALUATION_SEED)
            n_episodes = run.evaluation["stochastic_episodes"]
            measures |= goals_by_temperature(model, evaluation.envs[0], n_episodes, EVALUATION_SEED)
    env.close()
    return {"records": evaluation.records, "measures": measures, "continued_at": evaluation.continued_at}


def falling_to_zero(text: str) -> LinearSchedule:
    """
    A learning rate of a tier that is no number: ``lin_0.001`` falls linearly from there to 0, as in rl-zoo3's settings files.

    :param text: ``lin_`` and a number
    :return: schedule
    :raises ValueError: if it is not of that form
    """
    kind, _, start = text.partition("_")
    try:
        if kind == "lin":
            return LinearSchedule(float(start), 0.0, 1.0)
    except ValueError:
        pass
    raise ValueError(f"learning_rate must be a number or like lin_0.001, got {text!r}")


def with_classes(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    :param policy_kwargs: of a tier, where a class is a text such as ``torch.nn.ELU``, as in the record of a run
    :return: the same with the classes themselves
    :raises ValueError: if there is no class of that name
    """
    return {name: _class_named(value) if _names_a_class(name, value) else value for name, value in policy_kwargs.items()}


def _names_a_class(name: str, value: Any) -> bool:
    return isinstance(value, str) and (name.endswith("_class") or name == "activation_fn")


def _class_named(path: str) -> type:
    found = pydoc.locate(path)
    if not isinstance(found, type):
        raise ValueError(f"there is no class {path!r}; write its module too, as in torch.nn.ELU")
    return found


def make_env(run: Run) -> gym.Env:
    """The environment of a run, with its wrappers."""
    for module in run.env_spec.get("imports", ()):
        importlib.import_module(module)
    env = gym.make(run.env_spec["id"], **run.env_spec.get("kwargs", {}))
    for name in run.env_spec.get("wrappers", ()):
        env = getattr(gym.wrappers, name)(env)
    n_repeats = run.env_spec.get("action_repeat", 1)
    return env if n_repeats == 1 else ActionRepeat(env, n_repeats)


def make_training_env(run: Run) -> gym.Env | VecEnv:
    """The environment that the agent acts in, or several at once."""
    n_envs = run.env_spec.get("n_envs", 1)
    return make_env(run) if n_envs == 1 else make_vec_env(lambda: make_env(run), n_envs)


class Evaluation(BaseCallback):
    """
    Deterministic and sampled episodes in separate environments, every ``evaluation["every"]`` steps. Episode i of either kind
    is reset with ``EVALUATION_SEED + i``, so both start from the same states.

    :param run: what is trained
    """

    def __init__(self, run: Run):
        super().__init__()
        self.run = run
        self.records: list[dict[str, Any]] = []
        self.continued_at: list[int] = []
        self.checkpoints: Checkpoints | None = None
        self.last_episodes: list[Episode] = []

    @functools.cached_property
    def envs(self) -> list[gym.Env]:
        """Environments of evaluation, made once."""
        settings = self.run.evaluation
        return [make_env(self.run) for _ in range(max(settings["episodes"], settings["stochastic_episodes"]))]

    @property
    def deterministic_envs(self) -> list[gym.Env]:
        """As many of them as there are deterministic episodes."""
        return self.envs[: self.run.evaluation["episodes"]]

    def _on_training_start(self) -> None:
        self.seconds = self.records[-1]["seconds"] if self.records else 0.0
        self.cpu_seconds = self.records[-1]["cpu_seconds"] if self.records else 0.0
        self._start_clocks()

    def change_the_world_again(self, training_env: VecEnv) -> None:
        """
        :param training_env: of a run that goes on, before its first episode
        """
        for record in self.records:
            if "moved_goal" in record:
                self._move_goal(record["moved_goal"], training_env)

    def _on_step(self) -> bool:
        if self.num_timesteps % self.run.evaluation["every"] == 0 or self.num_timesteps == self.run.steps:
            self.seconds += time.perf_counter() - self.clock
            self.cpu_seconds += time.process_time() - self.cpu_clock
            self.records.append(self._record())
            if self.num_timesteps == self.run.env_spec.get("move_favourite", {}).get("at"):
                favourite = favourite_goal(self.last_episodes, self.envs[0])
                self.records[-1]["moved_goal"] = favourite
                self._move_goal(favourite, self.training_env)
            if self.checkpoints is not None and self.num_timesteps < self.run.steps:
                self.checkpoints.save(self.model, self.records, self.continued_at)  # type: ignore[arg-type]
            self._start_clocks()
        return True

    def _move_goal(self, goal: int, training_env: VecEnv) -> None:
        position = self.run.env_spec["move_favourite"]["to"][goal]
        for env in (*self.envs, *training_env.get_attr("unwrapped")):
            env.unwrapped.move_goal(goal, position)

    def _start_clocks(self) -> None:
        self.clock, self.cpu_clock = time.perf_counter(), time.process_time()

    def _record(self) -> dict[str, Any]:
        with untouched_randomness():
            deterministic = roll_out(self.model, self.deterministic_envs, EVALUATION_SEED, deterministic=True)
            th.manual_seed(SAMPLING_SEED)
            stochastic_envs = self.envs[: self.run.evaluation["stochastic_episodes"]]
            self.last_episodes = roll_out(self.model, stochastic_envs, EVALUATION_SEED, deterministic=False)
        goals = goals_of(self.last_episodes, self.envs[0])
        record: dict[str, Any] = {
            "steps": self.num_timesteps,
            "seconds": round(self.seconds, 2),
            "cpu_seconds": round(self.cpu_seconds, 2),
            # of the first episode of either kind, counted up from there
            "start_seed": EVALUATION_SEED,
            "deterministic": [round(episode.total_reward, 4) for episode in deterministic],
            "stochastic": [round(episode.total_reward, 4) for episode in self.last_episodes],
            "goals": None if goals is None else dataclasses.asdict(goals),
            "logged": {k: float(v) for k, v in self.logger.name_to_value.items() if k.startswith("train/")},
        }
        run = self.run
        print(
            f"{run.environment} {run.algorithm} seed {run.seed}: {self.num_timesteps} steps, "
            f"{self.seconds:.0f} s, return {np.mean(record['deterministic']):.2f}, "
            f"stochastic {np.mean(record['stochastic']):.2f}",
            flush=True,
        )
        return record


class Checkpoints:
    """
    The state of an unfinished run: model, replay buffer, random state and records, kept whole or not at all.

    What other code, other versions or another device left is laid aside until the run is finished, so that no run is of two
    kinds.

    :param folder: of this run alone
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def save(self, model: OffPolicyAlgorithm, records: list[dict[str, Any]], continued_at: list[int]) -> None:
        """Keep this state, and give up the one before."""
        unfinished = self.folder / "unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        model.save(unfinished / "model")
        model.save_replay_buffer(unfinished / "replay")
        (unfinished / "random.pkl").write_bytes(pickle.dumps(random_states()))
        kind = {**origin(), "device": model.device.type}
        write_whole(unfinished / "records.json", json.dumps({**kind, "records": records, "continued_at": continued_at}))
        older = self._complete()
        # a complete state is one that has its name
        unfinished.rename(self.folder / f"steps-{model.num_timesteps}")
        for path in older:
            shutil.rmtree(path)

    def load(self, run: Run, env: gym.Env | VecEnv, device: str) -> tuple[OffPolicyAlgorithm | None, Evaluation | None]:
        """
        :return: model and evaluation of the latest state of this code, or (None, None). The episode under way at that time is
            lost: the environment starts a new one, with a seed that depends on the step.
        """
        complete = self._complete()
        if not complete:
            return None, None
        latest = complete[-1]
        kept = json.loads((latest / "records.json").read_text())
        kind = {**origin(), "device": get_device(device).type}
        if {name: kept.get(name) for name in kind} != kind:
            aside = self._lay_aside()
            print(f"{run.name} starts anew: its state is of other code, versions or device, and now in {aside}", flush=True)
            return None, None
        model = CLASSES[run.class_name].load(latest / "model", env=env, device=device)
        model.load_replay_buffer(latest / "replay")
        vec_env = model.get_env()
        assert vec_env is not None
        vec_env.seed(CONTINUATION_SEED + SEEDS_APART * run.seed + model.num_timesteps)
        evaluation = Evaluation(run)
        evaluation.records = kept["records"]
        evaluation.continued_at = [*kept["continued_at"], model.num_timesteps]
        evaluation.change_the_world_again(vec_env)
        restore_random_states(pickle.loads((latest / "random.pkl").read_bytes()))
        return model, evaluation

    def _lay_aside(self) -> Path:
        aside = aside_of(self.folder)
        shutil.rmtree(aside, ignore_errors=True)
        return self.folder.rename(aside)

    def _complete(self) -> list[Path]:
        return sorted(self.folder.glob("steps-*"), key=lambda path: int(path.name.removeprefix("steps-")))


def random_states() -> dict[str, Any]:
    """Global random states of torch, of its GPUs if any, of numpy and of Python."""
    gpus = th.cuda.get_rng_state_all() if th.cuda.is_available() else []
    return {"torch": th.get_rng_state(), "gpus": gpus, "numpy": np.random.get_state(), "python": random.getstate()}


def restore_random_states(states: dict[str, Any]) -> None:
    th.set_rng_state(states["torch"])
    if states["gpus"]:
        th.cuda.set_rng_state_all(states["gpus"])
    np.random.set_state(states["numpy"])
    random.setstate(states["python"])


@contextlib.contextmanager
def untouched_randomness() -> Iterator[None]:
    """Whatever is drawn inside leaves the global random states as they were."""
    states = random_states()
    try:
        yield
    finally:
        restore_random_states(states)


def train_static(run: Run) -> dict[str, Any]:
    """Train the policy on a law in closed form, and measure the distance of its samples to the law."""
    log_density = LAWS[run.env_spec["law"]]
    model = model_of_law(CLASSES[run.class_name], log_density, run.seed, **copy.deepcopy(run.settings))
    clock, cpu_clock = time.perf_counter(), time.process_time()
    train_on_law(model, run.steps)
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu_clock
    actions, draws = sampled_actions(model), exact_draws(log_density, N_SAMPLES)
    masses = boltzmann_masses(log_density, 1.0, ACTION_DIM, n_bins=20)
    measures = {
        "mmd": maximum_mean_discrepancy(actions, draws, BANDWIDTH),
        "sliced_w2": sliced_wasserstein_2(actions, draws, th.randn(N_DIRECTIONS, ACTION_DIM)),
        "total_variation": total_variation(actions, masses),
        "seconds": round(seconds, 2),
        "cpu_seconds": round(cpu_seconds, 2),
    }
    return {"records": [], "measures": measures, "continued_at": []}


def origin() -> dict[str, Any]:
    """What a result depends on beside its settings: the code, and the versions of packages."""
    return {"code": CODE, "versions": versions()}


def code_fingerprint() -> str:
    """Hash of the code that a run depends on, as the files are, committed or not."""
    hashed = hashlib.sha256()
    for pattern in TRAINING_CODE:
        for path in sorted(path for path in REPOSITORY.glob(pattern) if path.name not in NOT_TRAINING_CODE):
            hashed.update(f"{path.relative_to(REPOSITORY)}\n".encode() + path.read_bytes())
    return hashed.hexdigest()[:16]


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that a result depends on; None for those not installed."""

    def version_of(package: str) -> str | None:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return None

    return {"python": platform.python_version(), **{package: version_of(package) for package in PACKAGES}}


def commit_of_code() -> dict[str, Any]:
    """The commit that is checked out, and whether the code differs from it; None where this is no git checkout."""

    def git(*arguments: str) -> str | None:
        try:
            return subprocess.run(
                ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
            ).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    commit = git("rev-parse", "HEAD")
    changes = None if commit is None else git("status", "--porcelain", "--", "sb3_dqs", "benchmarks/*.py")
    return {"commit": commit, "uncommitted_changes": None if changes is None else bool(changes)}


def processor() -> str:
    """Name of the processor, as the system has it."""
    info = Path("/proc/cpuinfo")
    names: Sequence[str] = info.read_text().splitlines() if info.exists() else ()
    return next((line.split(":", 1)[1].strip() for line in names if line.startswith("model name")), platform.machine())


# Of the code that is running: the files may change while it does
CODE = code_fingerprint()
