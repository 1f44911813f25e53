"""Does the benchmark of speed count and time what it says?"""

from types import SimpleNamespace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.speed import N_UPDATES, RandomEnv, Stopwatch, measured_rounds, multiplications, prepared
from sb3_dqs import DQS
from sb3_dqs.diffusion import estimators


@pytest.mark.parametrize("n_actions", [1, 6, 38])
@pytest.mark.parametrize("settings", [{}, {"n_score_samples": 64, "n_diffusion_steps": 8}])
def test_count_of_multiplications_is_that_of_the_matrix_products(n_actions, settings, monkeypatch):
    # autograd, as on a GPU: its products are what the counter of torch knows, whatever critic is the smaller one
    def value_and_gradient(q_fn, actions):
        return estimators._value_and_gradient_by_autograd(q_fn, actions)

    monkeypatch.setattr(estimators.SmallestOutput, "value_and_gradient", value_and_gradient)
    model = prepared((DQS, {"policy_delay": 3, **settings}), RandomEnv(17, n_actions), "cpu", width=32, batch_size=64)
    with FlopCounterMode(display=False) as counter:
        model.train(3, 64)
    counted = multiplications(
        n_actions=n_actions,
        n_score_samples=settings.get("n_score_samples", 8),
        n_diffusion_steps=settings.get("n_diffusion_steps", 5),
        batch_size=64,
        width=32,
        n_observations=17,
        actor_batch_size=64,
        policy_delay=3,
        is_gpu=True,
    )
    # a multiplication and an addition are two operations
    assert counted == pytest.approx(counter.get_total_flops() / 2 / 3, rel=0.01)


def test_prepared_models_have_random_transitions_and_some_updates():
    model = prepared((DQS, {"policy_kwargs": {"n_critics": 3}}), RandomEnv(3, 2), "cpu", width=8)
    assert model.replay_buffer.size() == 1_400
    assert model._n_updates == N_UPDATES
    assert len(model.critic.q_networks) == 3
    assert model.actor.net_arch == [8, 8]


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
