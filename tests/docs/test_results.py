"""Are the numbers of the first table that a reader sees those of the committed runs, and the published ones?"""

import json

import numpy as np
import pytest

from benchmarks.plan import load_tier
from benchmarks.published import published_curves
from tests.docs.markdown import REPOSITORY, page, table

TIER = load_tier("mujoco")
ALGORITHMS = ("dqs", "sac", "crossq-256")
N_STEPS = 100_000
ROWS = {row[0]: row[1:] for row in table(page("README.md"), "return after 100,000 steps, each run")}


def returns(algorithm, environment):
    """Of the runs that are committed, by seed: the mean of the deterministic episodes at each evaluation."""
    runs = [run for run in TIER.runs if (run.algorithm, run.environment) == (algorithm, environment)]
    paths = [REPOSITORY / "benchmarks/results/mujoco" / f"{run.name}.json" for run in sorted(runs, key=lambda run: run.seed)]
    results = [json.loads(path.read_text())["records"] for path in paths if path.is_file()]
    return [{record["steps"]: float(np.mean(record["deterministic"])) for record in records} for records in results]


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
