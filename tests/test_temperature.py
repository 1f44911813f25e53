"""Does the temperature follow its schedule, or its entropy target whatever the scale of the rewards?"""

import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

from sb3_dqs import DQS, LogLinearSchedule, PaperDQS
from sb3_dqs.checks import InputError
from sb3_dqs.temperature import AutomaticTemperature, ScheduledTemperature, cooled_share
from tests.conftest import SMALL, SMALL_PAPER, RandomEnv

LN_2 = math.log(2)


def automatic_temperature(action_dim, target_entropy, **settings):
    """Of a policy that may be uniform, or as narrow as it likes."""
    return AutomaticTemperature(action_dim, target_entropy, (-10.0, LN_2), **settings)


def gaussian_entropy(temperature):
    """exp(-a^2 / (2 T)) has standard deviation T ** 0.5 and entropy ln(2 pi e T) / 2."""
    return 0.5 * math.log(2 * math.pi * math.e * temperature)


def gaussian_temperature(entropy):
    return math.exp(2 * entropy) / (2 * math.pi * math.e)


def measures(spread=1.0, entropy=0.0, policy_entropy=None):
    values = {"q_spread": spread, "entropy": entropy, "policy_entropy": entropy if policy_entropy is None else policy_entropy}
    return {name: th.tensor(float(value)) for name, value in values.items()}


# Schedules


def test_log_linear_schedule_passes_through_its_geometric_middle():
    schedule = LogLinearSchedule(10.0, 0.1, end_fraction=0.5)
    values = [schedule(progress_remaining) for progress_remaining in (1.0, 0.75, 0.5, 0.0)]
    assert values == pytest.approx([10.0, 1.0, 0.1, 0.1])


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ((0.0, 1.0), "initial"),
        ((1.0, -1.0), "final"),
        ((1.0, math.nan), "final"),
        ((1.0, 1.0, 0.0), "end_fraction"),
        ((1.0, 1.0, 1.5), "end_fraction"),
    ],
)
def test_log_linear_schedule_refuses_bad_values(arguments, name):
    with pytest.raises(ValueError, match=name):
        LogLinearSchedule(*arguments)


# Cooling


@pytest.mark.parametrize(
    ("n_updates", "cooling_updates", "steps_done", "steps_in_run", "expected"),
    [
        # by updates, where the run is long
        (250, 1_000, 250, 100_000, 0.25),
        (5_000, 1_000, 5_000, 100_000, 1.0),
        # by the first half of a run that is too short for them
        (100, 5_000, 100, 400, 0.5),
        (200, 5_000, 200, 400, 1.0),
        # many updates per step
        (1_000, 4_000, 10, 10_000, 0.25),
        # no cooling at all, and a run that is warm-up alone
        (0, 0, 0, 1_000, 1.0),
        (10, 100, 0, 0, 0.1),
        (10, 100, -50, -10, 0.1),
        # steps of warm-up do not count
        (0, 100, -50, 1_000, 0.0),
    ],
)
def test_cooling_takes_its_updates_or_half_of_a_run_that_is_shorter(
    n_updates, cooling_updates, steps_done, steps_in_run, expected
):
    assert cooled_share(n_updates, cooling_updates, steps_done, steps_in_run) == pytest.approx(expected)


def test_entropy_target_falls_linearly_from_nearly_uniform():
    def targets(target_entropy):
        thermostat = automatic_temperature(2, target_entropy)
        values = []
        for share in (0.0, 0.5, 1.0):
            thermostat.start_update(share)
            values.append(thermostat.target.item())
        return values

    # nats per dimension: half way from 0.65 to -1, and to -2 / 2
    assert targets("auto") == pytest.approx([0.65, -0.175, -1.0])
    assert targets(-2.0) == pytest.approx([0.65, -0.175, -1.0])
    assert targets(1.35) == pytest.approx([0.675] * 3), "a target hotter than the hot start is held from the start"


@pytest.mark.parametrize("cooling_updates", [0, 2, 6, 10, 100, 1_000])
def test_the_temperature_follows_a_cooling_of_any_length_if_the_policy_answers_at_once(cooling_updates):
    thermostat = automatic_temperature(1, -1.0, initial=gaussian_temperature(0.65))
    errors = []
    for n_updates in range(1, cooling_updates + 200):
        thermostat.start_update(cooled_share(n_updates, cooling_updates, 0, 0))
        if n_updates % 2 == 0:
            thermostat.observe(measures(1.0, gaussian_entropy(thermostat.value.item())))
        errors.append(gaussian_entropy(thermostat.value.item()) - thermostat.target.item())
    assert min(errors) > -0.1, "no colder than asked for"
    if cooling_updates >= 10:
        # 1.65 nats take 3.3 units of the log temperature; the gain may take 5e-3 / 2e-3 * 5 of them per nat that it lags
        assert max(errors) < 3.3 / 12.5


def test_a_run_of_1500_steps_cools_and_its_log_shows_it():
    class Log(BaseCallback):
        """The log after each round of training."""

        def _init_callback(self):
            self.rows = []

        def _on_step(self):
            values = self.logger.name_to_value
            self.rows.append([values[f"train/{name}"] for name in ("target_entropy", "policy_entropy")])
            return True

    model = DQS(
        "MlpPolicy",
        RandomEnv(spaces.Box(-1.0, 1.0, (1,)), action_dim=1),
        gamma=0.0,
        policy_kwargs={"net_arch": [32, 32]},
        learning_rate=5e-3,
        learning_starts=100,
        train_freq=4,
        policy_delay=1,
        seed=0,
    )
    log = Log()
    model.learn(1_500, callback=log)
    assert model.cooled_share == 1.0
    targets, entropies = np.array(log.rows[110:]).T
    assert targets[-1] == -1.0
    # from step 110 on, after 10 of the 700 steps of the cooling
    assert targets[0] == pytest.approx(0.65 - 1.65 * 10 / 700, abs=0.02)
    assert targets[400] == pytest.approx(0.65 - 1.65 * 410 / 700, abs=0.02)
    # of one action given the noisy one that it is refined from, so below the 0.69 of uniform actions
    assert 0.2 < entropies.max() < LN_2, "it starts nearly uniform"
    assert entropies[-100:].mean() == pytest.approx(-1.0, abs=0.3)
    with th.no_grad():
        actions = model.actor(th.zeros(4_000, 1))
    # the Gaussian of -1 nat has standard deviation 0.089 on the [-1, 1] box
    assert 0.5 * 0.089 < actions.std().item() < 2 * 0.089


# The automatic temperature


def test_too_little_entropy_heats_and_too_much_cools_with_bounded_steps():
    def change(entropy):
        thermostat = automatic_temperature(2, -1.0, initial=1.0, hot_entropy=-0.5)
        thermostat.observe(measures(1.0, entropy))
        return thermostat.log_temperature.item()

    # gain 5e-3 per nat and dimension, for a target of -1 / 2 per dimension
    assert change(-0.6) == pytest.approx(0.1 * 5e-3, rel=1e-4)
    assert change(-0.4) == pytest.approx(-0.1 * 5e-3, rel=1e-4)
    assert change(-9.0) == pytest.approx(2e-3)
    assert change(+9.0) == pytest.approx(-2e-3)


def test_the_entropy_of_the_policy_steers_and_not_that_of_its_law():
    thermostat = automatic_temperature(1, -0.2, initial=1.0, hot_entropy=-0.2)
    thermostat.observe(measures(1.0, entropy=5.0, policy_entropy=-0.4))
    # a deficit of 0.2 nats
    assert thermostat.log_temperature.item() == pytest.approx(1e-3, rel=1e-4)


def test_settings_of_the_automatic_temperature_act():
    def after(entropy, **settings):
        thermostat = automatic_temperature(1, -0.2, **{"initial": 1.0, "hot_entropy": -0.2, **settings})
        thermostat.observe(measures(1.0, entropy))
        return thermostat.log_temperature.item()

    assert after(-0.4, gain=0.01) == pytest.approx(2e-3, rel=1e-4)
    assert after(-9.0, max_step=0.01) == pytest.approx(0.01)
    assert after(-0.2, initial=7.0) == pytest.approx(math.log(7.0))
    assert automatic_temperature(1, "auto", hot_entropy=0.5).target.item() == pytest.approx(0.5)
    # a quarter of the cooling may take a quarter of its range
    thermostat = automatic_temperature(1, -9.0, initial=1.0, cooling_range=2.0)
    thermostat.start_update(0.25)
    thermostat.observe(measures(1.0, 9.0))
    assert thermostat.log_temperature.item() == pytest.approx(-0.5)
    thermostat.observe(measures(1.0, 9.0))
    assert thermostat.log_temperature.item() == pytest.approx(-0.5 - 2e-3), "a step without cooling is as small as ever"


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"initial": 0}, "initial"),
        ({"gain": -1.0}, "gain"),
        ({"max_step": 0.0}, "max_step"),
        ({"cooling_range": math.inf}, "cooling_range"),
        ({"measurement_rate": 0.0}, "measurement_rate"),
        ({"measurement_rate": 1.5}, "measurement_rate"),
        ({"hot_entropy": 0.7}, "hot_entropy"),
        ({"target_entropy": 0.7}, "target_entropy"),
        ({"target_entropy": "low"}, "target_entropy"),
    ],
)
def test_automatic_temperature_refuses_bad_settings(settings, name):
    with pytest.raises(ValueError, match=f"^{name} must be"):
        automatic_temperature(1, **{"target_entropy": "auto", **settings})


def test_target_is_one_nat_below_zero_per_dimension_unless_told():
    assert automatic_temperature(3, "auto").final_target == -1.0
    assert automatic_temperature(4, -2.0).final_target == -0.5


def test_the_gaussian_policy_is_held_at_its_entropy_target():
    thermostat = automatic_temperature(1, -0.5, initial=gaussian_temperature(0.0))
    thermostat.start_update(1.0)
    for _ in range(4_000):
        thermostat.observe(measures(1.0, gaussian_entropy(thermostat.value.item())))
    assert thermostat.value.item() == pytest.approx(gaussian_temperature(-0.5), rel=1e-3)


def test_temperature_scales_with_q_and_stays_positive_where_q_ignores_the_action():
    def value(spread):
        thermostat = automatic_temperature(1, -0.5, initial=2.0, hot_entropy=-0.5)
        thermostat.observe(measures(spread, -0.5))
        return thermostat.value.item()

    assert value(50.0) == pytest.approx(100.0)
    assert value(0.0) > 0


def test_the_temperature_is_bounded_in_spreads_of_q():
    thermostat = automatic_temperature(1, -0.5, max_step=15.0, gain=15.0)
    for _ in range(3):
        thermostat.observe(measures(1.0, -9.0))
    assert thermostat.log_temperature.exp().item() == pytest.approx(10.0)
    for _ in range(9):
        thermostat.observe(measures(1.0, 9.0))
    assert thermostat.log_temperature.item() == -20.0
    with pytest.raises(ValueError, match=r"initial must be at most 10.0, got 11.0"):
        automatic_temperature(1, -0.5, initial=11.0)


def test_a_target_that_is_out_of_reach_for_long_does_not_wind_the_temperature_up():
    # a slow cooling, for a fifth of which the target is above what the policy can have
    thermostat = AutomaticTemperature(1, -1.0, (-2.58, 0.34), max_step=1.0, gain=0.5)
    for update in range(1_000):
        thermostat.start_update(update / 1_000)
        # at ten spreads of Q the entropy is within (1 / 10)^2 / 2 of that of a law that Q says nothing of
        thermostat.observe(measures(1.0, 0.34 - 0.5 / thermostat.log_temperature.exp().item() ** 2))
        assert thermostat.log_temperature.exp() <= 10.0 + 1e-4
    # and it has come down since, to where 1 / (2 T^2) is 0.34 + 1
    assert thermostat.log_temperature.exp().item() == pytest.approx((0.5 / 1.34) ** 0.5, rel=0.1)


# What both kinds have in common


def both_kinds():
    return [automatic_temperature(1, -0.5), ScheduledTemperature(0.25)]


@pytest.mark.parametrize("thermostat", both_kinds(), ids=["automatic", "scheduled"])
def test_running_means_are_plain_at_first_and_forget_later(thermostat):
    for value in (4.0, 8.0, 6.0):
        thermostat.observe(measures(value, -value, 2 * value))
    assert thermostat.q_spread.item() == pytest.approx(6.0)
    assert thermostat.entropy.item() == pytest.approx(-6.0)
    assert thermostat.policy_entropy.item() == pytest.approx(12.0)
    thermostat.n_measurements.fill_(10_000)
    thermostat.observe(measures(106.0, -6.0, 12.0))
    assert thermostat.q_spread.item() == pytest.approx(7.0)


@pytest.mark.parametrize(
    "thermostat",
    [automatic_temperature(1, -0.5, measurement_rate=0.5), ScheduledTemperature(0.25, measurement_rate=0.5)],
    ids=["automatic", "scheduled"],
)
def test_measurement_rate_sets_how_fast_they_forget(thermostat):
    for value in (0.0, 0.0, 0.0, 8.0):
        thermostat.observe(measures(1.0, value))
    assert thermostat.entropy.item() == 4.0


@pytest.mark.parametrize("thermostat", both_kinds(), ids=["automatic", "scheduled"])
def test_both_kinds_answer_to_the_same_verbs(thermostat):
    thermostat.start_round(1.0)
    thermostat.start_update(0.5)
    assert thermostat.value.shape == ()
    assert thermostat.value.item() > 0
    unmeasured = set(thermostat.logged())
    assert unmeasured <= {"temperature", "target_entropy"}, "nothing is logged that was not measured"
    thermostat.observe({**measures(2.0, -0.25, 0.25), "effective_sample_size": th.tensor(3.0)})
    logged = {name: value.item() for name, value in thermostat.logged().items()}
    assert set(logged) == unmeasured | {"q_spread", "entropy", "policy_entropy"}
    assert logged["temperature"] == thermostat.value.item()
    assert (logged["q_spread"], logged["entropy"], logged["policy_entropy"]) == (2.0, -0.25, 0.25)


@pytest.mark.parametrize("thermostat", both_kinds(), ids=["automatic", "scheduled"])
def test_logged_entropies_never_pass_that_of_uniform_actions(thermostat):
    # an estimate from one batch may
    thermostat.observe(measures(1.0, 1.21, 0.9))
    logged = thermostat.logged()
    assert logged["entropy"].item() == logged["policy_entropy"].item() == pytest.approx(LN_2)
    assert thermostat.entropy.item() == pytest.approx(1.21), "the running mean stays unbiased"


def test_measures_of_the_published_algorithm_leave_the_running_means_alone():
    thermostat = ScheduledTemperature(0.5)
    thermostat.observe({"effective_sample_size": th.tensor(3.0)})
    assert thermostat.n_measurements.item() == 0
    assert set(thermostat.logged()) == {"temperature"}


def test_an_automatic_temperature_does_not_follow_what_was_not_measured():
    thermostat = both_kinds()[0]
    before = thermostat.value.item()
    with pytest.raises(InputError, match=r"follows \['policy_entropy'\], which the actor's regressions do not measure"):
        thermostat.observe({"q_spread": th.tensor(1.0), "entropy": th.tensor(0.0)})
    assert thermostat.value.item() == before


def test_a_scheduled_temperature_is_where_the_schedule_is():
    thermostat = ScheduledTemperature(LogLinearSchedule(10.0, 0.1))
    values = [thermostat.value.item()]
    for progress_remaining in (0.5, 0.0):
        thermostat.start_round(progress_remaining)
        values.append(thermostat.value.item())
    assert values == pytest.approx([10.0, 1.0, 0.1])


# In training


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_automatic_temperature_starts_hot_at_any_scale_of_q(scale):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, learning_rate=0.0, **SMALL)
    for q_network in [*model.critic.q_networks, *model.policy.law_critic.q_networks]:
        q_network[-1].weight.data *= scale
        q_network[-1].bias.data *= scale
    model.learn(20)
    model.train(40, 16)
    # relative to the spread of Q, the temperature has moved by at most 20 steps of 2e-3, and what 40 of 5000 updates cool
    assert model.thermostat.value.item() == pytest.approx(3 * model.thermostat.q_spread.item(), rel=0.08)
    assert 1e-3 < model.thermostat.value.item() / scale < 2.0, "the spread of an untrained Q is some hundredths at scale 1"
    assert model.logger.name_to_value["train/effective_sample_size"] > 7, "nearly all of 8 proposals count"


def test_cooling_holds_the_first_target_near_uniform_at_first():
    # a run that is warm-up alone knows nothing of how long training will be
    model = DQS("MlpPolicy", "Pendulum-v1", target_entropy=-2.5, cooling_updates=10_000, **SMALL).learn(20)
    model.train(30, 16)
    # 30 of 10000 updates on the way from 0.65 to -2.5
    assert model.logger.name_to_value["train/target_entropy"] == pytest.approx(0.65 - 3.15 * 0.003)


def test_cooling_never_goes_back():
    model = DQS("MlpPolicy", "Pendulum-v1", **SMALL).learn(60)
    assert model.cooled_share == 1.0
    # a longer run, of which these are the first steps
    model.learn(60)
    assert model.cooled_share == 1.0


class StopAfter(BaseCallback):
    """Ends a run early; the last step has no update."""

    def __init__(self, n_steps):
        super().__init__()
        self.n_steps = n_steps

    def _on_step(self):
        return self.n_calls < self.n_steps


def test_cooling_goes_on_where_parameters_were_saved(tmp_path):
    saved = DQS("MlpPolicy", "Pendulum-v1", cooling_updates=1_000, **SMALL).learn(300)
    saved.save(tmp_path / "model")
    assert saved.cooled_share == 1.0, "the run was too short for 1000 updates"
    model = DQS("MlpPolicy", "Pendulum-v1", cooling_updates=1_000, **SMALL)
    model.set_parameters(tmp_path / "model")
    model.learn(100_000, callback=StopAfter(25))
    assert model.cooled_share == 1.0
    assert model.thermostat.target.item() == -1.0


def test_cooling_goes_on_from_loaded_parameters_also_where_the_model_is_older():
    young = DQS("MlpPolicy", "Pendulum-v1", cooling_updates=100, **SMALL).learn(10_000, StopAfter(46))
    old = DQS("MlpPolicy", "Pendulum-v1", cooling_updates=100, **SMALL).learn(140)
    assert (young.cooled_share, old.cooled_share) == (0.25, 1.0), "25 and 120 updates after 20 steps of warm-up"
    old.set_parameters(young.get_parameters())
    assert old.thermostat.value == young.thermostat.value
    old.learn(8, reset_num_timesteps=False)
    assert old.cooled_share == pytest.approx(0.33)
    old.cooling_updates = 200
    assert old.cooled_share == pytest.approx(33 / 200)


@pytest.mark.parametrize("temperature", ["auto", 1.0])
def test_cooling_of_a_loaded_model_is_known_to_the_last_bit(tmp_path, temperature):
    saved = DQS("MlpPolicy", "Pendulum-v1", temperature=temperature, cooling_updates=300, **SMALL).learn(2_000, StopAfter(100))
    saved.save(tmp_path / "model")
    assert 0 < saved.cooled_share < 1
    assert DQS.load(tmp_path / "model").cooled_share == saved.cooled_share


def test_a_run_in_pieces_cools_as_by_its_updates():
    model = DQS("MlpPolicy", "Pendulum-v1", cooling_updates=1_000, **SMALL)
    for n_steps in (60, 120):
        model.learn(60, reset_num_timesteps=False)
        # one update per step after 20 of warm-up
        assert model.cooled_share == pytest.approx((n_steps - 20) / 1_000)


def test_a_run_that_is_continued_before_its_end_cools_as_in_one_piece():
    whole = DQS("MlpPolicy", "Pendulum-v1", cooling_updates=1_000, **SMALL).learn(220, StopAfter(81))
    pieces = DQS("MlpPolicy", "Pendulum-v1", cooling_updates=1_000, **SMALL).learn(220, StopAfter(50))
    pieces.learn(30, reset_num_timesteps=False)
    # the last update is that of step 80, and half of the 200 steps after 20 of warm-up cool
    assert whole.cooled_share == pieces.cooled_share == pytest.approx(60 / 100)


def test_cooling_updates_changed_on_a_live_model_say_how_far_the_cooling_is(tmp_path):
    model = DQS("MlpPolicy", "Pendulum-v1", cooling_updates=10, **SMALL).learn(60)
    assert model.cooled_share == 1.0
    model.cooling_updates = 400
    assert model.cooled_share == pytest.approx(40 / 400)
    assert model.thermostat.target.item() == pytest.approx(0.65 - 1.65 * 40 / 400)
    model.save(tmp_path / "model")
    loaded = DQS.load(tmp_path / "model", env=gym.make("Pendulum-v1"))
    for changed in (model, loaded):
        changed.learn(20, reset_num_timesteps=False)
        assert changed.cooled_share == pytest.approx(60 / 400)
    model.cooling_updates = 20
    assert model.cooled_share == 1.0


def test_a_run_that_is_refused_changes_nothing():
    model = DQS("MlpPolicy", "Pendulum-v1", **SMALL).learn(100_000, StopAfter(50))
    buffer, share = model.replay_buffer, model.cooled_share
    model.replay_buffer = DQS("MlpPolicy", "Pendulum-v1", n_steps=3, **SMALL).replay_buffer
    with pytest.raises(ValueError, match="returns of 3 steps"):
        model.learn(30)
    model.replay_buffer = buffer
    model.learn(5, reset_num_timesteps=False)
    assert share < model.cooled_share < 0.01


def test_initial_temperature_is_relative_to_the_spread_of_q():
    kwargs = {"temperature": {"initial": 5.0, "max_step": 1e-6, "cooling_range": 1e-6}}
    model = DQS("MlpPolicy", "Pendulum-v1", component_kwargs=kwargs, **SMALL).learn(60)
    assert model.thermostat.value.item() == pytest.approx(5 * model.thermostat.q_spread.item(), rel=1e-3)


def test_fixed_temperature_is_absolute_and_stays(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", temperature=0.3).learn(60)
    assert model.thermostat.value.item() == pytest.approx(0.3)
    assert model.logger.name_to_value["train/temperature"] == pytest.approx(0.3)


def test_a_cooling_that_is_changed_at_load_acts_as_on_a_live_model(tmp_path):
    DQS("MlpPolicy", "Pendulum-v1", cooling_updates=10, **SMALL).learn(70).save(tmp_path / "model")
    # after 50 updates
    assert DQS.load(tmp_path / "model", cooling_updates=10).cooled_share == 1.0
    assert DQS.load(tmp_path / "model", cooling_updates=1_000).cooled_share == pytest.approx(0.05)
    assert DQS.load(tmp_path / "model", custom_objects={"cooling_updates": 1_000}).cooled_share == pytest.approx(0.05)
    with pytest.raises(ValueError, match="cooling_updates must be an integer >= 0, got -1"):
        DQS.load(tmp_path / "model", cooling_updates=-1)


def test_published_algorithm_has_the_published_constant_temperature():
    model = PaperDQS("MlpPolicy", "Pendulum-v1", **SMALL_PAPER).learn(40)
    assert model.thermostat.value.item() == pytest.approx(0.05)


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


# What is set is what is used


def test_temperature_set_on_a_live_model_is_used_at_once(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1").learn(30)
    model.temperature = 0.5
    assert model.thermostat.value.item() == 0.5
    assert model.policy.temperature.item() == 0.5
    assert getattr(model.actor.diffusion, "temperature", th.tensor(0.5)).item() == 0.5, "the published network is fed it"
    model.temperature = LogLinearSchedule(4.0, 0.25)
    assert model.thermostat.value.item() == pytest.approx(0.25), "training is over: the end of the schedule"
    with pytest.raises(ValueError, match=r"temperature must be .*got -1\.0"):
        model.temperature = -1.0
    assert model.thermostat.value.item() == pytest.approx(0.25)
    model.learn(30)
    assert model.thermostat.value.item() == pytest.approx(0.25, rel=0.2)


def test_target_entropy_set_on_a_live_model_is_used_at_once_and_saved(tmp_path):
    model = DQS("MlpPolicy", "Pendulum-v1", **SMALL).learn(40)
    before = {name: value.clone() for name, value in model.thermostat.state_dict().items()}
    model.target_entropy = -2.5
    assert model.thermostat.target.item() == -2.5, "cooled to the end"
    assert all(th.equal(before[name], value) for name, value in model.thermostat.state_dict().items())
    model.save(tmp_path / "model")
    loaded = DQS.load(tmp_path / "model")
    assert loaded.target_entropy == -2.5
    assert loaded.thermostat.target.item() == -2.5


def test_a_callback_may_set_the_temperature_in_the_middle_of_a_run(algorithm):
    class Halve(BaseCallback):
        def _on_step(self):
            self.model.temperature = 0.5 if self.num_timesteps < 25 else 0.125
            return True

    model = algorithm("MlpPolicy", "Pendulum-v1").learn(30, callback=Halve())
    assert model.logger.name_to_value["train/temperature"] == 0.125


def test_schedule_is_restored_at_its_place_when_a_model_is_loaded(tmp_path, algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", temperature=LogLinearSchedule(10.0, 0.5)).learn(40)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    assert loaded.thermostat.value.item() == pytest.approx(0.5)
    assert loaded.temperature(0.5) == pytest.approx(5**0.5)


def test_temperature_given_to_load_is_used_at_once(tmp_path, algorithm):
    algorithm("MlpPolicy", "Pendulum-v1").learn(30).save(tmp_path / "model")
    for given in ({"temperature": 0.5}, {"custom_objects": {"temperature": 0.5}}):
        loaded = algorithm.load(tmp_path / "model", **given)
        assert loaded.thermostat.value.item() == loaded.policy.temperature.item() == 0.5


def test_another_start_of_the_automatic_temperature_at_load_starts_it_anew(tmp_path):
    def relative(model):
        return (model.thermostat.value / model.thermostat.q_spread).item()

    model = DQS("MlpPolicy", "Pendulum-v1", component_kwargs={"temperature": {"max_step": 0.05}}, **SMALL).learn(60)
    assert abs(math.log(relative(model) / 3.0)) > 0.1
    model.save(tmp_path / "model")
    assert relative(DQS.load(tmp_path / "model")) == pytest.approx(relative(model))
    same_start = {"temperature": {"gain": 0.1, "initial": 3.0}}
    assert relative(DQS.load(tmp_path / "model", component_kwargs=same_start)) == pytest.approx(relative(model))
    loaded = DQS.load(tmp_path / "model", component_kwargs={"temperature": {"initial": 7.0}})
    assert relative(loaded) == pytest.approx(7.0)
    assert th.equal(loaded.thermostat.q_spread, model.thermostat.q_spread), "what was measured is kept"


def test_another_kind_of_temperature_keeps_what_was_measured(tmp_path):
    measured = ("q_spread", "entropy", "policy_entropy", "n_measurements")
    automatic = DQS("MlpPolicy", "Pendulum-v1", **SMALL).learn(60)
    assert automatic.thermostat.q_spread != 1.0
    expected = [getattr(automatic.thermostat, name).item() for name in measured]
    automatic.save(tmp_path / "automatic")

    fixed = DQS.load(tmp_path / "automatic", env=gym.make("Pendulum-v1"), temperature=0.1)
    assert [getattr(fixed.thermostat, name).item() for name in measured] == expected
    assert fixed.learn(30).thermostat.value.item() == pytest.approx(0.1), "absolute, whatever spread of Q was measured before"
    assert fixed.thermostat.n_measurements > expected[-1]
    fixed.save(tmp_path / "fixed")

    again = DQS.load(tmp_path / "fixed", temperature="auto", component_kwargs={"temperature": {"initial": 2.0}})
    assert again.thermostat.n_measurements == fixed.thermostat.n_measurements
    # another start than the default one, relative to the spread of Q
    assert again.thermostat.value.item() == pytest.approx(2 * fixed.thermostat.q_spread.item())


def test_a_learned_temperature_goes_on_from_one_that_was_set(tmp_path):
    fixed = DQS("MlpPolicy", "Pendulum-v1", temperature=0.01, seed=0, **SMALL)
    fixed.save(tmp_path / "untrained")
    untrained = DQS.load(tmp_path / "untrained", temperature="auto").thermostat
    assert untrained.value.item() == pytest.approx(3 * untrained.q_spread.item()), "nothing was learned that could be kept"
    fixed.learn(60).save(tmp_path / "fixed")
    loaded = DQS.load(tmp_path / "fixed", temperature="auto")
    # within the learned temperature's range, which is relative to the spread of Q
    fixed.temperature = hotter = fixed.thermostat.q_spread.item()
    fixed.temperature = "auto"
    for model, expected in ((loaded, 0.01), (fixed, hotter)):
        assert model.thermostat.value.item() == pytest.approx(expected)
        assert model.policy.temperature.item() == pytest.approx(expected)
    loaded.temperature = 1e6
    loaded.temperature = "auto"
    assert loaded.thermostat.value.item() == pytest.approx(10 * loaded.thermostat.q_spread.item()), "as hot as it gets"


def test_an_automatic_temperature_that_comes_after_the_cooling_makes_small_steps(tmp_path):
    fixed = DQS("MlpPolicy", "Pendulum-v1", temperature=0.1, cooling_updates=10, **SMALL).learn(60)
    assert fixed.cooled_share == 1.0
    fixed.save(tmp_path / "fixed")
    loaded = DQS.load(tmp_path / "fixed", temperature="auto")
    fixed.temperature = "auto"
    for model in (fixed, loaded):
        thermostat = model.thermostat
        for _ in range(3):
            before = thermostat.log_temperature.item()
            thermostat.start_update(model.cooled_share)
            thermostat.observe(measures(1.0, 0.3))
            # nothing is left to cool, so that a step is at most ``max_step``
            assert before - 0.002 * (1 + 1e-3) <= thermostat.log_temperature.item() < before


def test_target_entropy_of_a_file_is_not_ignored_without_a_word(tmp_path):
    DQS("MlpPolicy", "Pendulum-v1", target_entropy=-2.0, **SMALL).save(tmp_path / "with_target")
    with pytest.raises(ValueError, match=r"load\(\.\.\., target_entropy='auto'\)"):
        DQS.load(tmp_path / "with_target", temperature=0.1)
    DQS.load(tmp_path / "with_target", temperature=0.1, target_entropy="auto")
