"""Does the benchmark do every run of its plan once, whatever interrupts it?"""

import copy
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch as th
import yaml

import benchmarks.train
import sb3_dqs.diffusion.box
import sb3_dqs.dqs
import sb3_dqs.temperature
from benchmarks.plan import TIERS, load_tier
from benchmarks.run import HELD, follow, main, run_here
from benchmarks.store import Store, write_whole
from benchmarks.train import Checkpoints, falling_to_zero, make_env, train
from sb3_dqs import DQS
from sb3_dqs.diffusion.box import BoxDiffusion

REPOSITORY = Path(__file__).parents[2]

COMMIT = {"commit": "0" * 40, "uncommitted_changes": False}
TINY = {"policy_kwargs": {"net_arch": [16, 16]}, "learning_starts": 20, "batch_size": 16}
TIER = {
    "about": "test",
    "seeds": [0, 1],
    "evaluation": {"every": 40, "episodes": 3, "stochastic_episodes": 4},
    "algorithms": {
        "dqs": {
            "class": "DQS",
            "settings": TINY,
        },
        "sac": {
            "class": "SAC",
            "settings": TINY,
        },
        "td3": {"class": "TD3", "on_request": True},
    },
    "environments": {
        "MultiGoal": {"id": "sb3_dqs/MultiGoal-v0", "steps": 80, "settings": {"SAC": {"ent_coef": 0.5}}},
        "ring": {"law": "ring", "steps": 2},
    },
}


@pytest.fixture
def tier_path(tmp_path):
    path = tmp_path / "tiny.yml"
    path.write_text(yaml.safe_dump(TIER))
    return path


def write_tier(path, **changes):
    path.write_text(yaml.safe_dump({**TIER, **changes}))
    return load_tier(str(path))


def only_run(tier, algorithm="dqs", environment="MultiGoal"):
    (run,) = tier.select([algorithm], [environment], [0])
    return run


@pytest.mark.parametrize("name", sorted(path.stem for path in TIERS.glob("*.yml")))
def test_every_tier_is_well_formed_and_its_keys_are_unique(name):
    runs = load_tier(name).runs
    assert runs
    assert len({run.key for run in runs}) == len(runs)


def test_selection_leaves_out_what_is_on_request(tier_path):
    tier = load_tier(str(tier_path))
    # static targets are for DQS alone; seed by seed
    assert [(run.algorithm, run.environment, run.seed) for run in tier.select()] == [
        (algorithm, environment, seed)
        for seed in (0, 1)
        for algorithm, environment in (("dqs", "MultiGoal"), ("dqs", "ring"), ("sac", "MultiGoal"))
    ]
    assert {run.algorithm for run in tier.select(environments=["MultiGoal"])} == {"dqs", "sac"}
    assert {run.environment for run in tier.select(algorithms=["td3"])} == {"MultiGoal"}
    assert only_run(tier, "sac").settings["ent_coef"] == 0.5
    assert "ent_coef" not in only_run(tier, "dqs").settings


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"algorithms": ["dsq"]}, "'dsq'; did you mean 'dqs'"),
        ({"environments": ["Multi"]}, "'Multi'; did you mean 'MultiGoal'"),
        ({"seeds": [7]}, r"seeds of tier 'tiny' are \[0, 1\], got \[7\]"),
    ],
    ids=["algorithm", "environment", "seed"],
)
def test_selection_names_what_is_not_in_the_tier(tier_path, keywords, message):
    with pytest.raises(ValueError, match=message):
        load_tier(str(tier_path)).select(**keywords)


def test_unknown_keys_and_classes_are_named(tmp_path):
    path = tmp_path / "bad.yml"
    with pytest.raises(ValueError, match="'evaluaton'; did you mean 'evaluation'"):
        write_tier(path, evaluaton={})
    with pytest.raises(ValueError, match="'PPO'"):
        write_tier(path, algorithms={"ppo": {"class": "PPO"}})
    with pytest.raises(ValueError, match="'stpes'; did you mean 'steps'"):
        write_tier(path, environments={"P": {"id": "Pendulum-v1", "stpes": 3}})


def test_key_changes_with_every_setting_and_with_nothing_else(tmp_path):
    path = tmp_path / "tiny.yml"
    original = only_run(write_tier(path)).key
    assert only_run(write_tier(path, about="other words")).key == original
    assert only_run(write_tier(path, evaluation={**TIER["evaluation"], "every": 20})).key != original
    assert only_run(write_tier(path, algorithms={"dqs": {"class": "DQS"}})).key != original
    longer = {"MultiGoal": {**TIER["environments"]["MultiGoal"], "steps": 81}}
    assert only_run(write_tier(path, environments=longer)).key != original


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (sb3_dqs.dqs, "DEFAULT_COOLING_UPDATES"),
        (sb3_dqs.temperature, "ENTROPY_GAIN"),
        (sb3_dqs.diffusion.box, "GUIDE_WIDENING"),
        (BoxDiffusion, "DEFAULT_BATCH_SIZE"),
        (BoxDiffusion, "ON_POLICY_SHARE"),
    ],
)
def test_key_changes_with_a_default_that_the_tier_does_not_name(tier_path, monkeypatch, place, name):
    keys = {algorithm: only_run(load_tier(str(tier_path)), algorithm).key for algorithm in ("dqs", "sac")}
    monkeypatch.setattr(place, name, getattr(place, name) * 2)
    assert only_run(load_tier(str(tier_path)), "dqs").key != keys["dqs"]
    assert only_run(load_tier(str(tier_path)), "sac").key == keys["sac"]


def test_a_run_names_the_defaults_it_took(tier_path):
    dqs, sac = (only_run(load_tier(str(tier_path)), algorithm).defaults for algorithm in ("dqs", "sac"))
    assert (sac["gamma"], sac["learning_rate"], sac["target_entropy"]) == (0.99, 3e-4, "auto")
    assert dqs["n_score_samples"] == DQS("MlpPolicy", "Pendulum-v1").actor.diffusion.n_score_samples
    assert not {"seed", "learning_starts", "batch_size"} & set(dqs), "without effect, or given"


def test_a_run_is_done_once_and_its_result_tells_how(tier_path, tmp_path):
    store = Store(tmp_path / "results")
    run = only_run(load_tier(str(tier_path)))
    assert run_here(run, store, "cpu", COMMIT) == (run, None)
    result = store.load(run)
    assert result["run"]["settings"] == run.settings
    assert [record["steps"] for record in result["records"]] == [40, 80]
    assert [len(result["records"][-1][mode]) for mode in ("deterministic", "stochastic")] == [3, 4]
    assert set(result["records"][-1]["goals"]) == {"success", "goals_reached", "goal_entropy", "goal_counts"}
    assert 0 <= result["measures"]["total_variation_to_critic"] <= 1
    assert result["versions"]["stable-baselines3"]
    assert result["continued_at"] == []
    written = store.path(run).stat().st_mtime_ns
    assert run_here(run, store, "cpu", COMMIT) == (run, None)
    assert store.path(run).stat().st_mtime_ns == written
    # nothing is left of the way there
    assert [path.name for path in store.folder.glob("*") if path.is_file()] == [store.path(run).name]
    assert not store.checkpoints(run).exists()


def test_learning_rates_of_a_tier_may_fall_to_zero():
    schedule = falling_to_zero("lin_0.001")
    assert [schedule(remaining) for remaining in (1.0, 0.5, 0.0)] == pytest.approx([1e-3, 5e-4, 0.0])
    for text in ("0.001", "lin_", "exp_0.001"):
        with pytest.raises(ValueError, match=f"like lin_0.001, got '{text}'"):
            falling_to_zero(text)


def trained(run):
    return train(run, None, "cpu", COMMIT)


def test_training_leaves_the_key_of_its_run_as_it_was(tier_path):
    # SB3 writes use_sde into SAC's policy_kwargs
    run = only_run(load_tier(str(tier_path)), "sac")
    key = run.key
    assert trained(run)["key"] == key == run.key


def test_evaluation_does_not_touch_the_course_of_training(tmp_path):
    often = only_run(write_tier(tmp_path / "often.yml", evaluation={**TIER["evaluation"], "every": 10}))
    seldom = only_run(write_tier(tmp_path / "seldom.yml", evaluation={**TIER["evaluation"], "every": 80}))
    last = [trained(run)["records"][-1] for run in (often, seldom)]
    assert last[0]["deterministic"] == last[1]["deterministic"]
    assert last[0]["stochastic"] == last[1]["stochastic"]


def test_an_interrupted_run_goes_on_where_it_stopped(tier_path, tmp_path, monkeypatch):
    store = Store(tmp_path / "results")
    run = only_run(load_tier(str(tier_path)))
    save = Checkpoints.save
    saved = {}

    def save_and_stop(self, model, *arguments):
        save(self, model, *arguments)
        saved.update(random=th.get_rng_state(), buffer=model.replay_buffer, policy=copy.deepcopy(model.policy.state_dict()))
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        _, error = run_here(run, store, "cpu", COMMIT)
    assert "power cut" in error
    assert store.load(run) is None
    # a state that was not finished is not taken for one
    (store.checkpoints(run) / "unfinished").mkdir()
    model, _ = Checkpoints(store.checkpoints(run)).load(run, make_env(run), "cpu")
    assert th.equal(th.get_rng_state(), saved["random"])
    # SB3's callbacks are called before the transition of their step is stored
    assert model.replay_buffer.size() == 39
    assert (model.replay_buffer.actions[:39] == saved["buffer"].actions[:39]).all()
    for name, parameter in model.policy.state_dict().items():
        assert th.equal(parameter, saved["policy"][name]), name
    assert run_here(run, store, "cpu", COMMIT) == (run, None)
    result = store.load(run)
    assert result["continued_at"] == [40]
    assert [record["steps"] for record in result["records"]] == [40, 80]
    seconds = [record["seconds"] for record in result["records"]]
    assert 0 < seconds[0] < seconds[1]


def test_the_state_that_other_code_left_is_laid_aside(tier_path, tmp_path, monkeypatch):
    store = Store(tmp_path / "results")
    run = only_run(load_tier(str(tier_path)))
    checkpoints = Checkpoints(store.checkpoints(run))
    model = DQS("MlpPolicy", make_env(run), **TINY).learn(30)
    checkpoints.save(model, [], [])
    assert checkpoints.load(run, make_env(run), "cpu")[0].num_timesteps == 30
    monkeypatch.setattr(benchmarks.train, "CODE", "other")
    assert checkpoints.load(run, make_env(run), "cpu") == (None, None)
    # laid aside, not thrown away
    assert [path.name for path in store.state.glob("*.other-code/*")] == ["steps-30"]
    assert run_here(run, store, "cpu", COMMIT) == (run, None)
    result = store.load(run)
    assert result["continued_at"] == []
    assert result["code"] == "other"


def test_a_run_held_by_another_process_is_left_alone(tier_path, tmp_path, capsys):
    store = Store(tmp_path / "results")
    run = only_run(load_tier(str(tier_path)))
    with store.locked(run) as ours:
        assert ours
        assert run_here(run, store, "cpu", COMMIT) == (run, HELD)
    assert store.load(run) is None
    assert follow([(run, HELD)], 1) == []
    assert follow([(run, "error")], 1) == [(run, "error")]
    assert "is held by another process" in capsys.readouterr().err


def test_a_renamed_result_is_refused(tier_path, tmp_path):
    tier = load_tier(str(tier_path))
    store = Store(tmp_path)
    write_whole(store.path(only_run(tier)), json.dumps({"key": only_run(tier, "sac").key}))
    with pytest.raises(ValueError, match="renamed or edited"):
        store.load(only_run(tier))


def test_static_targets_are_measured_and_refuse_settings_without_meaning(tier_path, tmp_path):
    tier = write_tier(
        tmp_path / "static.yml", algorithms={"value": {"class": "DQS", "settings": {"score_estimator": "value"}}}
    )
    result = trained(only_run(tier, "value", "ring"))
    assert set(result["measures"]) == {"mmd", "sliced_w2", "total_variation", "seconds", "cpu_seconds"}
    with pytest.raises(ValueError, match="policy_kwargs"):
        trained(only_run(load_tier(str(tier_path)), "dqs", "ring"))


def test_failures_are_reported_and_do_not_stop_the_others(tier_path, tmp_path, capsys):
    output = str(tmp_path / "results")
    # the ring refuses these settings, see above
    assert main([str(tier_path), "--algorithms", "dqs", "--seeds", "0", "--output", output, "--jobs", "1"]) == 1
    captured = capsys.readouterr()
    assert "failed: ring_dqs_0" in captured.err
    assert main([str(tier_path), "--algorithms", "dqs", "--output", output, "--list"]) == 0
    assert capsys.readouterr().out.count("done MultiGoal_dqs_0") == 1
    assert main([str(tier_path), "--algorithms", "nothing"]) == 2


@pytest.mark.integration
def test_a_killed_benchmark_goes_on_and_neither_mixes_nor_loses_runs(tier_path, tmp_path):
    output = tmp_path / "results"
    environments = {"MultiGoal": {**TIER["environments"]["MultiGoal"], "steps": 400}}
    tier = write_tier(tier_path, environments=environments, seeds=[0])
    command = [sys.executable, "-m", "benchmarks.run", str(tier_path), "--output", str(output), "--jobs", "1"]
    store, runs = Store(output), tier.select()

    def start():
        return subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, stdout=subprocess.DEVNULL)

    # killed twice: as soon as a run has kept a state, and as soon as a first result is there
    for reached in (lambda: list(output.glob(".state/*/steps-*")), lambda: list(output.glob("*.json"))):
        process = start()
        deadline = time.monotonic() + 300
        while not reached():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    finished_before = {path: path.stat().st_mtime_ns for path in output.glob("*.json")}
    process = start()
    assert process.wait(timeout=300) == 0

    assert {path.name for path in output.glob("*.json")} == {store.path(run).name for run in runs}
    results = [store.load(run) for run in runs]
    steps = list(range(40, 401, 40))
    assert all([record["steps"] for record in result["records"]] == steps for result in results)
    assert any(result["continued_at"] for result in results)
    assert all(path.stat().st_mtime_ns == written for path, written in finished_before.items())
