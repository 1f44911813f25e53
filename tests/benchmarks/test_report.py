"""Does the report say what the results say?"""

import numpy as np
import pytest
import yaml

from benchmarks import report
from benchmarks.plan import load_tier
from benchmarks.published import published_curves
from benchmarks.report import (
    interquartile_mean,
    load_results,
    main,
    mean_of_means,
    normalised_area,
    normalised_last_return,
    probability_of_improvement,
    score_table,
    with_interval,
)
from benchmarks.store import Store, write_whole

SEEDS = [0, 1, 2]
TIER = {
    "about": "Is a < b?",
    "seeds": SEEDS,
    "algorithms": {name: {"class": class_name} for name, class_name in (("dqs", "DQS"), ("sac", "SAC"), ("td3", "TD3"))},
    "environments": {
        "First": {"id": "Pendulum-v1", "steps": 300, "scale": [-100.0, 0.0]},
        "Second": {"id": "sb3_dqs/MultiGoal-v0", "steps": 300, "scale": [0.0, 10.0]},
        "ring": {"law": "ring", "steps": 5},
    },
}
SCALES = {"HalfCheetah": [0.0, 10_000.0], "Hopper": [0.0, 1000.0]}
# Final scores on the scale; TD3 was run in one environment only
SCORES = {("dqs", "First"): 0.8, ("dqs", "Second"): 0.6, ("sac", "First"): 0.5, ("sac", "Second"): 0.7, ("td3", "First"): 0.9}


def result(run, score):
    low, high = TIER["environments"][run.environment]["scale"]
    records = []
    for steps in (100, 200, 300):
        value = low + (score + 0.01 * run.seed) * (high - low)
        goals = {"success": 1.0, "goals_reached": 4, "goal_entropy": 0.5, "goal_counts": [1, 2, 3, 4]}
        records.append(
            {
                "steps": steps,
                "seconds": 60.0 * steps / 100,
                "cpu_seconds": 30.0 * steps / 100,
                "deterministic": [value - 1, value + 1],
                "stochastic": [value],
                "goals": goals if run.environment == "Second" else None,
            }
        )
    return {**origin(run), "records": records, "measures": {"total_variation": 0.25}}


def origin(run):
    return {
        "key": run.key,
        "versions": {"python": "3"},
        "commit": "abc",
        "uncommitted_changes": False,
        "machine": {"processor": "p", "cores": 2, "device": "cpu"},
        "continued_at": [],
    }


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "N_BOOTSTRAP", 50)
    (tmp_path / "tiny.yml").write_text(yaml.safe_dump(TIER))
    tier = load_tier(str(tmp_path / "tiny.yml"))
    store = Store(tmp_path / "results")
    for run in tier.runs:
        if (run.algorithm, run.environment) in SCORES:
            store.save(run, result(run, SCORES[run.algorithm, run.environment]))
        elif run.environment == "ring" and run.seed == 0:
            store.save(run, {**origin(run), "records": [], "measures": {"mmd": 0.125}})
    return tmp_path


def row(text, start):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def section(text, title):
    return text.split(f"## {title}\n")[1].split("\n## ")[0]


def test_area_is_that_of_trapezoids_on_the_scale():
    records = [{"steps": steps, "deterministic": [value]} for steps, value in ((0, 0.0), (10, 5.0), (30, 5.0))]
    # halves of the scale: 0 to 0.5 over 10 steps, 0.5 over 20: (2.5 + 10) / 30
    assert normalised_area({"records": records}, (0.0, 10.0)) == pytest.approx(12.5 / 30)
    assert normalised_area({"records": records[1:2]}, (0.0, 10.0)) == 0.5


def test_score_stands_beside_that_of_published_methods(tmp_path):
    """Truths by hand. Published: HalfCheetah 8112.4 and Hopper 2764.4 for CrossQ at 100,000 steps, none for MR.Q at 100."""
    own = {name: {"id": name, "steps": 100_000, "scale": scale, "published": f"{name}-v4"} for name, scale in SCALES.items()}
    algorithms = {"sac": {"class": "SAC"}}
    at = {"score_at": [100, 100_000], "published": ["CrossQ", "nobody's"], "evaluation": {"every": 100}}
    path = tmp_path / "two.yml"
    path.write_text(yaml.safe_dump({"about": "", "seeds": [0], "algorithms": algorithms, "environments": own, **at}))
    tier = load_tier(str(path))
    records = [
        {"steps": 100, "deterministic": [0.0, 100.0], "stochastic": [0.0]},
        {"steps": 100_000, "deterministic": [1000.0], "stochastic": [500.0]},
    ]
    groups = {("sac", run.environment): [{"records": records}] for run in tier.runs}
    table = score_table(groups, tier)
    # (50 / 10000 + 50 / 1000) / 2 and (1000 / 10000 + 1000 / 1000) / 2
    assert table.rows[0] == ["sac", "1 seed", "0.028", "0.550"]
    assert table.rows[1] == ["sac, sampled actions", "1 seed", "0.000", "0.275"]
    curve = {name: published_curves()[f"{name}-v4"]["CrossQ"][100_000] for name in SCALES}
    assert curve["HalfCheetah"] == 8112.4
    expected = (8112.4 / 10_000 + curve["Hopper"] / 1000) / 2
    assert table.rows[2:] == [["CrossQ, published", "", "", f"{expected:.3f}"]]
    # an algorithm without one of the environments has no score
    assert score_table({pair: results for pair, results in groups.items() if pair[1] == "Hopper"}, tier) is None
    # nor is there one over no environment
    on_request = {name: {**settings, "on_request": True} for name, settings in own.items()}
    path.write_text(yaml.safe_dump({"about": "", "seeds": [0], "algorithms": algorithms, "environments": on_request, **at}))
    assert score_table(groups, load_tier(str(path))) is None


def test_published_curves_are_drawn_up_to_the_last_step_of_ours():
    tier = load_tier("mujoco")
    records = [{"steps": step, "deterministic": [0.0]} for step in (10_000, 50_000)]
    (axes,) = report.curves(
        {("sac", "Hopper"): [{"records": records, "machine": {"device": "cpu"}}]}, ["Hopper"], "steps", tier
    ).axes
    (line,) = [line for line in axes.lines if line.get_label() == "CrossQ, published (v4)"]
    truth = {step: mean for step, mean in published_curves()["Hopper-v4"]["CrossQ"].items() if step <= 50_000}
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == truth
    assert max(truth) == 50_000


def test_published_score_of_the_mujoco_tier_is_that_of_the_literature():
    """By hand from the curves at 100,000 steps, HalfCheetah to Humanoid: SAC (0.554 + 0.392 + 0.152 + 0.137 + 0.109) / 5 and
    CrossQ (0.723 + 0.992 + 0.863 + 0.406 + 0.528) / 5."""
    tier = load_tier("mujoco")
    dqs = {
        "run": {"seed": 100},
        "records": [{"steps": step, "deterministic": [0.0], "stochastic": [0.0]} for step in tier.score_at],
    }
    rows = {row[0]: row[-1] for row in score_table({("dqs", name): [dqs] for name in tier.scales}, tier).rows}
    assert float(rows["SAC (CrossQ authors: lr 1e-3, 5k random), published"]) == pytest.approx(0.269, abs=1e-3)
    assert float(rows["CrossQ, published"]) == pytest.approx(0.702, abs=1e-3)


def test_report_holds_aggregates_tables_curves_and_origin(folder):
    assert main([str(folder / "tiny.yml"), "--output", str(folder / "results")]) == 0
    text = (folder / "results" / "report.md").read_text()
    # TD3 has no result in the second environment, and must not shrink the comparison of the others
    iqm = section(text, "Interquartile mean of normalised returns")
    assert "Environments: First, Second." in iqm
    # of six scores the middle four, DQS 0.61, 0.62, 0.80, 0.81; the curves are level, so both scores agree
    for score in row(iqm, "dqs")[2:4]:
        assert float(score.split()[0]) == pytest.approx(np.mean([0.61, 0.62, 0.80, 0.81]), abs=6e-4)
    assert row(iqm, "dqs")[4:] == ["0.710 / 0.710", "0.810 / 0.810", "0.610 / 0.610"]
    assert "| td3 |" not in iqm
    improvement = section(text, "Probability of improvement")
    # higher in one of two environments in every pair of runs; lower in the one that TD3 has
    both, always, never = "3 seeds, 3 seeds", "1.000", "0.000"
    assert row(improvement, "sac")[1:] == [both, "0.500", "0.500", f"{always} / {always}", f"{never} / {never}"]
    assert row(improvement, "td3")[1:] == [both, never, never, f"{never} / {never}", ""]

    second = section(text, "Second")
    assert row(second, "dqs")[:3] == ["dqs", "3", "300"]
    assert row(second, "dqs")[3] == "6.1 (6 to 6.2)"
    assert row(second, "dqs")[-4:] == ["1 (1 to 1)", "4 (4 to 4)", "0.5 (0.5 to 0.5)", "0.25 (0.25 to 0.25)"]
    assert "success" not in section(text, "First")
    assert row(section(text, "ring"), "dqs") == ["dqs", "1", "0.125"]
    assert row(text, "commit") == ["commit", "abc"]
    assert row(text, "runs of the plan without one")[1] == "ring dqs: 2; Second td3: 3"
    for name in ("First_steps.png", "First_time.png", "all_steps.png", "all_time.png", "Second_steps.png", "Second_time.png"):
        assert (folder / "results" / name).read_bytes().startswith(b"\x89PNG")
        assert f"({name})" in text

    page = (folder / "results" / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 6
    assert "Is a &lt; b?" in page
    assert 'src="First' not in page


def aggregates(folder, **changes):
    (folder / "tiny.yml").write_text(yaml.safe_dump({**TIER, **changes}, sort_keys=False))
    tier = load_tier(str(folder / "tiny.yml"))
    return report.aggregate_tables(load_results(tier, Store(folder / "results"))[0], tier)


def test_the_first_algorithm_is_compared_with_the_others(folder):
    algorithms = {name: TIER["algorithms"][name] for name in ("td3", "dqs", "sac")}
    _, improvement = aggregates(folder, algorithms=algorithms)
    assert "run of td3 scores higher" in improvement.note
    always = "1.000"
    rows = [[other, "3 seeds, 3 seeds", always, always, f"{always} / {always}"] for other in ("dqs", "sac")]
    assert [list(cells) for cells in improvement.rows] == rows


def test_environments_on_request_do_not_count(folder):
    environments = {**TIER["environments"], "Second": {**TIER["environments"]["Second"], "on_request": True}}
    iqm, improvement = aggregates(folder, environments=environments)
    assert {cells[0] for cells in iqm.rows} == {"td3", "dqs", "sac"}
    assert improvement.header[4:] == ["First"]


def test_aggregates_are_over_the_environments_of_the_first_algorithm(folder):
    for path in (folder / "results").glob("Second_dqs_*.json"):
        path.unlink()
    iqm, improvement = aggregates(folder)
    assert "Environments: First. Left out, where the first algorithm has no result: Second." in iqm.note
    assert {cells[0] for cells in iqm.rows} == {"td3", "dqs", "sac"}
    assert [cells[0] for cells in improvement.rows] == ["sac", "td3"]
    assert improvement.header[4:] == ["First"]
    # nothing to compare with where it has no result at all
    for path in (folder / "results").glob("First_dqs_*.json"):
        path.unlink()
    assert aggregates(folder) == []


def test_a_measure_that_some_seeds_lack_says_so(folder):
    tier = load_tier(str(folder / "tiny.yml"))
    store = Store(folder / "results")
    run = tier.select(["dqs"], ["First"], [0])[0]
    store.save(run, {**store.load(run), "measures": {}})
    table = report.environment_table(load_results(tier, store)[0], tier, "First")
    cells = {cells[0]: cells[-1] for cells in table.rows}
    assert cells["dqs"] == "0.25 (0.25 to 0.25), 2 of 3 seeds"
    assert cells["sac"] == "0.25 (0.25 to 0.25)"


def test_results_of_other_settings_are_left_out(folder):
    tier_path = folder / "tiny.yml"
    environments = {**TIER["environments"], "First": {**TIER["environments"]["First"], "steps": 301}}
    tier_path.write_text(yaml.safe_dump({**TIER, "environments": environments}))
    groups, missing = load_results(load_tier(str(tier_path)), Store(folder / "results"))
    assert {environment for _, environment in groups} == {"Second", "ring"}
    assert sum(run.environment == "First" for run in missing) == 9


def test_a_rise_counts_in_full_at_the_end_and_in_part_in_the_area():
    records = [{"steps": steps, "deterministic": [value, value + 2]} for steps, value in ((0, -1.0), (10, 9.0))]
    assert normalised_last_return({"records": records}, (0.0, 10.0)) == 1.0
    assert normalised_area({"records": records}, (0.0, 10.0)) == 0.5


def test_intervals_are_those_of_a_stratified_bootstrap_over_seeds():
    # runs of an environment nearly alike, environments far apart: only seeds within an environment are resampled
    assert with_interval([np.zeros(4), np.array([9.9, 10.0, 10.1])], mean_of_means) == "5.000 [4.950, 5.050]"
    scores = np.random.default_rng(0).normal(size=400)
    value, low, high = (float(x.strip("[],")) for x in with_interval([scores], mean_of_means).split())
    half_width = 1.96 * scores.std() / 20
    assert (value, low, high) == pytest.approx((scores.mean(), value - half_width, value + half_width), abs=0.1 * half_width)
    assert with_interval([scores[:2]], mean_of_means) == f"{scores[:2].mean():.3f}", "two seeds have no interval"
    assert with_interval([np.ones(3)], mean_of_means) == "1.000", "nor have three that are equal"


def test_no_run_is_left_out_where_environments_have_different_numbers_of_them():
    scores = [np.array([0.2, 0.4]), np.array([0.9])]
    # (0.3 + 0.9) / 2, though 0.2 has no partner in the second
    assert mean_of_means(scores) == pytest.approx(0.6)
    # each environment counts twice: of 0.2, 0.4, 0.9, 0.9, 0 and 0 the middle four
    assert interquartile_mean([*scores, np.array([0.0])]) == pytest.approx((0.0 + 0.2 + 0.4 + 0.9) / 4)
    # 0.2 and 0.4 against 0.3, then 0.9 against 0.9 and 0.1: a half, and (1/2 + 1) / 2
    against = [np.array([0.3]), np.array([0.9, 0.1])]
    assert probability_of_improvement(scores + against) == pytest.approx((0.5 + 0.75) / 2)


def test_runs_that_were_completed_after_the_freeze_have_a_row_of_their_own(tmp_path):
    """Truths by hand: (8 / 3 + 24 / 3) / 2 / 10 of all runs, (8 + 10) / 2 / 10 of the fresh ones."""
    content = {
        "about": "",
        "seeds": [0, 1, 2],
        "algorithms": {"dqs": {"class": "DQS"}, "sac": {"class": "SAC"}},
        "environments": {name: {"id": name, "steps": 1000, "scale": [0.0, 10.0]} for name in ("Ant", "Hopper")},
        "score_at": [1000],
        "fresh_seeds": {"Ant": [2], "Hopper": [1, 2]},
    }
    path = tmp_path / "two.yml"

    def table():
        path.write_text(yaml.safe_dump(content))
        tier = load_tier(str(path))
        returns = {("dqs", "Ant"): [0.0, 0.0, 8.0], ("dqs", "Hopper"): [4.0, 10.0, 10.0], ("sac", "Ant"): [1.0, 1.0, 1.0]}
        returns["sac", "Hopper"] = [1.0, 1.0, 1.0]
        groups = {
            pair: [
                {"run": {"seed": seed}, "records": [{"steps": 1000, "deterministic": [value], "stochastic": [1.0]}]}
                for seed, value in enumerate(values)
            ]
            for pair, values in returns.items()
        }
        return [[row[0], row[1], row[2].split()[0]] for row in score_table(groups, tier).rows]

    of_dqs, of_sac = (
        [[name, "3 seeds", value], [f"{name}, sampled actions", "3 seeds", "0.100"]]
        for name, value in (("dqs", "0.533"), ("sac", "0.100"))
    )
    fresh = ["dqs, runs completed after its settings were frozen", "1 to 2 seeds", "0.900"]
    assert table() == [*of_dqs, fresh, *of_sac]
    del content["fresh_seeds"]
    assert table() == [*of_dqs, *of_sac]
    content["fresh_seeds"] = {"Ant": [7]}
    with pytest.raises(ValueError, match="fresh_seeds of 'Ant' must be seeds of the tier, got \\[7\\]"):
        table()
    content |= {"fresh_seeds": {}, "score_at": [1500]}
    with pytest.raises(ValueError, match="score_at must hold evaluations of environment 'Ant', got 1500"):
        table()


def test_curves_over_time_are_in_minutes(folder):
    tier = load_tier(str(folder / "tiny.yml"))
    groups, _ = load_results(tier, Store(folder / "results"))
    (axes,) = report.curves(groups, ["First"], "time", tier).axes
    assert list(axes.lines[0].get_xdata()) == [0.5, 1.0, 1.5]
    assert "CPU time" in axes.get_xlabel()
    # seeds at -20, -19 and -18
    assert axes.lines[0].get_ydata() == pytest.approx([-19.0] * 3)
    # the band of the first algorithm, from the smallest to the largest
    assert set(axes.collections[0].get_paths()[0].vertices[:, 1].round(6)) == {-20.0, -18.0}
    for result in groups["dqs", "First"]:
        result["machine"] = {**result["machine"], "device": "cuda"}
    (axes,) = report.curves(groups, ["First"], "time", tier).axes
    assert list(axes.lines[0].get_xdata()) == [1.0, 2.0, 3.0]
    assert "wall clock" in axes.get_xlabel()
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        f"{name} (3 seeds)" for name in ("dqs", "sac", "td3")
    }


def test_without_results_the_report_says_so_and_names_the_command(tmp_path, capsys):
    path = tmp_path / "tiny.yml"
    write_whole(path, yaml.safe_dump(TIER))
    assert main([str(path), "--output", str(tmp_path / "none")]) == 0
    # three seeds of three algorithms in two environments, and of DQS on the law
    assert "none of the 21 runs of tier 'tiny' has a result" in (out := capsys.readouterr().out)
    assert f"python -m benchmarks.run {path}" in out
    assert not (tmp_path / "none").exists()


def test_a_tier_that_does_not_exist_is_an_error_of_one_line(capsys):
    assert main(["smal"]) == 2
    assert capsys.readouterr().err.startswith("error: tier must be one of")


def test_pictures_of_several_environments_share_a_legend(folder):
    tier = load_tier(str(folder / "tiny.yml"))
    groups, _ = load_results(tier, Store(folder / "results"))
    groups["sac", "Second"].pop()
    first, second, legend = report.curves(groups, ["First", "Second"], "steps", tier).axes
    assert (first.get_title(), second.get_title()) == ("First", "Second")
    assert [axes.get_legend() for axes in (first, second)] == [None, None]
    assert not legend.axison
    labels = {text.get_text() for text in legend.get_legend().get_texts()}
    assert labels == {"dqs (3 seeds)", "sac (2 to 3 seeds)", "td3 (3 seeds)"}
    # an algorithm has one colour in all of them
    colours = [{line.get_label(): line.get_color() for line in axes.lines} for axes in (first, second)]
    assert colours[1] == {name: colours[0][name] for name in ("dqs", "sac")}


def test_returns_at_the_steps_of_a_tier_stand_beside_the_published_ones():
    tier = load_tier("mujoco")

    def run(value):
        return {"records": [{"steps": step, "deterministic": [value, value + 200]} for step in (10_000, 50_000, 100_000)]}

    groups = {("dqs", "Hopper"): [run(2000.0), run(2400.0)], ("dqs", "Ant"): [run(900.0)], ("sac", "Ant"): [run(0.0)]}
    table = report.returns_table(groups, tier)
    # in the order of the tier's environments, those with a result alone
    assert table.header[2:] == ["Hopper, 50,000 steps", "Hopper, 100,000 steps", "Ant, 50,000 steps", "Ant, 100,000 steps"]
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["dqs"] == ["1 to 2 seeds", *["2300 (2100 to 2500)"] * 2, "1000", "1000"]
    assert rows["sac"] == ["1 seed", "", "", "100", "100"]
    of_hopper = published_curves()["Hopper-v4"]["CrossQ"]
    assert rows["CrossQ, published"][:3] == ["", f"{of_hopper[50_000]:.0f}", f"{of_hopper[100_000]:.0f}"]
