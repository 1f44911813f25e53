"""Does the temperature follow its schedule, or its entropy target whatever the scale of the rewards?"""

import math

import gymnasium as gym
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_dqs import DQS, LogLinearSchedule
from sb3_dqs.temperature import Thermostat, cooled_share, cooling_entropy_target
from tests.conftest import SMALL, SMALL_PAPER


def test_log_linear_schedule_passes_through_its_geometric_middle():
    schedule = LogLinearSchedule(10.0, 0.1, end_fraction=0.5)
    values = [schedule(progress_remaining) for progress_remaining in (1.0, 0.75, 0.5, 0.0)]
    assert values == pytest.approx([10.0, 1.0, 0.1, 0.1])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [((0.0, 1.0), "initial"), ((1.0, -1.0), "final"), ((1.0, math.nan), "final"), ((1.0, 1.0, 0.0), "end_fraction")],
)
def test_log_linear_schedule_refuses_bad_values(arguments, name):
    with pytest.raises(ValueError, match=name):
        LogLinearSchedule(*arguments)


def measured(spread=1.0, entropy=0.0, policy_entropy=0.0, action_dim=1):
    """A thermostat at relative temperature 1 after one measurement."""
    thermostat = Thermostat(1.0, action_dim)
    thermostat.measure(th.tensor(spread), th.tensor(entropy), th.tensor(policy_entropy))
    return thermostat


def test_too_little_entropy_heats_and_too_much_cools_with_bounded_steps():
    def change(entropy):
        thermostat = measured(entropy=entropy, policy_entropy=entropy, action_dim=2)
        thermostat.aim_at(-1.0)
        thermostat.step()
        return thermostat.log_temperature.item()

    # gain 5e-3 per nat and dimension: a deficit of 0.1 nats over 2 dimensions is half of 0.1 * 5e-3
    assert change(-1.1) == pytest.approx(2.5e-4, rel=1e-4)
    assert change(-0.9) == pytest.approx(-2.5e-4, rel=1e-4)
    assert change(-9.0) == pytest.approx(2e-3)
    assert change(+9.0) == pytest.approx(-2e-3)


@pytest.mark.parametrize("entropies", [(-1.2, 0.4), (0.4, -1.2)])
def test_the_mean_of_both_entropies_steers(entropies):
    thermostat = measured(1.0, *entropies)
    thermostat.aim_at(-0.2)
    thermostat.step()
    # their mean is -0.4: a deficit of 0.2 nats
    assert thermostat.log_temperature.item() == pytest.approx(1e-3, rel=1e-4)


def test_entropy_target_falls_linearly_from_nearly_uniform():
    targets = [cooling_entropy_target(cooled_share(n_updates, 1_000), -1.0, 2) for n_updates in (0, 500, 1_000, 5_000)]
    # 0.65 nats for each of 2 dimensions, then half way to -1, then -1
    assert targets == pytest.approx([1.3, 0.15, -1.0, -1.0])
    assert cooling_entropy_target(cooled_share(0, 0), -1.0, 2) == pytest.approx(-1.0)
    assert cooling_entropy_target(0.0, 1.35, 2) == 1.35, "a target hotter than the hot start is held from the start"


def test_running_means_are_plain_at_first_and_forget_later():
    thermostat = Thermostat(1.0, 1)
    for value in (4.0, 8.0, 6.0):
        thermostat.measure(th.tensor(value), th.tensor(-value), th.tensor(2 * value))
    assert thermostat.q_spread.item() == pytest.approx(6.0)
    assert thermostat.entropy.item() == pytest.approx(-6.0)
    assert thermostat.policy_entropy.item() == pytest.approx(12.0)
    thermostat.n_measurements.fill_(10_000)
    thermostat.measure(th.tensor(106.0), th.tensor(-6.0), th.tensor(12.0))
    assert thermostat.q_spread.item() == pytest.approx(7.0)


def test_temperature_scales_with_q_and_stays_positive_where_q_ignores_the_action():
    assert measured(spread=50.0).temperature.item() == pytest.approx(50.0)
    assert measured(spread=0.0).temperature.item() > 0


def test_thermostat_holds_a_gaussian_policy_at_its_entropy_target():
    # exp(-a^2 / (2 T)) has standard deviation sqrt(T) and entropy ln(2 pi e T) / 2: target -0.5 is T = exp(-1) / (2 pi e)
    thermostat = Thermostat(1.0, 1)
    for _ in range(20_000):
        entropy = 0.5 * th.log(2 * math.pi * math.e * thermostat.temperature)
        thermostat.measure(th.tensor(1.0), entropy, entropy)
        thermostat.aim_at(-0.5)
        thermostat.step()
    assert thermostat.temperature.item() == pytest.approx(math.exp(-1.0) / (2 * math.pi * math.e), rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_automatic_temperature_starts_hot_at_any_scale_of_q(scale):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL)
    for q_network in model.critic.q_networks:
        q_network[-1].weight.data *= scale
        q_network[-1].bias.data *= scale
    model.critic.optimizer.param_groups[0]["lr"] = 0.0
    model.learning_rate = 0.0
    model._setup_lr_schedule()
    model.learn(60)
    # relative to the spread of Q, the temperature has moved by at most 40 steps of 2e-3
    assert model.thermostat.log_temperature.exp().item() == pytest.approx(3.0, rel=0.08)
    ratio = model.thermostat.temperature.item() / scale
    assert 1e-3 < ratio < 1.0, "the spread of an untrained Q is some hundredths at scale 1"
    assert model.logger.name_to_value["train/effective_sample_size"] > 7, "nearly all of 8 proposals count"


def test_automatic_temperature_cools_a_policy_that_is_too_random():
    model = DQS("MlpPolicy", "Pendulum-v1", target_entropy=-3.0, cooling_updates=0, policy_delay=1, **SMALL).learn(60)
    assert model.thermostat.log_temperature.item() == pytest.approx(math.log(3.0) - 40 * 2e-3, abs=1e-4), (
        "40 of the largest steps"
    )
    assert model.logger.name_to_value["train/target_entropy"] == -3.0


def test_cooling_holds_the_first_target_near_uniform_at_first():
    model = DQS("MlpPolicy", "Pendulum-v1", target_entropy=-3.0, cooling_updates=10_000, **SMALL).learn(60)
    # 40 of 10000 updates on the way from 0.65 to -3
    assert model.logger.name_to_value["train/target_entropy"] == pytest.approx(0.65 - 3.65 * 0.004)


def test_initial_temperature_is_relative_to_the_spread_of_q():
    model = DQS("MlpPolicy", "Pendulum-v1", initial_temperature=5.0, **SMALL).learn(60)
    assert model.thermostat.log_temperature.exp().item() == pytest.approx(5.0, rel=0.08)


def test_fixed_temperature_is_absolute_and_stays():
    model = DQS("MlpPolicy", "Pendulum-v1", temperature=0.3, **SMALL).learn(60)
    assert model.thermostat.temperature.item() == pytest.approx(0.3)
    assert model.logger.name_to_value["train/temperature"] == pytest.approx(0.3)


def test_another_kind_of_temperature_can_be_set_when_a_model_is_loaded(tmp_path):
    automatic = DQS("MlpPolicy", "Pendulum-v1", **SMALL).learn(60)
    assert automatic.thermostat.q_spread != 1.0
    automatic.save(tmp_path / "automatic")
    fixed = DQS.load(tmp_path / "automatic", env=gym.make("Pendulum-v1"), temperature=0.1).learn(30)
    assert fixed.thermostat.temperature.item() == pytest.approx(0.1), "absolute, whatever spread of Q was measured before"
    fixed = DQS("MlpPolicy", "Pendulum-v1", temperature=0.1, **SMALL).learn(30)
    fixed.save(tmp_path / "fixed")
    automatic = DQS.load(tmp_path / "fixed", temperature="auto", initial_temperature=2.0)
    assert automatic.thermostat.temperature.item() == pytest.approx(2.0), "starts hot, relative to the spread of Q"
    again = DQS.load(tmp_path / "automatic", env=gym.make("Pendulum-v1"), temperature=0.1).learn(30)
    again.save(tmp_path / "again")
    automatic = DQS.load(tmp_path / "again", temperature="auto", initial_temperature=2.0)
    assert automatic.thermostat.temperature.item() == pytest.approx(2.0), "by way of a fixed one"
    DQS("MlpPolicy", "Pendulum-v1", target_entropy=-2.0, **SMALL).save(tmp_path / "with_target")
    with pytest.raises(ValueError, match=r"load\(\.\.\., target_entropy='auto'\)"):
        DQS.load(tmp_path / "with_target", temperature=0.1)
    DQS.load(tmp_path / "with_target", temperature=0.1, target_entropy="auto")


def test_a_temperature_schedule_is_asked_within_its_range_and_its_values_are_checked():
    asked = []

    def schedule(progress_remaining):
        asked.append(progress_remaining)
        return progress_remaining + 1e-3

    # the last of 4 environments' steps goes beyond the end
    DQS("MlpPolicy", make_vec_env("Pendulum-v1", 4), temperature=schedule, **SMALL).learn(30)
    assert min(asked) == 0.0
    holes = DQS("MlpPolicy", "Pendulum-v1", temperature=lambda remaining: 0.0 if 0.2 < remaining < 0.8 else 1.0, **SMALL)
    with pytest.raises(ValueError, match=r"temperature must be a finite number > 0, got 0\.0; a schedule"):
        holes.learn(40)


def test_automatic_target_is_half_a_nat_below_zero_per_dimension():
    assert DQS("MlpPolicy", "Pendulum-v1", **SMALL).entropy_goal == -0.5
    assert DQS("MlpPolicy", "Pendulum-v1", target_entropy=-2.0, **SMALL).entropy_goal == -2.0
    assert DQS("MlpPolicy", "Pendulum-v1", target_entropy="auto", **SMALL).entropy_goal == -0.5


def test_paper_setting_has_the_published_constant_temperature():
    model = DQS("MlpPolicy", "Pendulum-v1", **SMALL_PAPER).learn(40)
    assert model.thermostat.temperature.item() == pytest.approx(0.05)
