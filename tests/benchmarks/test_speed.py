"""Does the benchmark of speed count and time what it says?"""

import copy
from types import SimpleNamespace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.shapes import RandomEnv
from benchmarks.speed import (
    ALGORITHMS,
    N_UPDATES,
    ON_A_GPU,
    PAPER,
    PAPER_ON_A_GPU,
    Stopwatch,
    measured_rounds,
    multiplications,
    prepared,
    timed_prediction,
    timed_update,
)
from sb3_dqs import DQS


@pytest.mark.parametrize("n_actions", [1, 6, 38])
@pytest.mark.parametrize("settings", [{}, {"n_score_samples": 64, "n_diffusion_steps": 8}])
def test_count_of_multiplications_is_that_of_the_matrix_products(n_actions, settings):
    settings = {
        "n_score_samples": 8,
        "n_diffusion_steps": 5,
        "actor_batch_size": 48,
        "policy_delay": 3,
        **settings,
    }
    model = prepared((DQS, settings), RandomEnv(17, n_actions), "cpu", width=32, batch_size=64)
    with FlopCounterMode(display=False) as counter:
        model.train(3, 64)
    counted = multiplications(n_actions=n_actions, batch_size=64, width=32, n_observations=17, **settings)
    # a multiplication and an addition are two operations
    assert counted == pytest.approx(counter.get_total_flops() / 2 / 3, rel=0.01)


def test_prepared_models_have_random_transitions_and_some_updates():
    model = prepared((DQS, {"policy_kwargs": {"n_critics": 3}}), RandomEnv(3, 2), "cpu", width=8)
    assert model.replay_buffer.size() == 1_400
    assert model._n_updates == N_UPDATES
    assert len(model.critic.q_networks) == 3
    assert model.actor.net_arch == [8, 8]


VARIANTS = {**ALGORITHMS, **PAPER, **ON_A_GPU, **PAPER_ON_A_GPU}


@pytest.mark.parametrize("name", VARIANTS)
def test_settings_of_every_row_are_taken(name):
    algorithm, settings = VARIANTS[name]
    model = algorithm("MlpPolicy", RandomEnv(3, 2), device="cpu", buffer_size=10, **copy.deepcopy(settings))
    for setting in ("n_score_samples", "actor_batch_size", "n_diffusion_steps", "policy_delay", "replay_buffer_class"):
        if setting in settings:
            assert getattr(model, setting) == settings[setting]


def test_sac_with_fused_adam_stands_beside_sac():
    def is_fused(name):
        algorithm, settings = ALGORITHMS[name]
        model = algorithm("MlpPolicy", RandomEnv(3, 2), device="cpu", buffer_size=10, **copy.deepcopy(settings))
        return [bool(optimizer.param_groups[0]["fused"]) for optimizer in (model.actor.optimizer, model.critic.optimizer)]

    assert is_fused("SAC") == [False, False]
    assert is_fused("SAC, fused Adam") == is_fused("DQS") == [True, True]


def test_every_part_of_an_update_is_timed():
    seconds = timed_update("DQS", "cpu")()
    assert set(seconds) == {
        "replay sampling",
        "next actions",
        "averaged critic",
        "averaged actor",
        "critic step",
        "score target",
        "actor step",
        "optimiser",
        "rest",
    }
    assert min(seconds.values()) > 0


@pytest.mark.parametrize("deterministic", [True, False])
def test_every_part_of_an_action_is_timed(deterministic):
    seconds = timed_prediction("DQS", "cpu", deterministic)()
    of_a_sample = set() if deterministic else {"density of the mixture", "corrector, rest"}
    assert set(seconds) == {"diffusion", "refiner", "critic", "rest"} | of_a_sample
    assert min(seconds.values()) > 0
    assert set(timed_prediction("SAC", "cpu", deterministic)()) == {"rest"}


def clock_of(monkeypatch, *readings):
    times = iter(readings)
    monkeypatch.setattr("benchmarks.speed.time", SimpleNamespace(perf_counter=lambda: next(times)))


def test_stopwatch_takes_inner_parts_out_of_outer_ones(monkeypatch):
    # outer from 0 to 10, inner from 1 to 4 and from 4 to 6
    clock_of(monkeypatch, 0.0, 1.0, 4.0, 4.0, 6.0, 10.0)
    stopwatch = Stopwatch("cpu")
    inner = stopwatch.timed("inner", lambda: None)
    stopwatch.timed("outer", lambda: (inner(), inner()))()
    assert stopwatch.seconds == {"inner": 5.0, "outer": 5.0}


def test_ratios_are_to_the_reference_of_the_same_round(monkeypatch):
    # slow takes 4, 8 and 20 for two calls, fast 1, 1 and 20 for one
    clock_of(monkeypatch, 0.0, 4.0, 4.0, 5.0, 5.0, 13.0, 13.0, 14.0, 14.0, 34.0, 34.0, 54.0)
    calls = []
    tasks = {"slow": (lambda: calls.append("slow"), 2), "fast": (lambda: calls.append("fast"), 1)}
    summary = measured_rounds(tasks, 3, "cpu", "slow")
    assert calls == ["slow", "slow", "fast"] * 3
    assert summary["slow"] == {"low": 1.0, "median": 1.0, "high": 1.0, "seconds": 4.0}
    # 1 / 2, 1 / 4, 20 / 10
    assert summary["fast"] == {"low": 0.375, "median": 0.5, "high": 1.25, "seconds": 1.0}
