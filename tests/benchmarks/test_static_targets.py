"""Is a static target learned by the algorithm itself, from a critic that knows the law?"""

import math

import pytest
import torch as th

from benchmarks.static_targets import LAWS, distance_to_law, exact_draws, model_of_law, sampled_actions, train_on_law
from sb3_dqs import DQS, PaperDQS
from sb3_dqs.critics import evaluating, smallest_q_fn
from sb3_dqs.signatures import default_of

CENTRE, WIDTH = th.tensor([0.4, -0.4]), 0.15


def peak(actions):
    return -((actions - CENTRE) ** 2).sum(dim=-1) / (2 * WIDTH**2)


@pytest.mark.parametrize("law", LAWS)
def test_the_critic_is_the_law_whatever_the_observation(law):
    model = model_of_law(DQS, LAWS[law], seed=0)
    actions = 2 * th.rand(5, 3, 2) - 1
    for observations in (th.zeros(3, 1), th.randn(3, 1)):
        with evaluating(model.critic):
            assert th.equal(smallest_q_fn(model.critic, observations)(actions), LAWS[law](actions))


def test_exact_draws_have_the_moments_of_the_law():
    draws = exact_draws(peak, 4_000)
    # all of the peak lies inside the box, which ends four widths away from its centre
    assert draws.mean(dim=0).tolist() == pytest.approx(CENTRE.tolist(), abs=4 * WIDTH / math.sqrt(4_000))
    assert draws.std(dim=0).tolist() == pytest.approx([WIDTH, WIDTH], rel=4 / math.sqrt(2 * 4_000))


def test_a_trained_policy_has_the_moments_of_the_law():
    model = model_of_law(DQS, peak, seed=0)
    before = distance_to_law(model, peak)
    train_on_law(model, 300)
    samples = sampled_actions(model)
    assert samples.mean(dim=0).tolist() == pytest.approx(CENTRE.tolist(), abs=0.1)
    assert samples.std(dim=0).tolist() == pytest.approx([WIDTH, WIDTH], rel=0.5)
    assert distance_to_law(model, peak) < before / 4
    rate, factor = (default_of(DQS, name) for name in ("learning_rate", "actor_learning_rate_factor"))
    assert model.actor.optimizer.param_groups[0]["lr"] == pytest.approx(factor * rate)


def test_the_published_algorithm_follows_the_law_to_where_it_ends():
    # its law is that of the whole space, where a linear Q has no end but the walls that tanh makes
    model = model_of_law(PaperDQS, LAWS["corner"], seed=0, n_score_samples=50, n_diffusion_steps=20, actor_batch_size=64)
    assert sampled_actions(model).mean(dim=0).abs().max() < 0.5
    train_on_law(model, 200)
    assert sampled_actions(model).mean(dim=0).min() > 0.9


def test_settings_reach_the_diffusion():
    model = model_of_law(DQS, peak, seed=0, component_kwargs={"diffusion": {"on_policy_share": 0.25}}, n_score_samples=4)
    assert (model.actor.diffusion.on_policy_share, model.actor.diffusion.n_score_samples) == (0.25, 4)


def test_the_temperature_falls_over_the_first_half_of_the_updates(monkeypatch):
    model = model_of_law(DQS, next(iter(LAWS.values())), seed=0)
    temperatures = []
    monkeypatch.setattr(model, "_update_actor", lambda *args: temperatures.append(model.thermostat.value.item()))
    train_on_law(model, 6, hottest=100.0)
    # 100 to the power of 1, 2 / 3 and 1 / 3
    assert temperatures == pytest.approx([100.0, 21.544, 4.642, 1.0, 1.0, 1.0], rel=1e-3)
    assert model.policy.temperature.item() == 1
