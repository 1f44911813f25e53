"""Does a setting of no use raise an error at construction that names it, its value and the remedy?"""

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.envs import IdentityEnv, IdentityEnvBox
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.type_aliases import TrainFreq, TrainFrequencyUnit
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dqs import DQS, PaperDQS
from sb3_dqs.checks import InputError, SpaceError
from sb3_dqs.policies import DiffusionPolicy
from tests.conftest import OBSERVATIONS, SMALL, SMALL_PAPER, RandomEnv, make_env

SMALL_NET = {"net_arch": [8]}

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
        (
            {"exploration_correlation_time": -1.0},
            "exploration_correlation_time must be a finite number >= 0, got -1.0; it is in steps",
        ),
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
        ({"optimize_memory_usage": True, "replay_buffer_kwargs": ["x"]}, "replay_buffer_kwargs must be a dictionary"),
        ({"action_noise": 0.1}, "action_noise must be an ActionNoise"),
        ({"action_noise": NormalActionNoise(np.zeros(3), np.ones(3))}, r"of shape \(3,\), .* actions are of shape \(1,\)"),
        ({"action_noise": OrnsteinUhlenbeckActionNoise(np.zeros((2, 1)), 0.1)}, r"action_noise is of shape \(2, 1\)"),
        ({"replay_buffer_kwargs": "goals"}, "replay_buffer_kwargs must be a dictionary.*got 'goals'"),
        ({"replay_buffer_class": "HerReplayBuffer"}, "replay_buffer_class must be .*got 'HerReplayBuffer'"),
        ({"component_kwargs": "diffusion"}, "component_kwargs must be a dictionary"),
        ({"component_kwargs": []}, r"component_kwargs must be a dictionary, got \[\]"),
        (
            {"component_kwargs": {"corrector": {"guided_share": "5e-1"}}},
            "guided_share must be .*got '5e-1'; .*write 0.5 without",
        ),
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
        (
            {"n_corrector_proposals": 0, "component_kwargs": {"corrector": {"sigmas": [0.2]}}},
            r"component_kwargs\['corrector'\]=.* has no effect with n_corrector_proposals=0; leave it out.*8 is the default",
        ),
        ({"component_kwargs": {"corrector": {"n_corrector_proposals": 4}}}, "'n_corrector_proposals', a setting of DQS"),
        ({"component_kwargs": {"temperature": {"hot_entropy": "5e-1"}}}, "hot_entropy must be .*'5e-1'; .*write 0.5"),
        ({"component_kwargs": {"temperature": {"initial": 0}}}, "initial must be a finite number > 0, got 0"),
        ({"component_kwargs": {"temperature": {"target_entropy": -1.0}}}, "'target_entropy', a setting of DQS"),
        (
            {"temperature": 0.1, "component_kwargs": {"temperature": {"initial": 1.0}}},
            r"\['initial'\] in component_kwargs\['temperature'\] have no effect without the automatic",
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
        ({"component_kwargs": {"temperature": {"measurement_rate": 1.0}}}, "component_kwargs.*'temperature'"),
    ],
)
def test_bad_setting_of_the_published_algorithm_raises_value_error(arguments, message):
    with pytest.raises(ValueError, match=message):
        PaperDQS("MlpPolicy", "Pendulum-v1", **{**SMALL_PAPER, **arguments})


def test_a_file_of_another_algorithm_says_so(tmp_path, files):
    SAC("MlpPolicy", make_env(), buffer_size=100, policy_kwargs={"net_arch": [8]}).save(tmp_path / "sac")
    message = "policy must be one of .*got SACPolicy, which is not of DQS; load a file with the algorithm that saved it"
    with pytest.raises(ValueError, match=message):
        DQS.load(tmp_path / "sac")
    with pytest.raises(ValueError, match="got PaperPolicy, which is not of DQS"):
        DQS.load(files / "paper")
    with pytest.raises(ValueError, match="got DiffusionPolicy, which is not of PaperDQS"):
        PaperDQS.load(files / "ours")


# The policy and its arguments


@pytest.mark.parametrize(
    ("policy_kwargs", "message"),
    [
        ("dict(net_arch=[64])", r"policy_kwargs must be a dictionary, got 'dict\(net_arch=\[64\]\)'"),
        ({"use_sde": True}, "policy_kwargs must not hold 'use_sde'.*leave it out.*exploration_correlation_time"),
        ({"activation_fn": th.nn.ReLU()}, r"activation_fn in policy_kwargs must be a class, got ReLU\(\)"),
        ({"critic_betas": 0.5}, r"critic_betas in policy_kwargs must be two numbers in \[0, 1\), got 0.5"),
        ({"critic_betas": (0.9, 1.0)}, "critic_betas in policy_kwargs must be two numbers"),
        ({"critic_betas": (0.9, 0.9), "optimizer_class": th.optim.SGD}, "critic_betas .* and optimizer_class is SGD; leave"),
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
        (
            {"critic_kwargs": {"n_critics": 5}},
            r"critic_kwargs in policy_kwargs must not hold \['n_critics'\], which the policy",
        ),
        ({"critic_kwargs": {"share_features_extractor": True}}, r"must not hold \['share_features_extractor'\]"),
        (
            {"critic_betas": (0.9, 0.9), "optimizer_kwargs": {"betas": (0.5, 0.9)}},
            "critic_betas in policy_kwargs have no effect with betas in optimizer_kwargs; leave out either",
        ),
        ({"optimizer_kwargs": {"lr": 1e-3}}, "optimizer_kwargs in policy_kwargs must not hold 'lr'; pass learning_rate"),
        ({"net_arch": {"pi": [8], "qf": [8], "vf": [8]}}, "net_arch must be a list of layer sizes or dict.*'vf'"),
        ({"net_arch": {"pi": [8]}}, "net_arch must be a list of layer sizes or dict"),
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


@pytest.mark.parametrize("train_freq", [(2, "episode"), TrainFreq(2, TrainFrequencyUnit.EPISODE)], ids=str)
def test_episodes_of_several_environments_are_no_training_frequency(train_freq, algorithm):
    assert algorithm("MlpPolicy", make_env(), train_freq=train_freq).train_freq.frequency == 2
    with pytest.raises(InputError, match=r"counts episodes of a single environment, and there are 3; use \(n, 'step'\)"):
        algorithm("MlpPolicy", DummyVecEnv([make_env] * 3), train_freq=train_freq)


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


# Spaces


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
        (spaces.Box(-1.0, 1.0, (0,)), "at least one coordinate"),
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


@pytest.mark.parametrize(
    "space",
    [
        spaces.Discrete(3, start=1),
        spaces.MultiDiscrete([2, 3], start=[0, 1]),
        spaces.Dict({"a": spaces.Discrete(3, start=-1)}),
    ],
    ids=str,
)
def test_discrete_observations_that_do_not_begin_with_zero_are_refused_at_construction(space, algorithm):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    with pytest.raises(SpaceError, match=r"discrete observations that are counted from 0, got .*subtract the start"):
        algorithm(policy, RandomEnv(space))


def test_the_policy_of_dictionaries_is_refused_for_other_observations(algorithm):
    with pytest.raises(
        InputError, match=r"MultiInputPolicy is for observations that are dictionaries, got Box.*use MlpPolicy"
    ):
        algorithm("MultiInputPolicy", make_env())


def test_no_environment_is_named(algorithm):
    with pytest.raises(InputError, match="env must be an environment or the id of one, got None"):
        algorithm("MlpPolicy", None)


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


class Settled(DQS):
    """Takes an environment alone."""

    def __init__(self, env, _init_setup_model=True):
        super().__init__("MlpPolicy", env, **SMALL, _init_setup_model=_init_setup_model)


def test_a_subclass_may_settle_all_settings():
    model = Settled("Pendulum-v1")
    assert model.actor_batch_size == SMALL.get("actor_batch_size", 128)
    with pytest.raises(ValueError, match="buffer_size"):
        model.buffer_size = 0
