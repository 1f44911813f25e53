"""Does every setting act, at construction, on a live model and at load, or raise an error that names it and the remedy?"""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.buffers import DictReplayBuffer, NStepReplayBuffer, ReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv, IdentityEnv, IdentityEnvBox
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import HumanOutputFormat
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples, TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.checks import InputError, SpaceError
from sb3_dqs.gpu.buffers import DeviceReplayBuffer
from sb3_dqs.policies import DiffusionPolicy
from tests.conftest import SMALL, SMALL_PAPER, RandomEnv

OBSERVATIONS = spaces.Box(-1.0, 1.0, (2,))
SMALL_NET = {"net_arch": [8]}
ALGORITHMS = {"ours": (DQS, SMALL), "paper": (PaperDQS, SMALL_PAPER)}


def make_env():
    return RandomEnv(OBSERVATIONS)


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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A trained model of each algorithm."""
    folder = tmp_path_factory.mktemp("models")
    for key, (algorithm, small) in ALGORITHMS.items():
        trained(algorithm("MlpPolicy", make_env(), seed=0, **small), 2).save(folder / key)
    return folder


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


# Bad values


NO_EFFECT = {"temperature": 0.1, "target_entropy": -1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": 0.0}, "temperature must be a finite number > 0, got 0.0; .*0.01"),
        ({"temperature": -0.1}, "temperature must be a finite number > 0, got -0.1"),
        ({"temperature": math.nan}, "temperature must be a finite number > 0, got nan"),
        ({"temperature": "atuo"}, "temperature must be .* or 'auto', got 'atuo'"),
        ({"temperature": lambda progress: progress}, "temperature must be a finite number > 0, got 0.0"),
        ({"temperature": None}, "temperature must be"),
        # of the uniform law in one dimension, given an action with noise of 0.35 sqrt(2)
        ({"target_entropy": 0.4}, "target_entropy must be .* between -2.58.* and 0.34.* got 0.4"),
        # of a standard deviation of exp(-4): ln(2 pi e) / 2 - 4
        ({"target_entropy": -3.0}, "target_entropy must be .* between -2.58.* got -3.0"),
        ({"component_kwargs": {"refiner": {"relative_sigma": 0.05}}}, "between -2.58.* and -1.28.* got 'auto'; .*sigma"),
        ({"target_entropy": "low"}, "target_entropy must be"),
        (NO_EFFECT, "target_entropy=-1.0 has no effect"),
        ({"actor_learning_rate_factor": 0}, "actor_learning_rate_factor must be a finite number > 0, got 0"),
        ({"learning_rate": -1e-3}, "learning_rate must be a finite number >= 0 or a schedule of such, got -0.001"),
        ({"learning_rate": math.inf}, "learning_rate must be a finite number"),
        ({"gamma": 1.5}, r"gamma must be a number in \[0, 1\], got 1.5"),
        ({"actor_tau": 0.0}, r"actor_tau must be a number in \(0, 1\], got 0.0; 1 lets predict\(\) ask the actor itself"),
        ({"policy_tau": 0.0}, r"policy_tau must be a number in \(0, 1\], got 0.0; 1 lets the policy follow the critic itself"),
        ({"tau": -0.1}, r"tau must be a number in \[0, 1\], got -0.1"),
        ({"cooling_updates": -1}, "cooling_updates must be an integer >= 0, got -1"),
        ({"exploration_correlation_time": -1.0}, "exploration_correlation_time must be a finite number of steps >= 0"),
        ({"exploration_correlation_time": "white"}, "exploration_correlation_time must be .*got 'white'"),
        ({"n_score_samples": 15}, "n_score_samples must be even, got 15.* use 16"),
        ({"n_score_samples": 0}, "n_score_samples must be an integer >= 2, got 0"),
        ({"n_score_samples": 16.5}, "n_score_samples must be an integer >= 2, got 16.5"),
        ({"n_diffusion_steps": 1}, "n_diffusion_steps must be an integer >= 2, got 1; one step gives the mean"),
        ({"actor_batch_size": 0}, "actor_batch_size must be an integer >= 1.*128 is the default"),
        ({"policy_delay": 0}, "policy_delay must be an integer >= 1, got 0"),
        ({"n_action_candidates": True}, "n_action_candidates must be an integer >= 1, got True"),
        ({"n_corrector_proposals": -1}, "n_corrector_proposals must be an integer >= 0, got -1; 0 leaves actions as they are"),
        ({"gradient_steps": -2}, "gradient_steps must be an integer >= -1, got -2"),
        ({"stats_window_size": 0}, "stats_window_size must be an integer >= 1, got 0"),
        ({"buffer_size": math.inf}, "buffer_size must be an integer >= 1, got inf"),
        ({"optimize_memory_usage": True}, r"replay_buffer_kwargs=dict\(handle_timeout_termination=False\)"),
        ({"action_noise": 0.1}, "action_noise must be an ActionNoise"),
        ({"replay_buffer_kwargs": "goals"}, "replay_buffer_kwargs must be a dictionary.*got 'goals'"),
        ({"replay_buffer_class": "HerReplayBuffer"}, "replay_buffer_class must be .*got 'HerReplayBuffer'"),
        ({"component_kwargs": "diffusion"}, "component_kwargs must be a dictionary"),
        ({"component_kwargs": {"difusion": {}}}, r"component_kwargs.*did you mean 'diffusion'\?"),
        ({"component_kwargs": {"diffusion": 3}}, r"component_kwargs\['diffusion'\] must be a dictionary"),
        ({"component_kwargs": {"diffusion": {"sigma_min": 5.0}}}, "sigma_min must be < sigma_max, got 5.0"),
        ({"component_kwargs": {"diffusion": {"sigma_max": -1.0}}}, "sigma_max must be a finite number > 0"),
        ({"component_kwargs": {"diffusion": {"sigma_dat": 1.0}}}, r"sigma_dat.*did you mean 'sigma_data'\?"),
        ({"component_kwargs": {"diffusion": {"score_estimator": "steen"}}}, r"did you mean 'stein'\?"),
        ({"component_kwargs": {"diffusion": {"on_policy_share": 0}}}, r"on_policy_share must be a number in \(0, 1\], got 0"),
        ({"component_kwargs": {"diffusion": {"n_score_samples": 8}}}, "'n_score_samples', a setting of DQS"),
        ({"component_kwargs": {"diffusion": {"squash": "tanh"}}}, "BoxDiffusion has no argument 'squash'"),
        ({"component_kwargs": {"corrector": {"sigmas": [0.3, 0]}}}, "corrector's sigmas must be a finite number > 0, got 0"),
        ({"component_kwargs": {"corrector": {"guided_share": 1.5}}}, "guided_share must be in .0, 1., got 1.5"),
        (
            {"component_kwargs": {"corrector": {"guided_share": 0.06}}},
            "guided_share=0.06 of 8 proposals is none.* least 0.125",
        ),
        ({"device": "mps"}, "device must be 'cpu' or 'cuda', got 'mps'.*use device='cpu'"),
        (
            {"component_kwargs": {"corrector": {"sigmas": [1.5, 0.3], "guided_share": 0.5}}},
            r"sigmas of the corrector must be <= 1 with guided proposals, got \[1.5, 0.3\]",
        ),
        ({"component_kwargs": {"corrector": {"sigmas": 0.3}}}, "sigmas of the corrector must be a list.* got 0.3"),
        (
            {"component_kwargs": {"corrector": {"sigmas": []}}},
            r"got \[\]; for none, use n_corrector_proposals=0",
        ),
        ({"component_kwargs": {"corrector": {"n_corrector_proposals": 4}}}, "'n_corrector_proposals', a setting of DQS"),
        ({"component_kwargs": {"temperature": {"initial": 0}}}, "initial must be a finite number > 0, got 0"),
        ({"component_kwargs": {"temperature": {"target_entropy": -1.0}}}, "'target_entropy', a setting of DQS"),
        (
            {"temperature": 0.1, "component_kwargs": {"temperature": {"initial": 1.0}}},
            "ScheduledTemperature has no .*'initial'",
        ),
    ],
)
def test_bad_setting_raises_value_error_with_name_value_and_remedy(arguments, message):
    with pytest.raises(ValueError, match=message):
        DQS("MlpPolicy", "Pendulum-v1", **{**SMALL, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": "auto"}, "temperature must be a number > 0 or a schedule, got 'auto'; .*DQS does"),
        ({"n_score_samples": 1}, "n_score_samples must be an integer >= 2"),
        ({"n_diffusion_steps": 0}, "n_diffusion_steps must be an integer >= 1, got 0"),
        ({"component_kwargs": {"diffusion": {"squash": "relu"}}}, "squash must be one of"),
        ({"component_kwargs": {"diffusion": {"loss_weight_offset": -1.0}}}, "loss_weight_offset must be"),
        ({"component_kwargs": {"diffusion": {"on_policy_share": 0.5}}}, "PaperDiffusion has no argument 'on_policy_share'"),
        ({"component_kwargs": {"temperature": {"initial": 1.0}}}, "ScheduledTemperature has no argument 'initial'"),
    ],
)
def test_bad_setting_of_the_published_algorithm_raises_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        PaperDQS("MlpPolicy", "Pendulum-v1", **{**SMALL_PAPER, **arguments})


# Names of other algorithms


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ent_coef", "no argument 'ent_coef'; its counterpart: temperature"),
        ("target_update_interval", "no argument 'target_update_interval'; its counterpart: tau"),
        ("use_sde", "no argument 'use_sde'; its counterpart: exploration_correlation_time"),
        ("sde_sample_freq", "counterpart: exploration_correlation_time"),
        ("use_sde_at_warmup", "counterpart: exploration_correlation_time"),
        ("target_policy_noise", "counterpart: temperature"),
        ("target_noise_clip", "counterpart: temperature"),
        ("top_quantiles_to_drop_per_net", "counterpart: .*n_critics"),
        ("learnin_rate", r"did you mean 'learning_rate'\?"),
        ("xyz", "it has .*'actor_batch_size'"),
    ],
)
@pytest.mark.parametrize("error", [TypeError, ValueError])
def test_unknown_argument_names_its_counterpart_at_construction_and_at_load(name, message, error, files):
    for key, (algorithm, small) in ALGORITHMS.items():
        with pytest.raises(error, match=f"{algorithm.__name__} has {message}" if message.startswith("no") else message):
            algorithm("MlpPolicy", "Pendulum-v1", **small, **{name: 1})
        with pytest.raises(error, match=message):
            algorithm.load(files / key, **{name: 1})


@pytest.mark.parametrize("name", sorted(signature(DQS) - signature(PaperDQS)))
def test_what_the_published_algorithm_has_not_is_refused_by_name(name, files):
    with pytest.raises(ValueError, match=f"PaperDQS has no argument '{name}'"):
        PaperDQS("MlpPolicy", "Pendulum-v1", **{name: 1})
    with pytest.raises(ValueError, match=f"PaperDQS has no argument '{name}'"):
        PaperDQS.load(files / "paper", **{name: 1})


def test_a_custom_object_that_is_nearly_a_setting_is_refused(files):
    with pytest.raises(ValueError, match=r"custom_objects holds 'temprature'.*did you mean 'temperature'"):
        DQS.load(files / "ours", custom_objects={"temprature": 1.0})
    # what is no setting at all may be any attribute of a model
    assert DQS.load(files / "ours", custom_objects={"temperature": 0.5, "_stats_window_size": 3}).thermostat.value == 0.5


def test_a_file_of_another_algorithm_says_so(tmp_path, files):
    SAC("MlpPolicy", make_env(), buffer_size=100, policy_kwargs={"net_arch": [8]}).save(tmp_path / "sac")
    message = "policy must be one of .*got SACPolicy, which is not of DQS; load a file with the algorithm that saved it"
    with pytest.raises(ValueError, match=message):
        DQS.load(tmp_path / "sac")
    with pytest.raises(ValueError, match="got PaperPolicy, which is not of DQS"):
        DQS.load(files / "paper")
    with pytest.raises(ValueError, match="got DiffusionPolicy, which is not of PaperDQS"):
        PaperDQS.load(files / "ours")


@pytest.mark.parametrize(
    ("policy_kwargs", "message"),
    [
        ("dict(net_arch=[64])", r"policy_kwargs must be a dictionary, got 'dict\(net_arch=\[64\]\)'"),
        ({"use_sde": True}, "policy_kwargs must not hold 'use_sde'.*leave it out.*exploration_correlation_time"),
        ({"activation_fn": th.nn.ReLU()}, r"activation_fn in policy_kwargs must be a class, got ReLU\(\)"),
        ({"critic_betas": 0.5}, r"critic_betas in policy_kwargs must be two numbers in \[0, 1\), got 0.5"),
        ({"critic_betas": (0.9, 1.0)}, "critic_betas in policy_kwargs must be two numbers"),
        ({"critic_kwargs": {"n_quantile": 25}}, "critic_kwargs in policy_kwargs must not hold 'n_quantile'"),
        ({"critic_kwargs": [1]}, r"critic_kwargs in policy_kwargs must be a dictionary of arguments, got \[1\]"),
        ({"optimizer_kwargs": 3}, "optimizer_kwargs in policy_kwargs must be a dictionary of arguments, got 3"),
        ({"log_std_init": -3}, "policy_kwargs must not hold 'log_std_init'.*temperature"),
        ({"n_diffusion_steps": 3}, "policy_kwargs must not hold 'n_diffusion_steps'; pass it as an argument of DQS"),
        ({"n_action_candidates": 3}, "policy_kwargs must not hold 'n_action_candidates'"),
        ({"diffusion_kwargs": {}}, "policy_kwargs must not hold 'diffusion_kwargs'"),
        ({"corrector_kwargs": {}}, "policy_kwargs must not hold 'corrector_kwargs'"),
        # it follows from tau
        ({"has_target_network": True}, "policy_kwargs must not hold 'has_target_network'"),
        ({"n_critics": 0}, "n_critics must be an integer >= 1, got 0"),
        ({"net_arch": "[64, 64]"}, "net_arch must be a list of layer sizes"),
        ({"net_arch": [64, 0]}, "each size in net_arch must be an integer >= 1, got 0"),
        ({"net_arch": {"pi": [0], "qf": [8]}}, "each size in net_arch must be an integer >= 1, got 0"),
        (
            {"net_archs": [64]},
            "must not hold 'net_archs', which DiffusionPolicy has not; leave it out: did you mean 'net_arch'",
        ),
        ({"batch_norm_momentum": 0.1}, r"'batch_norm_momentum'.*critic_kwargs=dict\(batch_norm_momentum=...\)"),
        ({"n_quantiles": 25}, "'n_quantiles'.*n_critics"),
        ({"activation_fn": "relu"}, "activation_fn in policy_kwargs must be a class, got 'relu'; for example torch.nn.ReLU"),
        ({"critic_class": "ContinuousCritic"}, "critic_class in policy_kwargs must be a class, got 'ContinuousCritic'"),
    ],
)
def test_policy_kwargs_that_cannot_be_used_name_themselves(policy_kwargs, message):
    with pytest.raises(ValueError, match=message):
        DQS("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs)


def test_policy_kwargs_that_sac_was_given_may_be_given_to_us(tmp_path):
    policy_kwargs = {"net_arch": [8]}
    SAC("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs=policy_kwargs)
    assert policy_kwargs == {"net_arch": [8], "use_sde": False}, "SB3 writes into it"
    model = DQS("MlpPolicy", "Pendulum-v1", buffer_size=10, policy_kwargs=policy_kwargs)
    assert model.policy.net_arch == [8]
    model.save(tmp_path / "model")
    assert DQS.load(tmp_path / "model", policy_kwargs=policy_kwargs).policy.net_arch == [8]
    assert policy_kwargs["use_sde"] is False, "left as it was given"


def test_a_policy_whose_constructor_takes_too_little_is_named():
    class Explicit(DiffusionPolicy):
        def __init__(self, observation_space, action_space, lr_schedule, net_arch=None):
            super().__init__(observation_space, action_space, lr_schedule, net_arch)

    with pytest.raises(InputError, match=r"policy Explicit must take 'corrector_kwargs', .*\*\*kwargs, and pass them on"):
        DQS(Explicit, "Pendulum-v1")


def test_a_policy_may_settle_its_critic():
    class Settled(DiffusionPolicy):
        def __init__(
            self,
            observation_space,
            action_space,
            lr_schedule,
            *,
            has_target_network,
            has_average_critic,
            has_average_actor,
            diffusion_kwargs,
            refiner_kwargs,
            n_action_candidates,
            corrector_kwargs,
        ):
            built_in = {name: value for name, value in locals().items() if name.startswith(("has_", "n_")) or "kwargs" in name}
            super().__init__(observation_space, action_space, lr_schedule, critic_class=ContinuousCritic, **built_in)

    model = DQS(Settled, "Pendulum-v1", buffer_size=10)
    assert type(model.critic) is ContinuousCritic
    with pytest.raises(InputError, match="must not hold 'critic_class', which Settled has not"):
        DQS(Settled, "Pendulum-v1", policy_kwargs={"critic_class": ContinuousCritic})


def test_lazy_modules_of_an_extractor_are_named():
    class Lazy(FlattenExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space)
            self.layer = th.nn.LazyLinear(3)

    with pytest.raises(InputError, match="features_extractor_class Lazy has lazy modules"):
        DQS("MlpPolicy", "Pendulum-v1", policy_kwargs={"features_extractor_class": Lazy})


@pytest.mark.parametrize("policy", ["CnnPolicy", "MultiInputPolicy"])
def test_policies_that_pass_arguments_on_know_those_of_their_base(policy, algorithm):
    image = spaces.Box(0, 255, (36, 36, 3), np.uint8)
    env = RandomEnv(image if policy == "CnnPolicy" else spaces.Dict({"vector": OBSERVATIONS}))
    algorithm(policy, env, buffer_size=10, policy_kwargs={"net_arch": [8], "n_critics": 1})
    with pytest.raises(ValueError, match=r"must not hold 'n_critic'.*did you mean 'n_critics'"):
        algorithm(policy, env, buffer_size=10, policy_kwargs={"n_critic": 1})


class PolicyWithOthers(DiffusionPolicy):
    def __init__(self, *args, **others):
        own = others.pop("own")
        super().__init__(*args, **others)
        self.own = own


def test_a_policy_of_ones_own_may_take_what_ours_has_not():
    assert DQS(PolicyWithOthers, make_env(), policy_kwargs={"own": 3, "net_arch": [8]}).policy.own == 3


class PolicyWithQuantiles(DiffusionPolicy):
    def __init__(self, *args, n_quantiles=25, **others):
        super().__init__(*args, **others)
        self.n_quantiles = n_quantiles


def test_an_argument_of_a_policy_of_ones_own_may_have_a_name_of_another_algorithm():
    assert DQS(PolicyWithQuantiles, make_env(), policy_kwargs={"n_quantiles": 3, **SMALL_NET}).policy.n_quantiles == 3
    with pytest.raises(InputError, match=r"must not hold 'n_quantiles', which DiffusionPolicy has not.*n_critics"):
        DQS("MlpPolicy", make_env(), policy_kwargs={"n_quantiles": 3})


class OneTensor(ContinuousCritic):
    def forward(self, obs, actions):
        return super().forward(obs, actions)[0]


class WithoutColumn(ContinuousCritic):
    def forward(self, obs, actions):
        return tuple(values[:, 0] for values in super().forward(obs, actions))


class Quantiles(ContinuousCritic):
    def forward(self, obs, actions):
        return tuple(values.expand(-1, 5) for values in super().forward(obs, actions))


@pytest.mark.parametrize(
    ("critic_class", "shapes"),
    [(OneTensor, r"\(2, 1\)"), (WithoutColumn, r"\[\(2,\), \(2,\)\]"), (Quantiles, r"\[\(2, 5\), \(2, 5\)\]")],
)
def test_a_critic_that_returns_something_else_than_one_value_per_row_is_refused_at_construction(critic_class, shapes):
    message = rf"critic_class must return a tuple of Q values.*\(batch, 1\), got {shapes} from {critic_class.__name__}"
    with pytest.raises(InputError, match=message):
        DQS("MlpPolicy", make_env(), policy_kwargs={"critic_class": critic_class, **SMALL_NET})


class Dictionary(ContinuousCritic):
    def forward(self, obs, actions):
        return {"q": super().forward(obs, actions)}


def test_a_critic_that_returns_no_tensors_is_refused_at_construction():
    with pytest.raises(InputError, match=r"critic_class must return a tuple of Q values.*got dict from Dictionary"):
        DQS("MlpPolicy", make_env(), policy_kwargs={"critic_class": Dictionary, **SMALL_NET})


class Table(BaseFeaturesExtractor):
    """Knows the observations from 1 to 5 alone."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 4)
        self.rows = th.nn.Embedding(5, 4)

    def forward(self, observations):
        return self.rows(observations[:, 0].long() - 1)


def test_the_critic_is_tried_at_observations_of_the_space():
    policy_kwargs = {"features_extractor_class": Table, **SMALL_NET}
    model = DQS("MlpPolicy", RandomEnv(spaces.Box(1.0, 5.9, (1,))), **{**SMALL, "policy_kwargs": policy_kwargs})
    assert model.learn(30)._n_updates == 10


def test_a_batch_of_one_row_is_refused_where_batch_renormalisation_would_fail():
    assert DQS("MlpPolicy", make_env(), **{**SMALL, "batch_size": 1}).learn(30)._n_updates == 10
    message = "batch_size=1 leaves batch renormalisation nothing to average over; use at least 2"
    with pytest.raises(InputError, match=message):
        DQS("MlpPolicy", make_env(), **{**SMALL, "batch_size": 1, "tau": 0.005})
    model = DQS("MlpPolicy", make_env(), **{**SMALL, "tau": 0.005})
    with pytest.raises(InputError, match=message):
        model.batch_size = 1
    assert model.batch_size == SMALL["batch_size"]


# Whole numbers and text


WHOLE = {
    "buffer_size": 500,
    "learning_starts": 20,
    "batch_size": 8,
    "gradient_steps": 2,
    "n_steps": 2,
    "cooling_updates": 100,
    "n_score_samples": 6,
    "n_diffusion_steps": 3,
    "actor_batch_size": 8,
    "policy_delay": 1,
    "n_action_candidates": 3,
    "n_corrector_proposals": 3,
    "stats_window_size": 10,
    "train_freq": 2,
    "seed": 3,
}


@pytest.mark.parametrize("kind", [np.int64, np.uint8, float, np.float32], ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_of_any_type_are_taken(kind, name, files):
    value = kind(WHOLE[name] if kind is not np.uint8 else min(WHOLE[name], 250))
    model = DQS("MlpPolicy", make_env(), **{**SMALL, name: value})
    if name == "train_freq":
        assert model.train_freq == TrainFreq(2, TrainFrequencyUnit.STEP)
    elif name != "stats_window_size":
        assert getattr(model, name) == value
        assert type(getattr(model, name)) is int or name in ("n_score_samples", "n_diffusion_steps")
    assert model.learn(22)._n_updates >= 0
    DQS.load(files / "ours", env=make_env(), **{name: value}).learn(22)


@pytest.mark.parametrize("kind", [np.int64, float], ids=lambda kind: kind.__name__)
def test_whole_numbers_of_any_type_are_taken_in_policy_kwargs_and_on_a_live_model(kind):
    kwargs = {"net_arch": {"pi": [kind(8)], "qf": [kind(6), kind(4)]}, "n_critics": kind(3)}
    model = DQS("MlpPolicy", make_env(), **{**SMALL, "policy_kwargs": kwargs})
    assert len(model.critic.q_networks) == 3
    assert model.critic.qf0[-1].in_features == 4
    model.policy_delay, model.batch_size, model.train_freq = kind(3), kind(4), (kind(2), "step")
    assert (model.policy_delay, model.batch_size, model.train_freq.frequency) == (3, 4, 2)
    model.learn(24)


NUMBERS = ["learning_rate", "gamma", "tau", "policy_tau", "actor_tau", "temperature", "target_entropy"]
NUMBERS += ["actor_learning_rate_factor", "exploration_correlation_time"]


@pytest.mark.parametrize("name", [*WHOLE, *NUMBERS])
def test_a_number_that_is_text_is_taken_or_gets_the_remedy(name):
    # as YAML reads numbers that have an exponent and no point
    with pytest.raises(InputError, match=rf"{name} must be .*got '1e-1'.* without quotes"):
        DQS("MlpPolicy", "Pendulum-v1", **{**SMALL, name: "1e-1"})


@pytest.mark.parametrize(
    ("part", "name"), [("diffusion", "sigma_min"), ("diffusion", "on_policy_share"), ("temperature", "gain")]
)
def test_a_number_of_a_part_that_is_text_gets_the_remedy(part, name):
    with pytest.raises(InputError, match=f"{name} must be .*got '1e-1'; this is text, write 0.1 without quotes"):
        DQS("MlpPolicy", "Pendulum-v1", component_kwargs={part: {name: "1e-1"}}, **SMALL)


# Training frequency


STEP, EPISODE = TrainFrequencyUnit.STEP, TrainFrequencyUnit.EPISODE


@pytest.mark.parametrize(
    ("train_freq", "expected"),
    [
        (3, (3, STEP)),
        (3.0, (3, STEP)),
        ((3, "step"), (3, STEP)),
        ((3.0, "step"), (3, STEP)),
        ([3, "step"], (3, STEP)),
        ((2, "episode"), (2, EPISODE)),
        ([np.int64(2), "episode"], (2, EPISODE)),
        ((2, EPISODE), (2, EPISODE)),
        (TrainFreq(2, EPISODE), (2, EPISODE)),
    ],
    ids=str,
)
def test_forms_of_the_training_frequency(train_freq, expected):
    model = DQS("MlpPolicy", make_env(), **{**SMALL, "train_freq": train_freq})
    assert model.train_freq == TrainFreq(*expected)
    model.train_freq = 5
    assert model.train_freq == TrainFreq(5, STEP)
    model.train_freq = train_freq
    assert model.train_freq == TrainFreq(*expected)


@pytest.mark.parametrize(
    "train_freq", [0, -1, 1.5, None, "step", (), (1, "epoch"), (1, "step", 2), ("step", 1), (0, "episode")], ids=str
)
def test_bad_training_frequency_names_itself(train_freq):
    with pytest.raises(InputError, match="train_freq must be"):
        DQS("MlpPolicy", make_env(), **{**SMALL, "train_freq": train_freq})


# Replay buffers


class OwnNStepBuffer(NStepReplayBuffer):
    pass


@pytest.mark.parametrize("buffer_class", [OwnBuffer, DeviceReplayBuffer])
def test_n_step_returns_are_refused_with_a_buffer_of_one_step_returns(buffer_class):
    message = f"n_steps=3 needs SB3's NStepReplayBuffer, and {buffer_class.__name__} has one-step returns"
    with pytest.raises(InputError, match=message):
        DQS("MlpPolicy", make_env(), n_steps=3, replay_buffer_class=buffer_class, **SMALL)


@pytest.mark.parametrize("buffer_class", [None, DictReplayBuffer, HerReplayBuffer])
def test_n_step_returns_are_refused_with_dict_observations_and_hindsight(buffer_class):
    env = BitFlippingEnv(n_bits=3, continuous=True)
    with pytest.raises(InputError, match="n_steps=3 needs observations that are no Dict"):
        DQS("MultiInputPolicy", env, n_steps=3, replay_buffer_class=buffer_class, **SMALL)


@pytest.mark.parametrize("buffer_class", [None, ReplayBuffer, NStepReplayBuffer, OwnNStepBuffer])
def test_n_step_returns_and_their_discount_reach_every_buffer_that_has_them(buffer_class, recwarn):
    model = DQS("MlpPolicy", make_env(), n_steps=5, gamma=0.9, replay_buffer_class=buffer_class, **SMALL)
    assert isinstance(model.replay_buffer, buffer_class or NStepReplayBuffer)
    assert isinstance(model.replay_buffer, NStepReplayBuffer)
    assert (model.replay_buffer.n_steps, model.replay_buffer.gamma) == (5, 0.9)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize("buffer_class", [NStepReplayBuffer, OwnNStepBuffer])
def test_n_step_returns_asked_of_the_buffer_itself_are_not_lost(buffer_class):
    kwargs = {"replay_buffer_class": buffer_class, "replay_buffer_kwargs": {"n_steps": 5, "gamma": 0.9}}
    try:
        model = DQS("MlpPolicy", make_env(), **kwargs, **SMALL)
    except InputError as error:
        assert "n_steps" in str(error)  # noqa: PT017
    else:
        assert model.replay_buffer.n_steps == 5


def test_another_buffer_at_load_does_not_get_the_arguments_of_the_one_that_sb3_had_chosen(tmp_path):
    DQS("MlpPolicy", make_env(), n_steps=3, replay_buffer_kwargs=NO_TIMEOUTS, **SMALL).save(tmp_path / "model")
    buffer = DQS.load(tmp_path / "model", n_steps=1, replay_buffer_class=OwnBuffer).replay_buffer
    assert type(buffer) is OwnBuffer
    assert not buffer.handle_timeout_termination


def test_dictionaries_of_the_user_stay_as_they_were():
    dictionaries = {
        "replay_buffer_kwargs": {"handle_timeout_termination": False},
        "policy_kwargs": {"net_arch": [8.0], "n_critics": 2.0},
        "component_kwargs": {"diffusion": {"sigma_max": 2}},
    }
    before = copy.deepcopy(dictionaries)
    DQS("MlpPolicy", make_env(), n_steps=3, **{**SMALL, **dictionaries})
    assert dictionaries == before
    assert [type(size) for size in dictionaries["policy_kwargs"]["net_arch"]] == [float]


@pytest.mark.parametrize("n_envs", [1, 2])
def test_a_model_with_action_noise_goes_on_in_another_number_of_environments(tmp_path, n_envs):
    noise = NormalActionNoise(np.zeros(2), np.ones(2))
    DQS("MlpPolicy", DummyVecEnv([make_env] * 3), action_noise=noise, **SMALL).learn(24).save(tmp_path / "model")
    model = DQS.load(tmp_path / "model", env=DummyVecEnv([make_env] * n_envs))
    assert model.learn(30).num_timesteps == 30


def test_replay_buffer_of_another_number_of_environments_is_refused_before_the_first_step(tmp_path, algorithm):
    algorithm("MlpPolicy", make_env()).learn(25).save_replay_buffer(tmp_path / "buffer")
    model = algorithm("MlpPolicy", DummyVecEnv([make_env] * 3))
    model.load_replay_buffer(tmp_path / "buffer")
    with pytest.raises(InputError, match="transitions of 1 environments, and the model has 3; continue with 1"):
        model.learn(30)
    assert model.num_timesteps == 0


@pytest.mark.parametrize("scale", [True, False])
def test_demonstrations_must_be_scaled(scale, algorithm):
    model = algorithm("MlpPolicy", make_env(), learning_starts=0)
    action = np.array([[3.0, -1.0]], np.float32)
    for _ in range(30):
        stored = model.policy.scale_action(action) if scale else action
        model.replay_buffer.add(np.zeros((1, 2)), np.zeros((1, 2)), stored, np.zeros(1), np.zeros(1), [{}])
    if scale:
        model.learn(5)
    else:
        with pytest.raises(InputError, match=r"an action of size 3; actions are stored scaled.*model\.policy\.scale_action"):
            model.learn(5)
        assert model._n_updates == 0


# Spaces


@pytest.mark.parametrize(("of_buffer", "of_model"), [(1, 3), (3, 1), (3, 5)])
def test_replay_buffer_of_other_returns_is_refused_before_the_first_step(tmp_path, of_buffer, of_model):
    DQS("MlpPolicy", make_env(), n_steps=of_buffer, **SMALL).learn(25).save_replay_buffer(tmp_path / "buffer")
    model = DQS("MlpPolicy", make_env(), n_steps=of_model, **SMALL)
    model.load_replay_buffer(tmp_path / "buffer")
    message = rf"returns of {of_buffer} steps, and n_steps of the model is {of_model}; .*load\(path, n_steps={of_buffer}\)"
    with pytest.raises(InputError, match=message):
        model.learn(30)


class OwnReturns(ReplayBuffer):
    """A user's buffer, whose attribute is not SB3's."""

    n_steps = 3


def test_a_buffer_of_ones_own_is_not_asked_for_its_returns():
    assert DQS("MlpPolicy", make_env(), replay_buffer_class=OwnReturns, **SMALL).learn(30)._n_updates == 10


def test_a_loaded_replay_buffer_discounts_as_the_model_does(tmp_path):
    saved = DQS("MlpPolicy", make_env(), n_steps=3, gamma=0.99, **SMALL).learn(25)
    saved.save(tmp_path / "model")
    saved.save_replay_buffer(tmp_path / "buffer")
    model = DQS.load(tmp_path / "model", env=make_env(), gamma=0.5)
    model.load_replay_buffer(tmp_path / "buffer")
    model.learn(5, reset_num_timesteps=False)
    assert model.replay_buffer.gamma == 0.5


class WithActions(RandomEnv):
    def __init__(self, action_space):
        super().__init__(OBSERVATIONS)
        self.action_space = action_space


@pytest.mark.parametrize("error", [ValueError, AssertionError, SpaceError])
@pytest.mark.parametrize(
    ("action_space", "message"),
    [
        (spaces.Box(-np.inf, np.inf, (2,)), "bounded Box action space"),
        (spaces.Box(np.array([-1.0, -np.inf]), np.array([1.0, 1.0]), dtype=np.float64), "bounded Box action space"),
        (spaces.Discrete(3), "bounded Box action space"),
        (spaces.Box(0, 255, (2,), np.uint8), "floating-point type, got .*uint8.*whole numbers.*float32"),
        (spaces.Box(-5, 5, (2,), np.int64), "floating-point type, got .*int64"),
        (spaces.Dict({"a": spaces.Box(-1.0, 1.0, (1,))}), "bounded Box action space"),
        (
            spaces.Box(np.float32([-1, 0.5]), np.float32([1, 0.5])),
            r"action coordinate \(1,\) has bounds 0.5 and 0.5, which cannot",
        ),
        (spaces.Box(-3e38, 3e38, (1,), np.float32), r"action coordinate \(0,\) has bounds -3.* and 3.*narrow bounds"),
        (
            spaces.Box(np.float32([[-1], [2]]), np.float32([[1], [2]])),
            r"action coordinate \(1, 0\) has bounds 2.0 and 2.0",
        ),
    ],
    ids=str,
)
def test_action_spaces_that_cannot_be_scaled_are_refused_at_construction(action_space, message, error, algorithm):
    with pytest.raises(error, match=message):
        algorithm("MlpPolicy", WithActions(action_space))


def test_discrete_actions_of_sb3s_own_test_are_refused():
    with pytest.raises(ValueError, match="bounded Box action space"):
        DQS("MlpPolicy", IdentityEnv(4))


def test_assertion_of_the_environment_is_not_taken_for_one_about_the_action_space():
    gym.register("sb3_dqs_tests/NoData-v0", lambda: exec("assert False, 'no data file'"))
    try:
        with pytest.raises(AssertionError, match="no data file") as caught:
            DQS("MlpPolicy", "sb3_dqs_tests/NoData-v0")
        assert not isinstance(caught.value, SpaceError)
    finally:
        del gym.registry["sb3_dqs_tests/NoData-v0"]


# What an environment may give


class Broken(gym.Env):
    """Episodes of ten steps, of which one gives a number that is not finite: at the given step, or where it is named."""

    def __init__(self, where, at_step, bad, observation_space=OBSERVATIONS):
        self.where, self.at_step, self.bad = where, at_step, bad
        self.observation_space = observation_space
        self.action_space = spaces.Box(-1.0, 1.0, (1,))
        self.observation_space.seed(0)
        self.n_steps = 0

    def observation(self, is_bad):
        observation = self.observation_space.sample()
        if is_bad:
            (observation["vector"] if isinstance(observation, dict) else observation)[1] = self.bad
        return observation

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation(self.where == "reset" and self.n_steps == self.at_step), {}

    def step(self, action):
        self.n_steps += 1
        is_now = self.n_steps == self.at_step
        reward = self.bad if self.where == "reward" and is_now else 0.0
        observation = self.observation(is_now and self.where in ("observation", "last observation"))
        return observation, reward, False, self.n_steps % 10 == 0, {}


DICT = spaces.Dict({"number": spaces.Discrete(3), "vector": OBSERVATIONS})
BAD_MOMENTS = [
    ("reward", 7),
    ("reward", 27),
    ("observation", 7),
    ("observation", 27),
    # as the episode is over by time, so that its value counts
    ("last observation", 10),
    ("last observation", 30),
    # the first of all, and first ones of later episodes
    ("reset", 0),
    ("reset", 10),
    ("reset", 30),
]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("space", [OBSERVATIONS, DICT], ids=["vector", "dict"])
@pytest.mark.parametrize(("where", "at_step"), BAD_MOMENTS)
def test_what_is_not_finite_is_named_and_not_stored_and_the_model_can_be_saved(tmp_path, where, at_step, space, bad):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    model = DQS(policy, Broken(where, at_step, bad, space), seed=0, **SMALL)
    named = "reward" if where == "reward" else "vector" if isinstance(space, spaces.Dict) else "observation"
    with pytest.raises(InputError, match=rf"{named} of environment 0 is not finite: .*{bad}.*VecCheckNan"):
        model.learn(60)
    assert model.num_timesteps <= max(at_step, 1), "before anything is learned from it"
    buffer = model.replay_buffer
    for stored in (buffer.observations, buffer.next_observations, {"reward": buffer.rewards}):
        for values in stored.values() if isinstance(stored, dict) else [stored]:
            assert np.isfinite(values).all()
    assert all(th.isfinite(value).all() for value in model.policy.state_dict().values())
    model.save(tmp_path / "model")
    loaded = DQS.load(tmp_path / "model", env=Broken("nowhere", 0, bad, space))
    loaded.learn(30, reset_num_timesteps=False)


class Counting(gym.Env):
    """Observes the steps of its episode, of ten; the reward of one step, the last of an episode, is no number."""

    observation_space = spaces.Box(0.0, 10.0, (1,))
    action_space = spaces.Box(-1.0, 1.0, (1,))
    n_steps, n_steps_of_all = 0, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.n_steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.n_steps += 1
        self.n_steps_of_all += 1
        reward = math.nan if self.n_steps_of_all == 20 else 0.0
        return np.full(1, self.n_steps, np.float32), reward, False, self.n_steps == 10, {}


def test_a_live_model_goes_on_from_a_reset_after_what_was_not_finite():
    model = DQS("MlpPolicy", Counting(), seed=0, **SMALL)
    with pytest.raises(InputError, match="reward of environment 0 is not finite"):
        model.learn(60)
    model.learn(15, reset_num_timesteps=False)
    buffer, size = model.replay_buffer, model.replay_buffer.size()
    before, after = buffer.observations[:size, 0, 0], buffer.next_observations[:size, 0, 0]
    # 19 steps, and 15 of a new episode
    assert before.tolist() == [*range(10), *range(9), *range(10), *range(5)]
    assert np.array_equal(after, before + 1)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize(("where", "at_step"), [("reward", 7), ("observation", 7), ("reset", 0), ("reset", 10)])
def test_what_vec_normalize_would_clip_is_named_and_not_stored(where, at_step, is_training, bad):
    env = VecNormalize(DummyVecEnv([lambda: Broken(where, at_step, bad)]), training=is_training)
    model = DQS("MlpPolicy", env, seed=0, **SMALL)
    named, counted = "reward" if where == "reward" else "observation", "statistics of VecNormalize have counted it"
    with pytest.raises(InputError, match=rf"{named} of environment 0 is not finite: .*{bad}.*VecCheckNan") as error:
        model.learn(60)
    assert (counted in str(error.value)) == is_training
    buffer = model.replay_buffer
    assert all(np.isfinite(values).all() for values in (buffer.observations, buffer.next_observations, buffer.rewards))


def test_a_huge_reward_raises_an_error_that_names_the_update_and_sends_back_to_a_saved_model(algorithm):
    model = algorithm("MlpPolicy", Broken("reward", 15, 1e30), seed=0)
    with pytest.raises(InputError, match=r"critic_loss is not finite at update \d+.*rewards.*learning_rate.*saved before"):
        model.learn(500)


def test_an_infinite_reward_in_the_buffer_leaves_networks_that_are_not_worth_saving_as_the_error_says(algorithm):
    model = algorithm("MlpPolicy", make_env(), seed=0).learn(30)
    model.replay_buffer.rewards[:] = np.inf
    with pytest.raises(InputError, match=r"The networks may no longer be finite: go on from a model that was saved before\."):
        model.train(1, 16)
    assert not all(th.isfinite(parameter).all() for parameter in model.critic.parameters())


# A short run learns


@pytest.mark.parametrize(
    "seed", [pytest.param(1, marks=pytest.mark.slow), *(pytest.param(n, marks=pytest.mark.integration) for n in (0, 2))]
)
def test_1500_steps_of_sb3s_identity_test_are_enough_with_default_settings(seed):
    env = DummyVecEnv([lambda: IdentityEnvBox(eps=0.5)])
    model = DQS("MlpPolicy", env, gamma=0.5, seed=seed).learn(1_500)
    mean_reward, _ = evaluate_policy(model, env, n_eval_episodes=10, warn=False)
    # of 100: each step whose action is within 0.5 of the observation gives 1
    assert mean_reward >= 90


@pytest.mark.parametrize(
    ("algorithm", "name", "default"),
    [
        (DQS, "actor_batch_size", 128),
        (PaperDQS, "actor_batch_size", 256),
        (DQS, "batch_size", 256),
        (DQS, "buffer_size", 10**6),
    ],
)
def test_the_default_that_an_error_tells_is_that_of_the_algorithm(algorithm, name, default):
    with pytest.raises(ValueError, match=f"{name} must be an integer >= 1, got 0; {default} is the default"):
        algorithm("MlpPolicy", "Pendulum-v1", **{name: 0})


class Settled(DQS):
    """Takes an environment alone."""

    def __init__(self, env, _init_setup_model=True):
        super().__init__("MlpPolicy", env, **SMALL, _init_setup_model=_init_setup_model)


def test_a_subclass_may_settle_all_settings():
    model = Settled("Pendulum-v1")
    assert model.actor_batch_size == SMALL.get("actor_batch_size", 128)
    with pytest.raises(ValueError, match="buffer_size"):
        model.buffer_size = 0
