"""
How do DQS and the baselines learn? Run a tier of ``benchmarks/tiers``: algorithms x environments x seeds.

    python -m benchmarks.run small --algorithms dqs sac --environments MultiGoal --seeds 0 1 --jobs 2
    python -m benchmarks.run small --list
    python -m benchmarks.run mujoco --ray-address auto

Each run writes one file under ``benchmarks/results/TIER``, whose name holds a hash of its settings and of the defaults that it
took. Runs whose file exists are not repeated; an unfinished run goes on from its last evaluation. Everything may be killed at
any moment and started again; how many runs are left then, and for how many hours, is shown first. With ``--ray-address`` each
run is a task of a Ray cluster, started again from its beginning elsewhere where its node dies. The hash does not see the code:
after a change of an algorithm, give up the results that it made stale; the report shows from which commits they are.
"""

import argparse
import os
import statistics
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from sb3_dqs.extras import install_command, require

require("joblib", "tqdm", "yaml")

import joblib
from tqdm import tqdm

from benchmarks.plan import Run, load_tier
from benchmarks.store import RESULTS, Store
from benchmarks.train import REPOSITORY, commit_of_code, train

# How often Ray starts a task again whose node or worker died
RAY_RETRIES = 3

# Of a run that another process is at: not done here, and no failure
HELD = "held by another process"

# What became of a run: the error, or None
Outcome = tuple[Run, str | None]


def run_here(run: Run, store: Store, device: str, commit: dict[str, Any]) -> Outcome:
    """
    Train in this process and save the result, unless it exists or another process is at it.

    :param run: what to do
    :param store: where the result belongs
    :param device: of torch
    :param commit: of the code
    :return: the run, and its error, if any
    """
    with store.locked(run) as ours:
        if not ours:
            return run, HELD
        # it may have been finished while it waited in the queue
        if store.load(run) is None:
            try:
                store.save(run, train(run, store, device, commit))
            except Exception:
                return run, traceback.format_exc()
    return run, None


def run_locally(runs: Sequence[Run], store: Store, n_jobs: int, device: str) -> Iterator[Outcome]:
    """
    Processes of this machine, one thread each.

    :param runs: to do
    :param store: where results belong
    :param n_jobs: runs at a time
    :param device: of torch
    :return: outcomes in the order in which runs end
    """
    # the workers' libraries read these when they are imported
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    commit = commit_of_code()
    parallel = joblib.Parallel(n_jobs=n_jobs, return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1)
    yield from parallel(joblib.delayed(run_here)(run, store, device, commit) for run in runs)


def run_on_ray(
    runs: Sequence[Run], store: Store, address: str, task: Callable[[Run, str, dict[str, Any]], dict[str, Any]], device: str
) -> Iterator[Outcome]:
    """
    Tasks of a Ray cluster, one core each. Nodes share no files: the result comes back here and is saved here, once.

    :param runs: to do
    :param store: where results belong
    :param address: of the cluster, as ``ray.init`` takes it
    :param task: what a node does for a run, given the device and the commit of the code: trains and returns the result
    :param device: of torch
    :return: outcomes in the order in which runs end
    :raises ImportError: where Ray is not installed
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError(f"--ray-address needs Ray; install it with: {install_command('ray')}") from error
    # The code alone: nobody knows what else lies in a clone, such as environments of gigabytes
    others = [f"/{path.name}" for path in REPOSITORY.iterdir() if path.name not in ("sb3_dqs", "benchmarks")]
    runtime_env = {
        "working_dir": str(REPOSITORY),
        "excludes": [*others, "/benchmarks/results", "__pycache__"],
        "env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
    }
    ray.init(address=address, runtime_env=runtime_env, ignore_reinit_error=True)
    remote_task = ray.remote(num_cpus=1, num_gpus=int(device.startswith("cuda")), max_retries=RAY_RETRIES)(task)
    commit = commit_of_code()
    waiting = {remote_task.remote(run, device, commit): run for run in runs}
    while waiting:
        (finished,), _ = ray.wait(list(waiting), num_returns=1)
        run = waiting.pop(finished)
        try:
            store.save(run, ray.get(finished))
            yield run, None
        except ray.exceptions.RayError as error:
            yield run, str(error)


def train_on_node(run: Run, device: str, commit: dict[str, Any]) -> dict[str, Any]:
    """What a node of the cluster does for a run."""
    return train(run, None, device, commit)


def follow(outcomes: Iterable[Outcome], n_runs: int) -> list[tuple[Run, str]]:
    """
    Show progress.

    :param outcomes: as runs end
    :param n_runs: how many there will be
    :return: the failed ones; those held by another process are named and not counted
    """
    failed, n_held = [], 0
    with tqdm(total=n_runs, unit="run", dynamic_ncols=True) as bar:
        for run, error in outcomes:
            if error == HELD:
                n_held += 1
                bar.write(f"{run.name} is {HELD}", file=sys.stderr)
            elif error is not None:
                failed.append((run, error))
                bar.write(f"FAILED {run.name}\n{error}", file=sys.stderr)
            bar.set_postfix_str(f"last: {run.environment} {run.algorithm} seed {run.seed}")
            bar.update()
    if n_held:
        print(f"{n_held} of {n_runs} runs are held by other processes and were not done here", file=sys.stderr)
    return failed


def hours_left(runs: Iterable[Run], store: Store) -> tuple[float, Counter[str]]:
    """
    :param runs: to do
    :param store: whose finished results of the same algorithm and environment tell how long a step takes
    :return: hours of one process; and of algorithm and environment without a finished result, not counted in the hours, how
        many runs there are
    """
    hours, unknown = 0.0, Counter[str]()
    for (algorithm, environment), group in groupby(sorted(runs, key=pair_of), key=pair_of):
        runs_of_pair, finished = list(group), store.of_pair(algorithm, environment)
        if finished:
            per_step = statistics.median(seconds_per_step(result) for result in finished)
            hours += per_step * sum(run.steps for run in runs_of_pair) / 3600
        else:
            unknown[f"{algorithm} in {environment}"] = len(runs_of_pair)
    return hours, unknown


def pair_of(run: Run) -> tuple[str, str]:
    """Algorithm and environment."""
    return run.algorithm, run.environment


def seconds_per_step(result: dict[str, Any]) -> float:
    """Of training and evaluation; of training alone where the run was interrupted: nobody knows for how long."""
    if result["continued_at"]:
        seconds = result["records"][-1]["seconds"]
    else:
        started, finished = (datetime.fromisoformat(result[name]) for name in ("started", "finished"))
        seconds = (finished - started).total_seconds()
    return seconds / result["run"]["steps"]


def outlook(runs: Sequence[Run], store: Store, n_jobs: int | None) -> str:
    """
    :param runs: to do
    :param store: of finished results
    :param n_jobs: runs at a time; None where that is not known
    :return: how many runs are left, and how many hours they will take
    """
    hours, unknown = hours_left(runs, store)
    n_unknown = sum(unknown.values())
    sentences = [f"{len(runs)} runs left"]
    if n_unknown < len(runs):
        together = "" if n_jobs is None else f", {hours / n_jobs:.1f} with {n_jobs} at a time"
        sentences.append(f"about {hours:.1f} hours of one process{together}")
    if unknown:
        pairs = ", ".join(f"{pair} ({n})" for pair, n in unknown.items())
        sentences.append(f"no estimate for {n_unknown} of them, without a finished run to judge by: {pairs}")
    return "; ".join(sentences)


def parsed_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tier", help="name of a file of benchmarks/tiers, or path of a YAML file like them")
    parser.add_argument("--algorithms", nargs="+", metavar="NAME", help="all that are not on request, by default")
    parser.add_argument("--environments", "--envs", nargs="+", metavar="NAME", help="all that are not on request, by default")
    parser.add_argument("--seeds", type=int, nargs="+", metavar="SEED", help="all of the tier, by default")
    parser.add_argument("--output", type=Path, help="folder of the results; benchmarks/results/TIER by default")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="runs at a time on this machine, one thread each")
    parser.add_argument("--device", default="cpu", help="of torch")
    parser.add_argument("--ray-address", help="of a Ray cluster that does the runs: auto, or HOST:PORT")
    parser.add_argument("--list", action="store_true", help="print the runs and whether each is done, and do nothing else")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed_arguments(arguments)
    try:
        tier = load_tier(options.tier)
        runs = tier.select(options.algorithms, options.environments, options.seeds)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    store = Store(options.output or RESULTS / tier.name)
    if options.list:
        for run in runs:
            print("done" if store.load(run) else "to do", run.name)
        return 0
    to_do = [run for run in runs if store.load(run) is None]
    print(f"{tier.name}: {len(runs)} runs, {len(runs) - len(to_do)} of them done; results in {store.folder}", flush=True)
    if not to_do:
        return 0
    n_jobs = joblib.effective_n_jobs(options.jobs) if options.ray_address is None else None
    print(outlook(to_do, store, n_jobs), flush=True)
    if options.ray_address is None:
        outcomes = run_locally(to_do, store, options.jobs, options.device)
    else:
        outcomes = run_on_ray(to_do, store, options.ray_address, train_on_node, options.device)
    failed = follow(outcomes, len(to_do))
    for run, message in failed:
        print(f"failed: {run.name}: {message.strip().splitlines()[-1]}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    sys.exit(main())
