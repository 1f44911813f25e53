"""
What do the results of a tier say? Tables, pictures and one HTML page.

    python -m benchmarks.report small

Reads the results of ``benchmarks/results/TIER`` whose key is in the tier's plan, and writes ``report.md``, ``report.html``
(self-contained) and PNGs beside them. A run has two scores, on the scale that the tier names, where as a rule uniform actions
earn 0 and a reference return earns 1: the area under its curve of deterministic returns over steps, divided by the steps from
the first evaluation to the last; and the last point of that curve. Aggregates are those of rliable (arXiv:2108.13264):
interquartile mean and probability of improvement, with 95 % stratified bootstrap intervals, in which environments may differ
in how many seeds they have. Where the tier names published methods, their means over seeds (see :mod:`benchmarks.published`)
stand beside its own.
"""

import argparse
import base64
import html
import itertools
import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sb3_dqs.extras import require

require("matplotlib", "rliable", "yaml")

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rliable import metrics as rliable_metrics

from benchmarks.plan import Run, Tier, load_tier
from benchmarks.published import published_curves
from benchmarks.store import RESULTS, Store, write_whole

N_BOOTSTRAP = 2_000
BOOTSTRAP_SEED = 0
# Resampling fewer seeds than this says nothing about the spread between seeds
MIN_SEEDS_FOR_INTERVAL = 3
PANELS_PER_ROW = 3
# Of published curves: grey, told apart by dashes and markers
LINE_STYLES = ("-", "--", ":", "-.", "o-", "s--", "^:", "v-.")

Result = dict[str, Any]
Scale = tuple[float, float]
# Scores of runs, one array for each environment
Scores = list[np.ndarray]
# (algorithm, environment) -> results in the order of seeds
Groups = dict[tuple[str, str], list[Result]]


@dataclass(frozen=True)
class Table:
    """
    :param title: what it shows
    :param note: how to read it
    :param header: of the columns
    :param rows: cells as text
    """

    title: str
    note: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        return f"## {self.title}\n\n{self.note}\n\n{body}\n"

    def html(self) -> str:
        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "\n".join([row(self.header, "th"), *(row(cells, "td") for cells in self.rows)])
        return f"<h2>{html.escape(self.title)}</h2>\n<p>{html.escape(self.note)}</p>\n<table>\n{body}\n</table>"


def load_results(tier: Tier, store: Store) -> tuple[Groups, list[Run]]:
    """
    :param tier: whose plan counts: results of other settings in the same folder are left out
    :param store: of the results
    :return: results by algorithm and environment, and the runs without a result
    """
    groups: Groups = {}
    missing = []
    for run in tier.runs:
        result = store.load(run)
        if result is None:
            missing.append(run)
        else:
            groups.setdefault((run.algorithm, run.environment), []).append(result)
    return groups, missing


def returns_over_steps(result: Result) -> tuple[np.ndarray, np.ndarray]:
    """
    :param result: of a run
    :return: steps and mean deterministic return of each evaluation
    """
    points = [(record["steps"], np.mean(record["deterministic"])) for record in result["records"]]
    return np.array([steps for steps, _ in points]), np.array([mean for _, mean in points])


def normalised_last_return(result: Result, scale: Scale) -> float:
    """
    :param result: of a run
    :param scale: the returns that count as 0 and as 1
    :return: mean deterministic return of the last evaluation on the scale; not clipped
    """
    return float((returns_over_steps(result)[1][-1] - scale[0]) / (scale[1] - scale[0]))


def normalised_area(result: Result, scale: Scale) -> float:
    """
    Area under the curve of deterministic returns, per step, from the first evaluation to the last.

    :param result: of a run
    :param scale: the returns that count as 0 and as 1
    :return: 0 where every return is the first of the scale, 1 where it is the second; not clipped
    """
    steps, returns = returns_over_steps(result)
    scores = (returns - scale[0]) / (scale[1] - scale[0])
    return float(scores[0]) if len(steps) == 1 else float(np.trapezoid(scores, steps) / (steps[-1] - steps[0]))


# What a run is compared by, in the order of the columns
SCORES: dict[str, Callable[[Result, Scale], float]] = {
    "area under the curve": normalised_area,
    "last return": normalised_last_return,
}


def scores_of(groups: Groups, algorithm: str, environments: Sequence[str], tier: Tier, score: str) -> Scores:
    """
    :return: one of ``SCORES``, of each run in each of the environments
    """
    return [
        np.array([SCORES[score](result, tier.scales[name]) for result in groups[algorithm, name]]) for name in environments
    ]


def returns_at(result: Result, step: int, mode: str = "deterministic") -> float:
    """
    :param result: of a run
    :param step: of one of its evaluations
    :param mode: ``"deterministic"`` or ``"stochastic"``
    :return: mean return there
    """
    (value,) = [np.mean(record[mode]) for record in result["records"] if record["steps"] == step]
    return float(value)


def score_table(groups: Groups, tier: Tier) -> Table | None:
    """
    Mean over all environments with a scale that are not on request, of the returns at the steps that the tier names, on the
    scale; of the algorithms that have all of them, and of the published methods that do.
    """
    environments = [name for name in tier.scales if name not in tier.on_request]
    scored = scored_pairs(groups, tier)
    complete = [algorithm for algorithm in scored if set(scored[algorithm]) >= set(environments)]
    if not tier.score_at or not environments or not complete:
        return None

    def score(value: float, environment: str) -> float:
        low, high = tier.scales[environment]
        return (value - low) / (high - low)

    rows = []

    def add(label: str, results_of: dict[str, list[Result]], mode: str = "deterministic") -> None:
        of_steps = [
            [np.array([score(returns_at(x, step, mode), name) for x in results]) for name, results in results_of.items()]
            for step in tier.score_at
        ]
        n_seeds = {len(results) for results in results_of.values()}
        rows.append([label, _n_seeds(n_seeds), *(with_interval(scores, mean_of_means) for scores in of_steps)])

    for algorithm in complete:
        results_of = {name: groups[algorithm, name] for name in environments}
        add(algorithm, results_of)
        add(f"{algorithm}, sampled actions", results_of, "stochastic")
        fresh = {name: [x for x in results if _is_fresh(x, tier, name)] for name, results in results_of.items()}
        if algorithm == tier.runs[0].algorithm and all(fresh.values()) and fresh != results_of:
            add(f"{algorithm}, runs completed after its settings were frozen", fresh)
    for method in tier.published_methods:
        curves_of = {name: _published_returns(tier, name, method) for name in environments}
        of_steps = [[score(c[step], name) for name, c in curves_of.items() if step in c] for step in tier.score_at]
        cells = [f"{np.mean(scores):.3f}" if len(scores) == len(environments) else "" for scores in of_steps]
        if any(cells):
            rows.append([f"{method}, published", "", *cells])
    note = (
        f"Mean over {', '.join(environments)} of the deterministic return, where no other is named, on the scale. Published "
        "rows are means over seeds from their authors' files, on older versions of the tasks."
    )
    header = ["algorithm", "seeds", *(f"at {step:,} steps" for step in tier.score_at)]
    return Table("Score", note, header, rows)


def returns_table(groups: Groups, tier: Tier) -> Table | None:
    """
    Deterministic returns in each environment with a scale at the steps that the tier names, of every algorithm that has a
    result there and of the published methods.
    """
    environments = [name for name in tier.scales if any(of == name for _, of in groups)]
    columns = [(name, step) for name in environments for step in tier.score_at]
    if not columns:
        return None
    rows = []
    for algorithm in scored_pairs(groups, tier):
        of_algorithm = [(groups.get((algorithm, name), []), step) for name, step in columns]
        cells = [_mean_and_range([returns_at(x, step) for x in results]) if results else "" for results, step in of_algorithm]
        rows.append([algorithm, _n_seeds({len(results) for results, _ in of_algorithm if results}), *cells])
    for method in tier.published_methods:
        published = [_published_returns(tier, name, method).get(step) for name, step in columns]
        if any(value is not None for value in published):
            rows.append([f"{method}, published", "", *("" if value is None else f"{value:.0f}" for value in published)])
    note = "Mean over seeds (smallest to largest). Published rows are means over seeds, on older versions of the tasks."
    header = ["algorithm", "seeds", *(f"{name}, {step:,} steps" for name, step in columns)]
    return Table("Deterministic returns", note, header, rows)


def _is_fresh(result: Result, tier: Tier, environment: str) -> bool:
    return not tier.fresh_seeds or result["run"]["seed"] in tier.fresh_seeds.get(environment, ())


def _published_returns(tier: Tier, environment: str, method: str) -> dict[int, float]:
    """Steps of the agent -> mean return; empty where nothing is published."""
    curve = published_curves().get(tier.published_tasks.get(environment, ""), {}).get(method, {})
    # published over steps of the environment, with the same action repeat
    return {step // tier.action_repeat(environment): mean for step, mean in curve.items()}


def with_interval(scores: Scores, statistic: Callable[[Scores], float]) -> str:
    """
    :param scores: of runs, one array for each environment
    :param statistic: of such scores
    :return: its value, and the ends of its 95 % stratified bootstrap interval unless there are too few seeds for one, or all
        resampled values are equal
    """
    value = f"{statistic(scores):.3f}"
    if min(map(len, scores)) < MIN_SEEDS_FOR_INTERVAL:
        return value
    # as rliable does it, whose own wants as many seeds of each environment
    rng = np.random.default_rng(BOOTSTRAP_SEED)
    resampled = [statistic([rng.choice(column, len(column)) for column in scores]) for _ in range(N_BOOTSTRAP)]
    low, high = np.percentile(resampled, [2.5, 97.5])
    # runs that do not differ tell nothing of how much others would
    return value if low == high else f"{value} [{low:.3f}, {high:.3f}]"


def mean_of_means(scores: Scores) -> float:
    """All environments count alike, however many runs each has."""
    return float(np.mean([column.mean() for column in scores]))


def interquartile_mean(scores: Scores) -> float:
    """Over all runs of all environments, which count alike, however many runs each has."""
    n_each = math.lcm(*map(len, scores))
    return float(rliable_metrics.aggregate_iqm(np.concatenate([column.repeat(n_each // len(column)) for column in scores])))


def probability_of_improvement(scores: Scores) -> float:
    """
    :param scores: first those of one algorithm, then those of another one, in the same environments
    :return: that a run of the first scores higher than one of the other, mean over environments; a tie counts half. As rliable
        has it, whose own does a Mann-Whitney test each time, for most of the time of a report
    """
    ours, theirs = scores[: len(scores) // 2], scores[len(scores) // 2 :]
    wins = [np.mean((x[:, None] > y) + 0.5 * (x[:, None] == y)) for x, y in zip(ours, theirs, strict=True)]
    return float(np.mean(wins))


def scored_pairs(groups: Groups, tier: Tier) -> dict[str, list[str]]:
    """
    :return: algorithm -> environments with a scale in which it has results with records
    """
    scored: dict[str, list[str]] = {}
    for (algorithm, environment), results in groups.items():
        if environment in tier.scales and results[0]["records"]:
            scored.setdefault(algorithm, []).append(environment)
    return scored


def aggregate_tables(groups: Groups, tier: Tier) -> list[Table]:
    """
    Interquartile mean of the tier's first algorithm and of those that have all its environments; and the probability that it
    improves on each other, over the environments that both have.

    Environments on request do not count: few algorithms are run in them.
    """
    scored = {
        algorithm: counted
        for algorithm, names in scored_pairs(groups, tier).items()
        if (counted := [name for name in names if name not in tier.on_request])
    }
    reference = tier.runs[0].algorithm
    if reference not in scored:
        return []
    counted = sorted(scored[reference])
    complete = [algorithm for algorithm, names in scored.items() if set(names) >= set(counted)]
    left_out = [name for name in tier.scales if name not in counted and name not in tier.on_request]
    tables = [_iqm_table(groups, tier, complete, counted, left_out)]
    rows = []
    for other in scored:
        both = sorted(set(counted) & set(scored[other]))
        if other == reference or not both:
            continue
        pairs = [[scores_of(groups, name, both, tier, score) for name in (reference, other)] for score in SCORES]
        seeds = ", ".join(_n_seeds({len(column) for column in scores}) for scores in pairs[0])
        probabilities = [with_interval(ours + theirs, probability_of_improvement) for ours, theirs in pairs]
        of_each = [
            " / ".join(with_interval([ours[i], theirs[i]], probability_of_improvement) for ours, theirs in pairs)
            for i in range(len(both))
        ]
        in_environments = [of_each[both.index(name)] if name in both else "" for name in counted]
        rows.append([other, seeds, *probabilities, *in_environments])
    if rows:
        note = (
            f"That a run of {reference} scores higher than one of the other, mean over the environments that both have; "
            "a tie counts half. Of each environment that of both scores. In brackets 95 % intervals, where there are three "
            "seeds; three runs are all above three others by chance once in twenty times."
        )
        tables.append(Table("Probability of improvement", note, ["over", "seeds of both", *SCORES, *counted], rows))
    return tables


def _iqm_table(
    groups: Groups, tier: Tier, algorithms: Sequence[str], environments: Sequence[str], left_out: Sequence[str]
) -> Table:
    rows = []
    for algorithm in algorithms:
        both = [scores_of(groups, algorithm, environments, tier, score) for score in SCORES]
        means = [" / ".join(f"{column.mean():.3f}" for column in columns) for columns in zip(*both, strict=True)]
        mean = " / ".join(f"{mean_of_means(scores):.3f}" for scores in both)
        iqms = [with_interval(scores, interquartile_mean) for scores in both]
        rows.append([algorithm, _n_seeds({len(column) for column in both[0]}), *iqms, mean, *means])
    without = f" Left out, where the first algorithm has no result: {', '.join(left_out)}." if left_out else ""
    return Table(
        "Interquartile mean of normalised returns",
        f"Environments: {', '.join(environments)}.{without} 0 and 1 are the ends of the scales that the tier names. In "
        "brackets the 95 % stratified bootstrap interval, which holds the true mean of a normal law in 74 % of cases with "
        "three seeds, and in 84 % with five. Then means of both scores: over environments, and of each.",
        ["algorithm", "seeds", *SCORES, "mean", *environments],
        rows,
    )


def environment_table(groups: Groups, tier: Tier, environment: str) -> Table:
    """Returns of the last evaluation, cost, and the measures of every algorithm in one environment."""
    of_environment = {algorithm: results for (algorithm, name), results in groups.items() if name == environment}
    measures = list(dict.fromkeys(name for result in itertools.chain(*of_environment.values()) for name in result["measures"]))
    goals = [
        name
        for name in ("success", "goals_reached", "goal_entropy")
        if any(results[0]["records"] and results[0]["records"][-1]["goals"] for results in of_environment.values())
    ]
    has_records = any(results[0]["records"] for results in of_environment.values())
    header = ["algorithm", "seeds"]
    if has_records:
        header += ["steps", "deterministic return", "stochastic return", "minutes", "CPU minutes"]
    rows = []
    for algorithm, results in of_environment.items():
        row = [algorithm, str(len(results))]
        if has_records:
            last = [result["records"][-1] for result in results]
            row += [str(last[0]["steps"])]
            row += [_mean_and_range([np.mean(record[mode]) for record in last]) for mode in ("deterministic", "stochastic")]
            row += [_mean_and_range([record[clock] / 60 for record in last]) for clock in ("seconds", "cpu_seconds")]
            row += [_mean_and_range([record["goals"][name] for record in last]) for name in goals]
        row += [_of_those_measured(results, name) for name in measures]
        rows.append(row)
    note = "Last evaluation of each seed: mean (smallest to largest)."
    readable = [name.replace("_", " ") for name in (*goals, *measures)]
    return Table(environment, note, [*header, *readable], rows)


def origin_table(groups: Groups, missing: Sequence[Run], tier: Tier) -> Table:
    """Which code, versions and machines the results are from, and what is missing."""
    results = list(itertools.chain(*groups.values()))

    def distinct(values: Iterable[Any]) -> str:
        return ", ".join(sorted({str(value) for value in values}))

    machines = [result["machine"] for result in results]
    rows = [
        ["commit", distinct(result["commit"] for result in results)],
        ["hash of the code", distinct(result.get("code", "not recorded") for result in results)],
        ["uncommitted changes", distinct(result["uncommitted_changes"] for result in results)],
        ["processor", distinct(f"{machine['processor']}, {machine['cores']} cores" for machine in machines)],
        ["device", distinct(machine["device"] for machine in machines)],
        *([package, distinct(result["versions"][package] for result in results)] for package in results[0]["versions"]),
        ["runs interrupted and continued", str(sum(bool(result["continued_at"]) for result in results))],
        ["runs with a result", str(len(results))],
        ["runs of the plan without one", _missing(missing, tier)],
    ]
    return Table(
        "Where the results are from",
        "More than one value in a row: results of different code, versions or machines.",
        ["", ""],
        rows,
    )


def curves(groups: Groups, environments: Sequence[str], over: str, tier: Tier) -> Figure:
    """
    Deterministic returns over steps or over training time, one panel for each environment.

    Time is that of the processor where runs were trained on one thread of it, since they may have shared the machine, and
    time on the clock else.

    :param groups: results
    :param environments: names in the tier
    :param over: ``"steps"`` or ``"time"``
    :param tier: whose published methods are drawn beside them, over steps
    :return: lines of means over seeds for each algorithm, with bands from the smallest to the largest; thin lines of published
        means; of several panels, the last place is that of the legend
    """
    if len(environments) == 1:
        figure = Figure(figsize=(6, 4), layout="constrained")
        panels = [figure.subplots()]
    else:
        n_rows = math.ceil((len(environments) + 1) / PANELS_PER_ROW)
        figure = Figure(figsize=(4 * PANELS_PER_ROW, 3 * n_rows), layout="constrained")
        places = figure.subplots(n_rows, PANELS_PER_ROW).flatten()
        panels = list(places[: len(environments)])
        for place in places[len(environments) :]:
            place.set_axis_off()
    for axes, environment in zip(panels, environments, strict=True):
        _draw_curves(axes, groups, environment, over, tier)
        axes.set_title(environment)
        axes.grid(alpha=0.3)
    handles = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    counts = {name: {len(groups[name, where]) for where in environments if (name, where) in groups} for name, _ in groups}
    labels = [f"{name} ({_n_seeds(counts[name])})" if name in counts else name for name in handles]
    is_alone = len(environments) == 1
    (panels[0] if is_alone else places[len(environments)]).legend(
        list(handles.values()),
        labels,
        loc="best" if is_alone else "upper left",
        fontsize="x-small" if tier.published_methods else "small",
    )
    return figure


def _draw_curves(axes: Axes, groups: Groups, environment: str, over: str, tier: Tier) -> None:
    algorithms = list(dict.fromkeys(algorithm for algorithm, _ in groups))
    of_environment = {
        algorithm: results for (algorithm, name), results in groups.items() if name == environment and results[0]["records"]
    }
    devices = {result["machine"]["device"] for results in of_environment.values() for result in results}
    time = "cpu_seconds" if devices == {"cpu"} else "seconds"
    clock = "steps" if over == "steps" else time
    for algorithm, results in of_environment.items():
        returns = np.stack([returns_over_steps(result)[1] for result in results])
        x = np.mean([[record[clock] for record in result["records"]] for result in results], axis=0)
        x = x if over == "steps" else x / 60
        colour = f"C{algorithms.index(algorithm) % 10}"  # the same in every picture
        axes.plot(x, returns.mean(axis=0), marker=".", label=algorithm, color=colour)
        axes.fill_between(x, returns.min(axis=0), returns.max(axis=0), alpha=0.2, color=colour, linewidth=0)
    if over == "steps":
        last = max(result["records"][-1]["steps"] for results in of_environment.values() for result in results)
        for method, style in zip(tier.published_methods, itertools.cycle(LINE_STYLES), strict=False):
            published = {step: mean for step, mean in _published_returns(tier, environment, method).items() if step <= last}
            if published:
                version = re.search(r"-(v\d+)$", tier.published_tasks[environment])
                label = f"{method}, published{f' ({version[1]})' if version else ''}"
                axes.plot(
                    list(published), list(published.values()), style, label=label, color="0.5", linewidth=0.8, markersize=3
                )
    n_repeats = tier.action_repeat(environment)
    labels = {
        "steps": "environment steps" if n_repeats == 1 else f"steps of the agent, each {n_repeats} of the environment",
        "cpu_seconds": "minutes of training, CPU time of one thread",
        "seconds": "minutes of training, wall clock",
    }
    axes.set(xlabel=labels[clock], ylabel="deterministic return")


def _n_seeds(counts: set[int]) -> str:
    """How many an algorithm has, from the fewest to the most where environments differ."""
    if counts == {1}:
        return "1 seed"
    return f"{min(counts)} seeds" if len(counts) == 1 else f"{min(counts)} to {max(counts)} seeds"


def write_report(tier: Tier, store: Store, groups: Groups, missing: Sequence[Run]) -> Path:
    """
    :param tier: of the runs
    :param store: of their results; the report is written beside them
    :param groups: results, at least one
    :param missing: runs without a result
    :return: path of the Markdown report
    """
    environments = list(dict.fromkeys(environment for _, environment in groups))
    markdown = [f"# {tier.name}\n\n{tier.about}\n\n{HOW_TO_READ}\n"]
    page = [f"<h1>{html.escape(tier.name)}</h1>\n<p>{html.escape(tier.about)}</p>\n<p>{html.escape(HOW_TO_READ)}</p>"]

    def add(table: Table) -> None:
        markdown.append(table.markdown())
        page.append(table.html())

    if (table := score_table(groups, tier)) is not None:
        add(table)
    for table in aggregate_tables(groups, tier):
        add(table)

    def draw(name: str, shown: Sequence[str]) -> None:
        for over in ("steps", "time"):
            path = store.folder / f"{name}_{over}.png"
            curves(groups, shown, over, tier).savefig(path, dpi=110)
            markdown.append(f"![{name} over {over}]({path.name})\n")
            encoded = base64.b64encode(path.read_bytes()).decode()
            page.append(f'<img alt="{html.escape(name)} over {over}" src="data:image/png;base64,{encoded}">')

    if (table := returns_table(groups, tier)) is not None:
        add(table)
    recorded = [name for name in environments if any(r[0]["records"] for (_, of), r in groups.items() if of == name)]
    if len(recorded) > 1:
        draw("all", recorded)
    for environment in environments:
        add(environment_table(groups, tier, environment))
        if environment in recorded:
            draw(environment, [environment])
    add(origin_table(groups, missing, tier))
    write_whole(store.folder / "report.md", "\n".join(markdown))
    write_whole(store.folder / "report.html", PAGE.format(title=html.escape(tier.name), body="\n".join(page)))
    return store.folder / "report.md"


HOW_TO_READ = (
    "Curves are means over seeds, with bands from the smallest to the largest. Deterministic and "
    "stochastic episodes start from the same states, and those of all algorithms do. Minutes are of training, without "
    "evaluation; CPU minutes too depend on what else the machine did: compare within one time."
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>sb3-dqs benchmark: {title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #222; }}
table {{ border-collapse: collapse; margin: 1em 0; display: block; overflow-x: auto; font-size: 0.9em; }}
th, td {{ border: 1px solid #ccc; padding: 0.3em 0.6em; text-align: left; }}
th {{ background: #f2f2f2; }}
img {{ width: 49%; min-width: 22em; }}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def _mean_and_range(values: Sequence[Any]) -> str:
    mean = f"{float(np.mean(values)):.4g}"
    return mean if len(values) == 1 else f"{mean} ({float(min(values)):.4g} to {float(max(values)):.4g})"


def _of_those_measured(results: Sequence[Result], name: str) -> str:
    values = [result["measures"][name] for result in results if name in result["measures"]]
    if not values:
        return ""
    counted = "" if len(values) == len(results) else f", {len(values)} of {len(results)} seeds"
    return _mean_and_range(values) + counted


def _missing(missing: Sequence[Run], tier: Tier) -> str:
    counts: dict[str, int] = {}
    for run in missing:
        on_request = ", on request" if {run.algorithm, run.environment} & tier.on_request else ""
        label = f"{run.environment} {run.algorithm}{on_request}"
        counts[label] = counts.get(label, 0) + 1
    return "; ".join(f"{label}: {count}" for label, count in counts.items()) or "none"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tier", help="name of a file of benchmarks/tiers, or path of a YAML file like them")
    parser.add_argument("--output", type=Path, help="folder of the results; benchmarks/results/TIER by default")
    options = parser.parse_args(arguments)
    try:
        tier = load_tier(options.tier)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    store = Store(options.output or RESULTS / tier.name)
    groups, missing = load_results(tier, store)
    if not groups:
        print(
            f"nothing to report: none of the {len(missing)} runs of tier {tier.name!r} has a result in {store.folder}; "
            f"start them with: python -m benchmarks.run {options.tier}"
        )
        return 0
    print(write_report(tier, store, groups, missing))
    return 0


if __name__ == "__main__":
    sys.exit(main())
