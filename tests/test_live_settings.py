"""Does every setting act on a live model and at load, or raise an error that says when it is built in?"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import HumanOutputFormat
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.checks import InputError
from tests.conftest import ALGORITHMS, SMALL, SMALL_PAPER, make_env

# Every setting of the signature: how one sees that it acts


def trained(model, n_updates):
    """After warm-up alone, and so many updates."""
    model.learn(20)
    model.train(n_updates, 8)
    return model


def rates(model):
    trained(model, 1)
    return [optimizer.param_groups[0]["lr"] for optimizer in (model.critic.optimizer, model.actor.optimizer)]


def n_updates_in(model, n_steps):
    before = model._n_updates
    return model.learn(n_steps)._n_updates - before


def calls_of(owner, name, act):
    """Arguments of the calls of a method while something is done."""
    calls, original = [], getattr(owner, name)
    setattr(owner, name, lambda *args, **kwargs: calls.append(args) or original(*args, **kwargs))
    try:
        act()
    finally:
        delattr(owner, name)
    return calls


def average_share(model):
    """Share of the critic in an averaged critic that was zero before one update."""
    model.learn(20)
    for parameter in model.policy.critic_average.parameters():
        parameter.data.zero_()
    model.train(1, 8)
    return (model.policy.critic_average.qf0[-1].weight / model.critic.qf0[-1].weight).mean().item()


def actor_average_share(model):
    """Share of the actor in an averaged actor that was zero before one late update."""
    model.learn(20)
    model.policy.n_averaged_actors.fill_(1_000)
    for parameter in model.policy.actor_average.parameters():
        parameter.data.zero_()
    model.train(2, 8)
    ours, theirs = (actor.diffusion.denoiser.network[0].weight for actor in (model.policy.actor_average, model.actor))
    return (ours / theirs).mean().item()


def target_share(model):
    """Share of the critic in a target network that was zero before one update."""
    model.learn(20)
    for parameter in model.critic_target.parameters():
        parameter.data.zero_()
    model.train(1, 8)
    return (model.critic_target.qf0[-1].weight / model.critic.qf0[-1].weight).mean().item()


def discount(model):
    """Of a next Q of 10, while Q is 10 too and the reward is 0: the loss is (10 - discount * 10)^2, of two critics."""
    for critic in filter(None, (model.critic, model.critic_target)):
        for q_network in critic.q_networks:
            for parameter in q_network.parameters():
                parameter.data.zero_()
            q_network[-1].bias.data.fill_(10.0)
    rows = th.zeros(3, 2)
    batch = ReplayBufferSamples(rows, rows, rows, dones=th.zeros(3, 1), rewards=th.zeros(3, 1))
    return 1 - model._update_critic(batch, rows, rows)["critic_loss"].item() ** 0.5 / 10


def n_passes(model):
    passes = []
    model.actor.sample_actions(th.zeros(1, 2), th.zeros(1, 2), lambda *args: passes.append(args))
    return len(passes)


def n_tensorboard_files(model):
    model.learn(20)
    return 0 if model.tensorboard_log is None else len(list(Path(model.tensorboard_log).rglob("events*")))


class OwnBuffer(ReplayBuffer):
    pass


@dataclass
class Setting:
    """
    :param value: another one than that of the small models, which must be seen to act
    :param seen: maps a model to what shows the setting
    :param expected: what is then seen
    :param is_fixed: whether it cannot change on a live model
    :param others: settings that it needs
    """

    value: Any
    seen: Callable[[Any], Any]
    expected: Any
    is_fixed: bool = False
    others: dict[str, Any] = field(default_factory=dict)


NO_TIMEOUTS = {"handle_timeout_termination": False}

SETTINGS = {
    "learning_rate": Setting(0.25, lambda m: rates(m)[0], 0.25),
    "buffer_size": Setting(123, lambda m: m.replay_buffer.buffer_size, 123, is_fixed=True),
    "learning_starts": Setting(24, lambda m: n_updates_in(m, 26), 2),
    "batch_size": Setting(5, lambda m: calls_of(m, "train", lambda: m.learn(21)) and len(m.last_batch.rewards), 5),
    "tau": Setting(0.5, lambda m: m.critic_target is not None, True, is_fixed=True),
    "actor_tau": Setting(0.5, actor_average_share, pytest.approx(0.5, abs=1e-3)),
    "policy_tau": Setting(0.5, average_share, pytest.approx(0.5, abs=1e-3)),
    "gamma": Setting(0.5, discount, pytest.approx(0.5)),
    "train_freq": Setting((7, "step"), lambda m: n_updates_in(m, 28), 2),
    "gradient_steps": Setting(3, lambda m: n_updates_in(m, 22), 6),
    "action_noise": Setting(
        NormalActionNoise(np.full(2, 100.0), np.zeros(2)),
        lambda m: m.learn(22).replay_buffer.actions[21].flatten().tolist(),
        [1, 1],
    ),
    "replay_buffer_class": Setting(OwnBuffer, lambda m: type(m.replay_buffer), OwnBuffer, is_fixed=True),
    "replay_buffer_kwargs": Setting(NO_TIMEOUTS, lambda m: m.replay_buffer.handle_timeout_termination, False, is_fixed=True),
    "optimize_memory_usage": Setting(
        True,
        lambda m: m.replay_buffer.optimize_memory_usage,
        True,
        is_fixed=True,
        others={"replay_buffer_kwargs": NO_TIMEOUTS},
    ),
    "n_steps": Setting(2, lambda m: getattr(m.replay_buffer, "n_steps", 1), 2, is_fixed=True),
    "temperature": Setting(0.5, lambda m: m.thermostat.value.item(), 0.5),
    "target_entropy": Setting(-2.5, lambda m: m.thermostat.final_target, -1.25),
    "cooling_updates": Setting(0, lambda m: trained(m, 1).cooled_share, 1.0),
    "n_score_samples": Setting(4, lambda m: m.actor.diffusion.n_score_samples, 4, is_fixed=True),
    "n_diffusion_steps": Setting(3, n_passes, 3, is_fixed=True),
    "actor_batch_size": Setting(3, lambda m: len(calls_of(m.actor.diffusion, "regress", lambda: trained(m, 2))[0][1]), 3),
    "policy_delay": Setting(1, lambda m: len(calls_of(m, "_update_actor", lambda: trained(m, 4))), 4),
    "actor_learning_rate_factor": Setting(7.0, lambda m: rates(m)[1] / rates(m)[0], pytest.approx(7.0)),
    "n_action_candidates": Setting(3, lambda m: len(m.actor.fixed_candidates(th.zeros(1, 2))), 3, is_fixed=True),
    "n_corrector_proposals": Setting(3, lambda m: m.policy.corrector.n_proposals, 3, is_fixed=True),
    "exploration_correlation_time": Setting(
        5.0, lambda m: m.learn(22).exploration_noise.decay, pytest.approx(math.exp(-1 / 5))
    ),
    "component_kwargs": Setting(
        {"diffusion": {"sigma_max": 2.5}},
        lambda m: getattr(m.actor.diffusion, "process", m.actor.diffusion).sigma_max,
        2.5,
        is_fixed=True,
    ),
    "stats_window_size": Setting(3, lambda m: m.learn(20, reset_num_timesteps=False).ep_info_buffer.maxlen, 3),
    "tensorboard_log": Setting("set by the test", n_tensorboard_files, 1),
    "policy_kwargs": Setting({"net_arch": [8]}, lambda m: m.critic.qf0[-1].in_features, 8, is_fixed=True),
    "verbose": Setting(1, lambda m: [type(f) for f in m.learn(20).logger.output_formats], [HumanOutputFormat]),
    "seed": Setting(5, lambda m: th.initial_seed(), 5, is_fixed=True),
    "device": Setting("cpu", lambda m: next(m.policy.parameters()).device.type, "cpu", is_fixed=True),
}

# The published algorithm has a target network, whose share may change
PAPER = {"tau": Setting(0.5, target_share, pytest.approx(0.5, abs=1e-3))}


def signature(algorithm):
    return set(inspect.signature(algorithm.__init__).parameters) - {"self", "policy", "env", "_init_setup_model"}


EACH_SETTING = [(key, name) for key in ALGORITHMS for name in sorted(signature(ALGORITHMS[key][0]))]


@pytest.fixture
def setting(request, files, tmp_path):
    """A setting, and a function that loads a model, with it or without."""
    key, name = request.param
    chosen = (PAPER if key == "paper" else {}).get(name, None) or SETTINGS[name]
    if name == "tensorboard_log":
        chosen = Setting(str(tmp_path / "log"), chosen.seen, chosen.expected)

    def load(**settings):
        model = ALGORITHMS[key][0].load(files / key, env=make_env(), **settings)
        sample = model.replay_buffer.sample

        def recorded(*args, **kwargs):
            model.last_batch = sample(*args, **kwargs)
            return model.last_batch

        model.replay_buffer.sample = recorded
        return model

    return name, chosen, load


def is_as_before(model, before):
    return model.__dict__.keys() == before.keys() and all(model.__dict__[name] is before[name] for name in before)


@pytest.mark.parametrize("setting", EACH_SETTING, indirect=True, ids=lambda pair: "-".join(pair))
def test_each_setting_changed_on_a_live_model_acts_or_raises_and_leaves_the_model_as_it_was(setting):
    name, chosen, load = setting
    model = load()
    before = dict(model.__dict__)
    if chosen.is_fixed:
        with pytest.raises(InputError, match=rf"^{name}\b.*when the model is made") as caught:
            setattr(model, name, chosen.value)
        # SB3 refuses other policy_kwargs than those of the file
        assert (f"load(path, {name}=" in str(caught.value)) == (name != "policy_kwargs")
        assert is_as_before(model, before)
    else:
        setattr(model, name, chosen.value)
        assert chosen.seen(model) == chosen.expected


@pytest.mark.parametrize("setting", EACH_SETTING, indirect=True, ids=lambda pair: "-".join(pair))
def test_each_setting_given_to_load_acts(setting):
    name, chosen, load = setting
    if name == "policy_kwargs":
        # the parameters of the file would not fit: SB3 says so
        with pytest.raises(ValueError, match="policy kwargs"):
            load(policy_kwargs=chosen.value)
        return
    assert chosen.seen(load(**{name: chosen.value}, **chosen.others)) == chosen.expected


@pytest.mark.parametrize("setting", EACH_SETTING, indirect=True, ids=lambda pair: "-".join(pair))
def test_what_is_seen_of_each_setting_depends_on_it(setting):
    name, chosen, load = setting
    if name != "device":  # there is one device
        assert chosen.seen(load()) != chosen.expected


@pytest.mark.parametrize("setting", EACH_SETTING, indirect=True, ids=lambda pair: "-".join(pair))
def test_a_value_of_no_use_raises_and_leaves_the_live_model_as_it_was(setting):
    name, _, load = setting
    if name in ("verbose", "tensorboard_log"):  # SB3's own, which it does not check
        return
    model = load()
    before = dict(model.__dict__)
    for bad in (object(), "nonsense", math.nan):
        with pytest.raises(InputError, match=name):
            setattr(model, name, bad)
        assert is_as_before(model, before)


@pytest.mark.parametrize("name", ["temperature", "learning_rate"])
def test_a_schedule_that_fails_leaves_the_live_model_as_it_was(name, algorithm):
    model = algorithm("MlpPolicy", make_env(), temperature=0.5)
    before = dict(model.__dict__)
    for bad in (lambda: 1.0, lambda progress: 1 / 0):
        with pytest.raises((TypeError, ZeroDivisionError)):
            setattr(model, name, bad)
        assert is_as_before(model, before)


def test_action_noise_of_a_live_model_is_each_environments_own():
    model = DQS("MlpPolicy", DummyVecEnv([make_env] * 2), **SMALL)
    model.action_noise = NormalActionNoise(np.zeros(2), np.ones(2))
    first, second = model.action_noise()
    assert not np.array_equal(first, second)
    assert model.learn(26).num_timesteps == 26


def test_a_temperature_may_be_chosen_after_training_with_arguments_of_the_automatic_one(tmp_path):
    components = {"temperature": {"gain": 0.01, "measurement_rate": 0.1}, "refiner": {"relative_sigma": 0.5}}
    model = DQS("MlpPolicy", "Pendulum-v1", component_kwargs=components, **SMALL)
    model.save(tmp_path / "automatic")
    model.temperature = 0.1
    assert model.thermostat.measurement_rate == 0.1
    model.save(tmp_path / "number")
    assert DQS.load(tmp_path / "number").component_kwargs == {**components, "temperature": {"measurement_rate": 0.1}}
    with pytest.raises(InputError, match=r"\['gain'\] .* no effect .* load\(..., component_kwargs=None\)"):
        DQS.load(tmp_path / "automatic", temperature=0.1)
    assert DQS.load(tmp_path / "automatic", temperature=0.1, component_kwargs=None).thermostat.value == pytest.approx(0.1)


def test_sizes_of_layers_may_be_given_again_to_load_as_they_were_to_the_constructor(tmp_path):
    policy_kwargs = {"net_arch": {"pi": (16,), "qf": (8, 8)}, "use_sde": False}
    DQS("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs).save(tmp_path / "model")
    assert DQS.load(tmp_path / "model", policy_kwargs=policy_kwargs).policy.net_arch == {"pi": [16], "qf": [8, 8]}


@pytest.mark.parametrize("name", sorted(signature(DQS) - signature(PaperDQS)))
def test_what_the_published_algorithm_has_not_cannot_be_set_on_it(name):
    model = PaperDQS("MlpPolicy", make_env(), **SMALL_PAPER)
    with pytest.raises(InputError, match=f"{name} is no setting of PaperDQS"):
        setattr(model, name, 1)


def test_target_network_cannot_be_added_or_removed_on_a_live_model(algorithm):
    model = algorithm("MlpPolicy", make_env())
    other = 0.5 if model.critic_target is None else 1.0
    before = dict(model.__dict__)
    with pytest.raises(InputError, match=rf"tau={other} needs .*load\(path, tau="):
        model.tau = other
    assert is_as_before(model, before)


@pytest.mark.parametrize(("name", "copied"), [("policy_tau", "averaged critic"), ("actor_tau", "averaged actor")])
def test_an_average_cannot_be_added_or_removed_on_a_live_model(name, copied):
    for given, other, needed in ((0.5, 1.0, "without"), (1.0, 0.5, "with")):
        model = DQS("MlpPolicy", make_env(), **{name: given}, **SMALL)
        before = dict(model.__dict__)
        with pytest.raises(InputError, match=rf"{name}={other} needs a model {needed} {copied};.*load\(path, {name}="):
            setattr(model, name, other)
        assert is_as_before(model, before)


def test_discount_set_on_a_live_model_or_at_load_is_that_of_n_step_returns_too(tmp_path):
    model = DQS("MlpPolicy", make_env(), n_steps=3, gamma=0.9, **SMALL)
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (3, 0.9)
    model.gamma = 0.5
    assert model.replay_buffer.gamma == 0.5
    model.save(tmp_path / "model")
    loaded = DQS.load(tmp_path / "model", gamma=0.25)
    assert (loaded.replay_buffer.n_steps, loaded.replay_buffer.gamma) == (3, 0.25)
    assert type(DQS.load(tmp_path / "model", n_steps=1).replay_buffer) is ReplayBuffer


class WithBonus(DQS):
    """A user's algorithm, which passes on what it does not know."""

    def __init__(self, *args, bonus=1.0, **kwargs):
        self.bonus = bonus
        super().__init__(*args, **kwargs)


def test_settings_of_a_derived_algorithm_can_change_too():
    model = WithBonus("MlpPolicy", make_env(), bonus=3.0, **SMALL)
    model.bonus = 2.0
    model.policy_delay = 1
    assert (model.bonus, model.policy_delay) == (2.0, 1)
    with pytest.raises(InputError, match="policy_delay must be an integer >= 1, got 0"):
        model.policy_delay = 0


class WithCheckedBonus(WithBonus):
    """A setting that is a property."""

    @property
    def bonus(self):
        return self._bonus

    @bonus.setter
    def bonus(self, value):
        self._bonus = min(value, 5.0)


def test_a_setting_of_a_derived_algorithm_may_be_a_property():
    model = WithCheckedBonus("MlpPolicy", make_env(), bonus=3.0, **SMALL)
    assert model.bonus == 3.0
    model.bonus = 9.0
    assert model.bonus == 5.0


def test_names_given_to_load_of_a_derived_algorithm_are_known_to_it_or_refused(tmp_path):
    WithBonus("MlpPolicy", make_env(), **SMALL).save(tmp_path / "model")
    model = WithBonus.load(tmp_path / "model", batch_size=3, bonus=2.0)
    assert (model.batch_size, model.bonus) == (3, 2.0)
    with pytest.raises(ValueError, match=r"WithBonus has no argument 'batch_sise'; did you mean 'batch_size'\?"):
        WithBonus.load(tmp_path / "model", batch_sise=3)
    with pytest.raises(ValueError, match="WithBonus has no argument 'ent_coef'; its counterpart: temperature"):
        WithBonus.load(tmp_path / "model", ent_coef=0.1)


class TakesMore(DQS):
    """A user's algorithm whose signature does not tell what it takes."""

    def __init__(self, *args, **kwargs):
        self.bonus = kwargs.pop("bonus", 1.0)
        super().__init__(*args, **kwargs)


def test_a_derived_algorithm_may_take_what_its_signature_does_not_tell(tmp_path):
    TakesMore("MlpPolicy", make_env(), bonus=3.0, **SMALL).save(tmp_path / "model")
    assert TakesMore.load(tmp_path / "model", bonus=2.0).bonus == 2.0
