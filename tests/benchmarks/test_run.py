"""Does the benchmark do every run of its plan once, whatever interrupts it?"""

import copy
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic

import benchmarks.measures
import benchmarks.train
from benchmarks.plan import TIERS, load_tier
from benchmarks.run import HELD, follow, main, outlook, run_here
from benchmarks.store import Store, write_whole
from benchmarks.train import (
    CONTINUATION_SEED,
    SEEDS_APART,
    Checkpoints,
    code_fingerprint,
    falling_to_zero,
    make_env,
    random_states,
    train,
    with_classes,
)
from sb3_dqs import DQS, DiffusionPolicy, PaperDQS
from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.diffusion.corrector import Corrector
from sb3_dqs.diffusion.paper import PaperDiffusion
from sb3_dqs.temperature import AutomaticTemperature

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


@pytest.fixture(autouse=True)
def brief_measures(monkeypatch):
    """What is measured at the end has tests of its own."""
    monkeypatch.setattr(benchmarks.measures, "N_CENTRE_EPISODES", 2)
    monkeypatch.setattr(benchmarks.measures, "N_OBSERVATIONS", 1)


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


def merged(defaults, given):
    """The defaults and, at any depth, what is given."""
    if not (isinstance(defaults, dict) and isinstance(given, dict)):
        return given
    return {**defaults, **{name: merged(defaults.get(name), value) for name, value in given.items()}}


def meaning(run):
    return json.dumps([run.class_name, run.environment, run.seed, merged(run.defaults, run.settings)], sort_keys=True)


@pytest.mark.parametrize("name", sorted(path.stem for path in TIERS.glob("*.yml")))
def test_no_two_algorithms_of_a_tier_mean_the_same(name):
    # as happens where a default becomes what an ablation set by hand
    runs = load_tier(name).runs
    assert len({meaning(run) for run in runs}) == len(runs)


def test_selection_leaves_out_what_is_on_request(tier_path):
    tier = load_tier(str(tier_path))
    # static targets are for DQS alone, having no rewards; seed by seed
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
    with pytest.raises(ValueError, match="'sb3_dqs/MultiGoal-v0' names files of results, and must not hold a slash"):
        write_tier(path, environments={"sb3_dqs/MultiGoal-v0": {"id": "sb3_dqs/MultiGoal-v0", "steps": 3}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": [0, 1, 0]}, r"seeds of a tier must differ, .* got \[0, 1, 0\]"),
        ({"environments": {"P": {"id": "Pendulum-v1", "steps": "1e2"}}}, "environment 'P': steps must be an integer"),
        ({"environments": {"P": {"id": "Pendulum-v1"}}}, "environment 'P': steps must be an integer >= 1, got None"),
        ({"evaluation": {"every": "4e1"}}, "evaluation's every must be an integer"),
        ({"algorithms": {"dqs": {"class": "DQS", "settings": {"n_scor_samples": 8}}}}, "did you mean 'n_score_samples'"),
        ({"algorithms": {"sac": {"class": "SAC", "settings": {"ent_cof": 0.1}}}}, "did you mean 'ent_coef'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_mistakes_in_a_tier_are_named_before_anything_runs(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_tier(tmp_path / "bad.yml", **changes)


def test_key_changes_with_every_setting_and_with_nothing_else(tmp_path):
    path = tmp_path / "tiny.yml"
    original = only_run(write_tier(path)).key
    assert only_run(write_tier(path, about="other words")).key == original
    assert only_run(write_tier(path, evaluation={**TIER["evaluation"], "every": 20})).key != original
    assert only_run(write_tier(path, algorithms={"dqs": {"class": "DQS"}})).key != original
    longer = {"MultiGoal": {**TIER["environments"]["MultiGoal"], "steps": 81}}
    assert only_run(write_tier(path, environments=longer)).key != original


@pytest.mark.parametrize(
    ("constructor", "name", "algorithms"),
    [
        (DQS, "cooling_updates", {"dqs", "hotter", "fixed"}),
        (DQS, "exploration_correlation_time", {"dqs", "hotter", "fixed"}),
        # the tier names the one of "hotter", and "fixed" has no automatic temperature
        (AutomaticTemperature, "initial", {"dqs"}),
        (AutomaticTemperature, "gain", {"dqs", "hotter"}),
        (BoxDiffusion, "guide_widening", {"dqs", "hotter", "fixed"}),
        (Corrector, "sigmas", {"dqs", "hotter", "fixed"}),
        (DiffusionPolicy, "n_critics", {"dqs", "hotter", "fixed", "paper"}),
        (PaperDQS, "temperature", {"paper"}),
        (PaperDiffusion, "loss_weight_offset", {"paper"}),
    ],
)
def test_key_changes_with_a_default_that_the_tier_does_not_name(tmp_path, monkeypatch, constructor, name, algorithms):
    def keys():
        settings = {
            "dqs": ("DQS", {}),
            "hotter": ("DQS", {"component_kwargs": {"temperature": {"initial": 4.0}}}),
            "fixed": ("DQS", {"temperature": 0.5}),
            "paper": ("PaperDQS", {}),
            "sac": ("SAC", {}),
        }
        entries = {algorithm: {"class": class_name, "settings": own} for algorithm, (class_name, own) in settings.items()}
        tier = write_tier(tmp_path / "tiny.yml", algorithms=entries)
        return {algorithm: only_run(tier, algorithm).key for algorithm in entries}

    before = keys()
    signature = inspect.signature(constructor.__init__)
    default = signature.parameters[name].default
    changed = [p.replace(default=2 * default) if p.name == name else p for p in signature.parameters.values()]
    monkeypatch.setattr(constructor.__init__, "__signature__", signature.replace(parameters=changed), raising=False)
    assert {algorithm for algorithm, key in keys().items() if key != before[algorithm]} == algorithms


def test_a_run_names_the_defaults_it_took(tier_path):
    dqs, sac = (only_run(load_tier(str(tier_path)), algorithm).defaults for algorithm in ("dqs", "sac"))
    assert (sac["gamma"], sac["learning_rate"], sac["target_entropy"]) == (0.99, 3e-4, "auto")
    assert not {"seed", "learning_starts", "batch_size"} & set(dqs), "without effect, or given"
    assert "net_arch" not in dqs["policy_kwargs"], "given"

    model = DQS("MlpPolicy", "Pendulum-v1")
    diffusion, temperature = dqs["component_kwargs"]["diffusion"], dqs["component_kwargs"]["temperature"]
    assert dqs["n_score_samples"] == model.actor.diffusion.n_score_samples
    assert diffusion == {name: getattr(model.actor.diffusion, name) for name in diffusion}
    assert dqs["component_kwargs"]["corrector"]["sigmas"] == model.policy.corrector.sigmas
    assert temperature["initial"] == model.thermostat.initial.item()
    assert dqs["policy_kwargs"]["n_critics"] == len(model.critic.q_networks)
    assert dqs["policy_kwargs"]["critic_betas"] == model.critic.optimizer.param_groups[0]["betas"]
    assert dqs["policy_kwargs"]["critic_class"].endswith(f".{type(model.critic).__name__}")


def test_defaults_are_those_of_the_objects_that_the_algorithm_builds(tmp_path):
    algorithms = {
        "paper": {"class": "PaperDQS", "settings": {"component_kwargs": {"diffusion": {"squash": "clip"}}}},
        "fixed": {"class": "DQS", "settings": {"temperature": 0.5}},
    }
    tier = write_tier(tmp_path / "tiny.yml", algorithms=algorithms)
    paper, fixed = (only_run(tier, algorithm).defaults for algorithm in algorithms)
    # published values, and the one that is not given
    assert (paper["n_score_samples"], paper["n_diffusion_steps"], paper["learning_starts"]) == (1_000, 500, 10_000)
    assert paper["component_kwargs"].keys() == {"diffusion"}
    assert set(paper["component_kwargs"]["diffusion"]) == {"sigma_min", "sigma_max", "loss_weight_offset"}
    assert "policy_delay" not in paper, "no setting of the published algorithm"
    for defaults in (fixed, only_run(tier, "fixed", "ring").defaults):
        # nothing is steered that is set by hand, or that a law has
        assert set(defaults["component_kwargs"]["temperature"]) == {"measurement_rate"}


def test_code_that_measures_or_learns_is_told_from_code_that_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks.train, "REPOSITORY", tmp_path)

    def changes_with(name):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        before = code_fingerprint()
        path.write_text("changed")
        return code_fingerprint() != before

    learning = [
        *(f"benchmarks/{name}.py" for name in ("plan", "train", "measures", "wrappers", "static_targets", "shapes")),
        *("sb3_dqs/dqs.py", "sb3_dqs/diffusion/box.py", "sb3_dqs/envs/bandit.py", "sb3_dqs/envs/data/means.csv"),
        *("sb3_dqs/inspection/metrics.py", "sb3_dqs/inspection/evaluation.py"),
    ]
    others = [
        "version.py",
        "usage.py",
        "extras.py",
        "command_line.py",
        "__main__.py",
        "inspection/plotting.py",
        "inspection/callbacks.py",
        "gpu/graphed.py",
        "zoo/forward.py",
    ]
    assert all(map(changes_with, learning))
    assert not any(changes_with(f"sb3_dqs/{name}") for name in others)


def test_a_run_is_done_once_and_its_result_tells_how(tier_path, tmp_path):
    store = Store(tmp_path / "results")
    run = only_run(load_tier(str(tier_path)))
    assert run_here(run, store, "cpu", COMMIT) == (run, None)
    result = store.load(run)
    assert result["run"]["settings"] == run.settings
    assert [record["steps"] for record in result["records"]] == [40, 80]
    assert [len(result["records"][-1][mode]) for mode in ("deterministic", "stochastic")] == [3, 4]
    assert set(result["records"][-1]["goals"]) == {"success", "goals_reached", "goal_entropy", "goal_counts"}
    assert "total_variation_to_critic" in result["measures"]
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


def test_classes_of_policy_kwargs_are_named_by_their_paths():
    kwargs = {
        "critic_class": "stable_baselines3.common.policies.ContinuousCritic",
        "activation_fn": "torch.nn.ELU",
        "n_critics": 3,
    }
    assert with_classes(kwargs) == {"critic_class": ContinuousCritic, "activation_fn": th.nn.ELU, "n_critics": 3}
    for path in ("ContinuousCritic", "stable_baselines3.common.policies.NoCritic", "stable_baselines3.common.policies"):
        with pytest.raises(ValueError, match=f"no class '{path}'"):
            with_classes({"critic_class": path})


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


class StartTellsReturn(gym.Env):
    """One step, whose reward is the number that the start was drawn as, whatever the action."""

    observation_space = spaces.Box(0.0, 1.0, (1,))
    action_space = spaces.Box(-1.0, 1.0, (1,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.start = self.np_random.random()
        return np.array([self.start], np.float32), {}

    def step(self, action):
        return np.array([self.start], np.float32), self.start, True, False, {}


def test_deterministic_and_sampled_episodes_start_from_the_same_states(tmp_path, monkeypatch):
    gym.register("StartTellsReturn-v0", StartTellsReturn)
    environments = {"Start": {"id": "StartTellsReturn-v0", "steps": 80}}
    tier = write_tier(tmp_path / "start.yml", environments=environments)
    results = [trained(only_run(tier, algorithm, "Start")) for algorithm in ("dqs", "sac")]
    gym.registry.pop("StartTellsReturn-v0")
    for result in results:
        assert result["run"]["protocol"] == 2
        for record in result["records"]:
            # three and four episodes of different starts, the same ones at every evaluation and for every algorithm
            starts = [gym.utils.seeding.np_random(record["start_seed"] + i)[0].random() for i in range(4)]
            assert record["deterministic"] == pytest.approx(starts[:3], abs=1e-4)
            assert record["stochastic"] == pytest.approx(starts, abs=1e-4)


def test_other_numbers_of_candidates_are_tried_once_at_the_end(tmp_path, monkeypatch):
    tried = []

    def returns_by_candidates(model, envs, seed):
        tried.append((model.num_timesteps, len(envs), seed))
        return {"return, best of 8": 1.5}

    def goals_by_temperature(model, env, n_episodes, seed):
        assert (env.spec.id, n_episodes, seed) == ("sb3_dqs/MultiGoal-v0", 4, benchmarks.train.EVALUATION_SEED)
        return {"return of sampled actions, at 0.5 of the temperature": 2.5}

    monkeypatch.setattr(benchmarks.train, "goals_by_temperature", goals_by_temperature)
    monkeypatch.setattr(benchmarks.train, "returns_by_candidates", returns_by_candidates)
    assert "return, best of 8" not in trained(only_run(write_tier(tmp_path / "without.yml")))["measures"]
    assert tried == []
    evaluation = {**TIER["evaluation"], "deterministic_forms": True}
    result = trained(only_run(write_tier(tmp_path / "with.yml", evaluation=evaluation)))
    assert result["measures"]["return, best of 8"] == 1.5
    assert result["measures"]["return of sampled actions, at 0.5 of the temperature"] == 2.5
    # from the states that the deterministic episodes start from
    assert tried == [(80, 3, result["records"][-1]["start_seed"])]


def test_an_interrupted_run_goes_on_where_it_stopped(tier_path, tmp_path, monkeypatch):
    store = Store(tmp_path / "results")
    run = only_run(load_tier(str(tier_path)))
    save = Checkpoints.save
    saved = {}

    def save_and_stop(self, model, *arguments):
        save(self, model, *arguments)
        saved.update(
            random=copy.deepcopy(random_states()), buffer=model.replay_buffer, policy=copy.deepcopy(model.policy.state_dict())
        )
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        _, error = run_here(run, store, "cpu", COMMIT)
    assert "power cut" in error
    assert store.load(run) is None
    # a state that was not finished is not taken for one
    (store.checkpoints(run) / "unfinished").mkdir()
    model, _ = Checkpoints(store.checkpoints(run)).load(run, make_env(run), "cpu")
    random_state = random_states()
    assert th.equal(random_state["torch"], saved["random"]["torch"])
    assert random_state["python"] == saved["random"]["python"]
    for found, expected in zip(random_state["numpy"], saved["random"]["numpy"], strict=True):
        assert np.array_equal(found, expected)
    # the episode that was under way is lost: the next one starts where none of training or evaluation did
    assert model.get_env()._seeds == [CONTINUATION_SEED + SEEDS_APART * run.seed + 40]
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


def test_several_environments_are_acted_in_at_once_also_after_an_interruption(tmp_path, monkeypatch):
    spec = {"id": "Pendulum-v1", "steps": 60, "n_envs": 3, "evaluation": {"every": 30}}
    run = only_run(write_tier(tmp_path / "several.yml", environments={"Several": spec}), environment="Several")
    store, save, seen = Store(tmp_path / "results"), Checkpoints.save, []

    def save_and_stop(self, model, *arguments):
        save(self, model, *arguments)
        seen.append((model.n_envs, model.num_timesteps, model.replay_buffer.size() * model.n_envs))
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        run_here(run, store, "cpu", COMMIT)
    # the transitions of the last step are stored after the callbacks
    assert seen == [(3, 30, 27)]
    assert run_here(run, store, "cpu", COMMIT) == (run, None)
    assert [record["steps"] for record in store.load(run)["records"]] == [30, 60]


def test_environments_of_runs_with_several_share_no_seed(tmp_path, monkeypatch):
    spec = {"id": "Pendulum-v1", "steps": 30, "n_envs": 3, "evaluation": {"every": 30}}
    tier = write_tier(tmp_path / "several.yml", seeds=[0, 1], environments={"Several": spec})
    seeds = []
    start = benchmarks.train.Evaluation._on_training_start

    def started(self):
        seeds.extend(env.unwrapped.np_random_seed for env in self.training_env.envs)
        start(self)

    monkeypatch.setattr(benchmarks.train.Evaluation, "_on_training_start", started)
    for run in tier.select(["dqs"], ["Several"], [0, 1]):
        trained(run)
    assert len(set(seeds)) == 6


MOVE = {"at": 40, "to": [[1.0, 1.0]] * 4, "recovered_at": 0.0}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"steps": 63, "n_envs": 7, "evaluation": {"every": 40}},
            "evaluation's every must be a multiple .* 7, got 40",
        ),
        ({"steps": 60, "n_envs": 0}, "n_envs must be an integer >= 1, got 0"),
        ({"steps": 60, "n_envs": 7, "evaluation": {"every": 35}}, "steps must be a multiple of n_envs, 7, got 60"),
        (
            {"steps": 60, "n_envs": 2, "evaluation": {"every": 30}, "move_favourite": {**MOVE, "at": 15}},
            "move_favourite's at must be a multiple of n_envs, 2, got 15",
        ),
        *(
            (
                {"steps": 60, "evaluation": {"every": 20}, "move_favourite": {**MOVE, "at": at}},
                f"move_favourite's at must be the step of an evaluation before the last, got {at}",
            )
            for at in (0, 30, 60)
        ),
        ({"steps": 60, "move_favourite": {}}, r"move_favourite must hold \['at', 'recovered_at', 'to'\] too"),
        ({"steps": 60, "move_favourite": {"at": 40}}, r"move_favourite must hold \['recovered_at', 'to'\] too"),
    ],
)
def test_what_would_be_stepped_over_is_refused(spec, message, tmp_path):
    with pytest.raises(ValueError, match=f"environment 'Several': {message}"):
        write_tier(tmp_path / "several.yml", environments={"Several": {"id": "Pendulum-v1", **spec}})


def test_the_favourite_goal_moves_and_stays_moved_where_the_run_goes_on(tmp_path, monkeypatch):
    """In training and evaluation, from the next episodes on, also after an interruption."""
    to = [[3.5, 3.5], [-3.5, -3.5], [-3.5, 3.5], [3.5, -3.5]]
    arena = {"id": "sb3_dqs/MultiGoal-v0", "steps": 80, "move_favourite": {"at": 40, "to": to, "recovered_at": 0.0}}
    run = only_run(write_tier(tmp_path / "moved.yml", environments={"Moved": arena}), "sac", "Moved")
    monkeypatch.setattr(benchmarks.train, "favourite_goal", lambda episodes, env: 1)
    store = Store(tmp_path / "results")
    save, seen = Checkpoints.save, []

    def save_and_stop(self, model, *arguments):
        save(self, model, *arguments)
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", save_and_stop)
        _, error = run_here(run, store, "cpu", COMMIT)
    assert "power cut" in error

    def look(records, at, recovered_at):
        seen.append([record.get("moved_goal") for record in records])
        return {}

    goals_of_evaluation, goals_of_first_episode = [], []
    roll_out, start = benchmarks.train.roll_out, benchmarks.train.Evaluation._on_training_start

    def started(self):
        goals_of_first_episode.extend(env.unwrapped.arena.goals.tolist() for env in self.training_env.envs)
        start(self)

    def watched(model, envs, *arguments, **keywords):
        goals_of_evaluation.append(envs[0].unwrapped.goals.tolist())
        # the environment of training
        goals_of_evaluation.append(model.get_env().envs[0].unwrapped.goals.tolist())
        return roll_out(model, envs, *arguments, **keywords)

    monkeypatch.setattr(benchmarks.train, "recovery_measures", look)
    monkeypatch.setattr(benchmarks.train, "roll_out", watched)
    monkeypatch.setattr(benchmarks.train.Evaluation, "_on_training_start", started)
    assert run_here(run, store, "cpu", COMMIT) == (run, None)
    assert seen == [[1, None]]
    moved = [[5.0, 0.0], [-3.5, -3.5], [0.0, 5.0], [0.0, -5.0]]
    assert goals_of_evaluation == 4 * [moved]
    assert goals_of_first_episode == [moved]


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
    settings = {"component_kwargs": {"diffusion": {"score_estimator": "value"}}}
    tier = write_tier(tmp_path / "static.yml", algorithms={"value": {"class": "DQS", "settings": settings}})
    result = trained(only_run(tier, "value", "ring"))
    assert set(result["measures"]) == {"mmd", "sliced_w2", "total_variation", "seconds", "cpu_seconds"}
    with pytest.raises(ValueError, match="learning_starts"):
        trained(only_run(load_tier(str(tier_path)), "dqs", "ring"))


def finished(run, hours, continued_at=(), seconds=0.0):
    """A result that took so long."""
    return {
        "key": run.key,
        "run": run.__dict__,
        "records": [{"seconds": seconds}],
        "continued_at": list(continued_at),
        "started": "2026-01-01T00:00:00+00:00",
        "finished": f"2026-01-01T{hours:02d}:00:00+00:00",
    }


def test_the_outlook_is_that_of_finished_runs_of_the_same_algorithm_and_environment(tmp_path):
    seeds = list(range(10))
    runs = write_tier(tmp_path / "tiny.yml", seeds=seeds).select(environments=["MultiGoal"])
    longer = {"MultiGoal": {**TIER["environments"]["MultiGoal"], "steps": 160}}
    former = write_tier(tmp_path / "former.yml", seeds=seeds, environments=longer)
    store = Store(tmp_path / "results")
    assert outlook(runs, store, 2) == (
        "20 runs left; no estimate for 20 of them, without a finished run to judge by: "
        "dqs in MultiGoal (10), sac in MultiGoal (10)"
    )
    # 80 steps in 2, 4 and 6 hours; the second was interrupted, so the clock of its training counts; the third, of
    # another number of steps, took 12
    dqs = only_run(load_tier(str(tmp_path / "tiny.yml")), "dqs")
    store.save(dqs, finished(dqs, 2))
    (second,) = [run for run in runs if (run.algorithm, run.seed) == ("dqs", 1)]
    store.save(second, finished(second, 23, continued_at=[40], seconds=4 * 3600.0))
    store.save(only_run(former, "dqs"), finished(only_run(former, "dqs"), 12))
    left = [run for run in runs if store.load(run) is None]
    assert outlook(left, store, 2) == (
        "18 runs left; about 32.0 hours of one process, 16.0 with 2 at a time; "
        "no estimate for 10 of them, without a finished run to judge by: sac in MultiGoal (10)"
    )
    assert outlook(left, store, None).startswith("18 runs left; about 32.0 hours of one process; no estimate")


def test_the_runner_tells_what_is_left_before_it_starts(tier_path, tmp_path, capsys):
    arguments = [str(tier_path), "--environments", "MultiGoal", "--algorithms", "dqs", "--jobs", "1"]
    arguments += ["--output", str(tmp_path / "results"), "--seeds"]
    assert main([*arguments, "0"]) == 0
    assert "1 runs left; no estimate" in capsys.readouterr().out
    assert main([*arguments, "0", "1"]) == 0
    out = capsys.readouterr().out
    assert "2 runs, 1 of them done" in out
    assert "1 runs left; about 0.0 hours of one process, 0.0 with 1 at a time\n" in out
    assert main([*arguments, "0", "1"]) == 0
    assert "left" not in capsys.readouterr().out


def test_failures_are_reported_and_do_not_stop_the_others(tier_path, tmp_path, capsys):
    output = str(tmp_path / "results")
    # the ring refuses these settings, see above
    assert main([str(tier_path), "--algorithms", "dqs", "--seeds", "0", "--output", output, "--jobs", "-1"]) == 1
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
