"""Are the numbers of the tables that a reader sees those of the committed runs, and the published ones?"""

import json

import numpy as np
import pytest

from benchmarks.plan import TIERS, load_tier
from benchmarks.published import published_curves
from tests.docs.markdown import REPOSITORY, codes, page, table

TIER = load_tier("mujoco")
ALGORITHMS = ("dqs", "sac", "crossq-256")
N_STEPS = 100_000
ROWS = {row[0]: row[1:] for row in table(page("README.md"), "return after 100,000 steps, each run")}


BENCHMARKS = page("docs/benchmarks.md")


def results(algorithm, environment):
    """Of the runs that are committed: seed -> records."""
    runs = [run for run in TIER.runs if (run.algorithm, run.environment) == (algorithm, environment)]
    paths = {run.seed: REPOSITORY / "benchmarks/results/mujoco" / f"{run.name}.json" for run in runs}
    return {seed: json.loads(path.read_text())["records"] for seed, path in sorted(paths.items()) if path.is_file()}


def returns(algorithm, environment):
    """Of the runs that are committed, by seed: the mean of the deterministic episodes at each evaluation."""
    return [
        {record["steps"]: float(np.mean(record["deterministic"])) for record in records}
        for records in results(algorithm, environment).values()
    ]


def course(records):
    """Mean deterministic returns, and those of sampled actions in brackets, as the documentation has them."""
    means = [(np.mean(record["deterministic"]), np.mean(record["stochastic"])) for record in records]
    return [f"{deterministic:.0f} ({stochastic:.0f})" for deterministic, stochastic in means]


def score(value, environment):
    low, high = TIER.scales[environment]
    return (value - low) / (high - low)


@pytest.mark.parametrize("environment", sorted(TIER.scales))
def test_returns_of_the_first_table_are_those_of_the_runs(environment):
    cells = ROWS[f"{environment}-v5"]
    for cell, algorithm in zip(cells, ALGORITHMS, strict=False):
        told = [float(number) for number in cell.split(", ")]
        assert told == pytest.approx([records[N_STEPS] for records in returns(algorithm, environment)], abs=1), algorithm
    of_task = published_curves()[TIER.published_tasks[environment]]
    of_sac = next(method for method in of_task if method.startswith("SAC (CrossQ authors"))
    published = [of_task[method][N_STEPS] for method in (of_sac, "CrossQ", "XQC utd2")]
    assert [float(cell) for cell in cells[len(ALGORITHMS) :]] == pytest.approx(published, abs=1)


@pytest.mark.parametrize(("row", "n_steps"), [("mean score", N_STEPS), ("after 50,000 steps", N_STEPS // 2)])
def test_scores_of_the_first_table_are_means_over_tasks_of_means_over_seeds(row, n_steps):
    for cell, algorithm in zip(ROWS[row], ALGORITHMS, strict=False):
        tasks = [np.mean([score(records[n_steps], e) for records in returns(algorithm, e)]) for e in TIER.scales]
        assert float(cell) == pytest.approx(np.mean(tasks), abs=0.0051), algorithm


@pytest.mark.parametrize("environment", [*sorted(TIER.scales), "mean score"])
def test_means_of_the_second_table_are_those_of_the_runs(environment):
    rows = {row[0]: row[1:] for row in table(BENCHMARKS, "after 50,000 and 100,000 steps")}
    for cell, algorithm in zip(rows[environment], ALGORITHMS, strict=False):
        for told, n_steps in zip(cell.split(", "), (N_STEPS // 2, N_STEPS), strict=True):
            means = {e: np.mean([records[n_steps] for records in returns(algorithm, e)]) for e in TIER.scales}
            scores = [score(mean, e) for e, mean in means.items()]
            tolerance, mean = (0.00051, np.mean(scores)) if environment == "mean score" else (0.51, means[environment])
            assert float(told) == pytest.approx(mean, abs=tolerance), (algorithm, n_steps)


@pytest.mark.parametrize(("algorithm", "header"), [("dqs", "seed, after"), ("crossq-256", "after")])
def test_courses_are_those_of_all_runs(algorithm, header):
    told = {row[0]: row[1:] for row in table(BENCHMARKS, header, "20,000", "30,000")}
    runs = {
        f"{environment}, {seed}": course(records[1:])
        for environment in TIER.scales
        for seed, records in results(algorithm, environment).items()
    }
    assert told.keys() == runs.keys()
    for name, cells in runs.items():
        assert told[name][: len(cells)] == cells, name


def test_all_tiers_are_told():
    told = {name for row in table(BENCHMARKS, "tier", "what") for name in codes(row[0])}
    assert told == {path.stem for path in TIERS.glob("*.yml")}
