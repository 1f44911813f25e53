"""Are values learned by their formula, and is the law that the actor follows that of what the critic itself returns?"""

import functools

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.torch_layers import BatchRenorm1d
from stable_baselines3.common.policies import BaseModel, ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.utils._pytree import tree_leaves

from sb3_dqs import DQS, CnnPolicy, MlpPolicy, MultiInputPolicy, critics
from sb3_dqs.critics import (
    MIN_ROWS_TO_PREPARE,
    BatchRenormCritic,
    NativeBatchRenorm1d,
    evaluating,
    smallest_q,
    smallest_q_fn,
    td_loss,
    td_targets,
    transition_values,
)
from tests.conftest import SMALL, RandomEnv

VECTOR = spaces.Box(-1.0, 1.0, (3,))
IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
ACTIONS = spaces.Box(-1.0, 1.0, (2,))


# What Q of a transition should be


@pytest.mark.parametrize(
    ("discounts", "expected"),
    [
        # reward + 0.9 * next Q unless terminated
        (0.9, [1.0 + 9.0, 2.0, 3.0 - 18.0]),
        # n-step rows bring their own discounts
        (th.tensor([[0.5], [0.5], [0.25]]), [1.0 + 5.0, 2.0, 3.0 - 5.0]),
    ],
)
def test_target_is_the_reward_and_the_discounted_next_q_unless_terminated(discounts, expected):
    rewards, dones = th.tensor([[1.0], [2.0], [3.0]]), th.tensor([[0.0], [1.0], [0.0]])
    next_q_values = th.tensor([[10.0], [1e9], [-20.0]])
    assert td_targets(rewards, dones, discounts, next_q_values).flatten().tolist() == pytest.approx(expected)


def test_loss_is_half_the_sum_over_the_ensemble_of_mean_squared_errors():
    q_values = [th.tensor([[1.0], [2.0], [3.0]]), th.tensor([[0.0], [0.0], [0.0]])]
    targets = th.tensor([[2.0], [2.0], [1.0]])
    # mean squares (1 + 0 + 4) / 3 and (4 + 4 + 1) / 3
    assert td_loss(q_values, targets).item() == pytest.approx((5 / 3 + 9 / 3) / 2)


# Values at both ends of transitions


def make_policy(observation_space=VECTOR, policy_class=MlpPolicy, **kwargs):
    return policy_class(
        observation_space,
        ACTIONS,
        lambda _: 1e-3,
        **{
            "net_arch": [8, 8],
            "has_target_network": False,
            "has_average_critic": False,
            "has_average_actor": False,
            "diffusion_kwargs": {"n_diffusion_steps": 2, "n_score_samples": 2},
            "n_action_candidates": 1,
            "refiner_kwargs": {},
            "corrector_kwargs": {"n_corrector_proposals": 0},
            **kwargs,
        },
    )


def transitions():
    """Two laws of observations and actions, apart from each other."""
    return th.randn(6, 3), th.rand(6, 2), 2 + th.randn(6, 3), -th.rand(6, 2)


def test_normalisation_takes_its_statistics_from_both_ends_of_the_transitions():
    critic = make_policy().critic
    critic.set_training_mode(True)
    observations, actions = th.tensor([[0.0, 1.0, 2.0]] * 4), th.full((4, 2), 0.5)
    next_observations, next_actions = th.tensor([[2.0, 1.0, 8.0]] * 4), th.full((4, 2), -1.0)
    transition_values(critic, None, observations, actions, next_observations, next_actions)
    for network in critic.q_networks:
        # a hundredth of the way from zero to the mean of both
        assert network[0].ra_mean.tolist() == pytest.approx([0.01, 0.01, 0.05, -0.0025, -0.0025])
        assert network[0].steps == 1, "one pass for both"


@pytest.mark.parametrize("critic_class", [BatchRenormCritic, ContinuousCritic])
def test_joint_pass_equals_two_separate_ones_where_nothing_depends_on_the_batch(critic_class):
    critic = disturbed(make_policy(critic_class=critic_class).critic)
    observations, actions, next_observations, next_actions = transitions()
    q_values, next_q_values = transition_values(critic, None, observations, actions, next_observations, next_actions)
    th.testing.assert_close(tuple(q_values), critic(observations, actions))
    th.testing.assert_close(next_q_values, th.minimum(*critic(next_observations, next_actions)))


@pytest.mark.parametrize("critic_class", [BatchRenormCritic, ContinuousCritic])
def test_no_gradient_flows_through_the_next_values(critic_class):
    critic = disturbed(make_policy(critic_class=critic_class).critic)
    observations, actions, next_observations, next_actions = transitions()
    q_values, next_q_values = transition_values(critic, None, observations, actions, next_observations, next_actions)
    assert not next_q_values.requires_grad
    joint = th.autograd.grad(td_loss(q_values, next_q_values), list(critic.parameters()))
    separate = th.autograd.grad(td_loss(critic(observations, actions), next_q_values), list(critic.parameters()))
    for ours, expected in zip(joint, separate, strict=True):
        th.testing.assert_close(ours, expected)


def test_a_target_network_gives_the_next_values_and_the_critic_never_sees_the_next_actions():
    policy = make_policy(has_target_network=True)
    critic, target = policy.critic, disturbed(policy.critic_target)
    critic.set_training_mode(True)
    observations, actions, next_observations, next_actions = transitions()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    q_values, next_q_values = transition_values(critic, target, observations, actions, next_observations, next_actions)
    th.testing.assert_close(next_q_values, th.minimum(*target(next_observations, next_actions)))
    assert not next_q_values.requires_grad
    assert all(th.equal(before[name], value) for name, value in target.state_dict().items())
    for network in critic.q_networks:
        th.testing.assert_close(network[0].ra_mean, 0.01 * th.cat([observations, actions], dim=1).mean(dim=0))
    assert all(values.requires_grad for values in q_values)


def test_joint_pass_takes_dict_observations():
    space = spaces.Dict({"a": spaces.Box(-1.0, 1.0, (2,)), "b": spaces.Box(-1.0, 1.0, (1,))})
    critic = disturbed(make_policy(space, MultiInputPolicy).critic)
    here, there = ({"a": th.randn(4, 2), "b": th.randn(4, 1)} for _ in range(2))
    actions, next_actions = th.rand(4, 2), th.rand(4, 2)
    q_values, next_q_values = transition_values(critic, None, here, actions, there, next_actions)
    th.testing.assert_close(tuple(q_values), critic(here, actions))
    th.testing.assert_close(next_q_values, th.minimum(*critic(there, next_actions)))


# Batch renormalisation by torch's own batch normalisation


def renormalisations(warmup_steps):
    """Ours and sb3-contrib's with equal parameters, in float64 and with an eps that plays no part."""
    both = [
        cls(3, eps=1e-12, momentum=0.1, warmup_steps=warmup_steps).double() for cls in (NativeBatchRenorm1d, BatchRenorm1d)
    ]
    for module in both:
        module.scale.data.copy_(th.tensor([0.5, 2.0, -1.0]))
        module.bias.data.copy_(th.tensor([0.0, 1.0, -3.0]))
    return both


# In the third feature both corrections reach their bounds: a spread of 20 and a mean of 50 where 1 and 0 were usual
BATCH_MEANS = th.tensor([0.0, 1.0, 50.0], dtype=th.float64)
BATCH_STDS = th.tensor([1.0, 0.5, 20.0], dtype=th.float64)


@pytest.mark.parametrize("host_waits", [False, True], ids=["cpu", "gpu"])
@pytest.mark.parametrize("warmup_steps", [0, 3, 1_000])
def test_native_renormalisation_is_that_of_sb3_contrib_up_to_the_batch_own_standard_deviation(
    warmup_steps, host_waits, monkeypatch
):
    monkeypatch.setattr(critics, "host_would_wait", lambda values: host_waits)
    th.manual_seed(0)
    ours, theirs = renormalisations(warmup_steps)
    n = 16
    for _ in range(6):
        leaves = [(BATCH_MEANS + BATCH_STDS * th.randn(n, 3, dtype=th.float64)).requires_grad_()]
        leaves.append(leaves[0].detach().clone().requires_grad_())
        outputs = [module(leaf) for module, leaf in zip((ours, theirs), leaves, strict=True)]
        th.testing.assert_close(outputs[0].mean(dim=0), outputs[1].mean(dim=0))
        # variances of the batch itself and of its law differ by the factor n / (n - 1)
        own = (1 - 1 / n) ** 0.5
        deviations = [output - output.mean(dim=0) for output in outputs]
        th.testing.assert_close(own * deviations[0], deviations[1])
        assert 1 / own - 1 < 1.1 / (2 * n), "the share that is documented"

        direction = th.randn(n, 3, dtype=th.float64)
        gradients = [th.autograd.grad((o * direction).sum(), leaf) for o, leaf in zip(outputs, leaves, strict=True)]
        th.testing.assert_close(own * gradients[0][0], gradients[1][0])
        for name in ("ra_mean", "ra_var", "steps"):
            th.testing.assert_close(getattr(ours, name), getattr(theirs, name))
    assert ours.steps == 6


def test_after_warm_up_the_output_is_that_of_the_running_statistics():
    ours, _ = renormalisations(warmup_steps=0)
    ours.steps.fill_(1)
    ours.ra_mean.copy_(th.tensor([1.0, 0.0, 0.0]))
    ours.ra_var.copy_(th.tensor([4.0, 1.0, 1.0]))
    # means 0, 0 and 100; standard deviations 2 ** 0.5 of its law, 1 of the batch itself
    rows = th.tensor([[1.0, 1.0, 101.0], [-1.0, -1.0, 99.0]], dtype=th.float64)
    # r = 2 ** 0.5 / 2 and d = -1 / 2; r = 2 ** 0.5 and d = 0; d = 100 is bounded by 5. Then scale 0.5, 2, -1, bias 0, 1, -3
    half, root = 2**0.5 / 2, 2**0.5
    expected = [
        [0.5 * (half - 0.5), 2 * root + 1, -(root + 5) - 3],
        [0.5 * (-half - 0.5), -2 * root + 1, -(-root + 5) - 3],
    ]
    th.testing.assert_close(ours(rows), th.tensor(expected, dtype=th.float64))


@pytest.mark.parametrize("is_training", [True, False])
def test_renormalisation_without_an_affine_part_leaves_scale_and_bias_alone(is_training):
    # rows -1 and 1: standard deviation 1 of the batch itself, and the running statistics of the start are 0 and 1
    norm = NativeBatchRenorm1d(1, eps=1e-12, affine=False).double().train(is_training)
    norm.scale.data.fill_(7.0)
    norm.bias.data.fill_(7.0)
    rows = th.tensor([[-1.0], [1.0]], dtype=th.float64)
    th.testing.assert_close(norm(rows), rows)


def test_in_evaluation_mode_native_renormalisation_is_exactly_that_of_sb3_contrib():
    ours, theirs = renormalisations(warmup_steps=0)
    for module in (ours, theirs):
        module.ra_mean.copy_(th.tensor([1.0, -2.0, 30.0]))
        module.ra_var.copy_(th.tensor([4.0, 0.25, 9.0]))
        module.eval()
    rows = th.randn(5, 3, dtype=th.float64)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    th.testing.assert_close(ours(rows), theirs(rows))
    assert all(th.equal(before[name], value) for name, value in ours.state_dict().items())


def test_every_renormalisation_of_the_critic_is_native_and_keeps_its_settings():
    kwargs = {"batch_norm_momentum": 0.5, "batch_norm_eps": 0.25, "renorm_warmup_steps": 7}
    critic = make_policy(critic_kwargs=kwargs).critic
    layers = [module for module in critic.modules() if isinstance(module, BatchRenorm1d)]
    assert len(layers) == 2 * 3, "before each linear layer of both networks"
    assert {(type(m), m.momentum, m.eps, m.warmup_steps) for m in layers} == {(NativeBatchRenorm1d, 0.5, 0.25, 7)}


def test_statistics_never_see_proposals():
    model = DQS("MlpPolicy", "Pendulum-v1", policy_delay=1, seed=0, **SMALL).learn(30)
    batch = model.replay_buffer.sample(16)
    before = {name: value.clone() for name, value in model.critic.named_buffers()}
    model.policy.set_training_mode(True)
    model._update_actor(batch, batch.next_observations, batch.actions)
    model.predict(np.ones((5, 3), np.float32), deterministic=True)
    assert all(th.equal(before[name], value) for name, value in model.critic.named_buffers())
    steps = [value.item() for name, value in before.items() if name.endswith("steps")]
    assert steps == [model._n_updates] * len(steps), "one pass per update of the critic"
    assert model._n_updates == 10


# The critic as a function of the action alone


def disturbed(critic):
    """Statistics and parameters as after training; in evaluation mode."""
    th.manual_seed(1)
    with th.no_grad():
        for name, parameter in critic.named_parameters():
            if not name.startswith("features_extractor"):
                parameter.add_(0.3 * th.randn_like(parameter))
        for name, values in critic.named_buffers():
            if name.endswith("ra_mean"):
                values.copy_(th.randn_like(values))
            if name.endswith("ra_var"):
                values.copy_(0.5 + th.rand_like(values))
    critic.set_training_mode(False)
    return critic


def asked_directly(critic, observations, actions):
    """Smallest of what the critic returns, (n, batch), by one call for each of n actions."""
    return th.stack([th.cat(critic(observations, rows), dim=1).amin(dim=1) for rows in actions])


def values_and_gradients(q_fn, actions):
    leaf = actions.clone().requires_grad_()
    values = q_fn(leaf)
    return values.detach(), th.autograd.grad(values.sum(), leaf)[0]


@pytest.mark.parametrize("n_rows", [1, MIN_ROWS_TO_PREPARE])
def test_features_are_extracted_once_for_all_calls(n_rows, monkeypatch):
    critic = DQS("MlpPolicy", "Pendulum-v1", seed=0).critic
    extracted = []
    extract = critic.extract_features
    monkeypatch.setattr(critic, "extract_features", lambda *args: extracted.append(1) or extract(*args))
    critic.set_training_mode(False)
    observations, actions = th.zeros(n_rows, 3), th.rand(4, n_rows, 1)
    q_fn = smallest_q_fn(critic, observations)
    first, again = q_fn(actions), q_fn(actions)
    assert len(extracted) == 1
    assert th.equal(first, again)
    th.testing.assert_close(first, asked_directly(critic, observations, actions), rtol=1e-4, atol=1e-5)


def assert_is_the_smallest_q_of_direct_calls(critic, observations):
    n_rows = len(tree_leaves(observations)[0])
    assert n_rows >= MIN_ROWS_TO_PREPARE, "for fewer, the critic is asked as it is"
    actions = th.rand(7, n_rows, 2) * 2 - 1
    expected = values_and_gradients(functools.partial(asked_directly, critic, observations), actions)
    assert expected[1].abs().max() > 1e-4, "a critic that ignores the action would prove nothing"
    q_fn = smallest_q_fn(critic, observations)
    for _ in range(2):
        th.testing.assert_close(values_and_gradients(q_fn, actions), expected, rtol=1e-4, atol=1e-5)
    several = functools.partial(smallest_q, critic, observations)
    th.testing.assert_close(values_and_gradients(several, actions), expected, rtol=1e-4, atol=1e-5)
    assert all(parameter.grad is None for parameter in critic.parameters())


class InplaceELU(nn.ELU):
    def __init__(self):
        super().__init__(inplace=True)


class Residual(nn.Module):
    """A network that is no ``Sequential``, around one."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, inputs):
        return self.network(inputs) + inputs.prod(dim=1, keepdim=True)


class SignedNetwork(nn.Sequential):
    """A ``Sequential`` whose forward pass is its own."""

    def forward(self, inputs):
        return -super().forward(inputs)


class OwnForward(BatchRenormCritic):
    """A critic that knows something that no layer holds."""

    def forward(self, obs, actions):
        return tuple(values - (actions**2).sum(dim=1, keepdim=True) for values in super().forward(obs, actions))


class OwnFeatures(BatchRenormCritic):
    def extract_features(self, obs, features_extractor):
        return 2 * super().extract_features(obs, features_extractor)


class HalvedRenorm(BatchRenorm1d):
    """A layer that is derived from batch renormalisation, and does something else."""

    def forward(self, x):
        return 0.5 * super().forward(x)


VARIANTS = {
    "batch renormalisation": {},
    "plain": {"critic_class": ContinuousCritic},
    "one": {"n_critics": 1},
    "three": {"n_critics": 3},
    "three plain": {"critic_class": ContinuousCritic, "n_critics": 3},
    "no hidden layer": {"net_arch": {"pi": [8], "qf": []}},
    "tanh": {"activation_fn": nn.Tanh},
    "in place": {"activation_fn": InplaceELU},
    "plain in place": {"activation_fn": InplaceELU, "critic_class": ContinuousCritic},
    "without normalisation": {"critic_kwargs": {"batch_norm": False}},
    "own forward": {"critic_class": OwnForward},
    "own features": {"critic_class": OwnFeatures},
}


@pytest.mark.parametrize("kwargs", VARIANTS.values(), ids=VARIANTS)
def test_law_is_that_of_what_the_critic_returns(kwargs):
    assert_is_the_smallest_q_of_direct_calls(disturbed(make_policy(**kwargs).critic), th.randn(20, 3))


def with_layer_norm(critic):
    for network in critic.q_networks:
        network.insert(2, nn.LayerNorm(8))
        network.insert(0, nn.LayerNorm(5))


def with_layer_norm_behind_renormalisation(critic):
    for network in critic.q_networks:
        network.insert(1, nn.LayerNorm(5))


def with_renormalisation_behind_renormalisation(critic):
    for network in critic.q_networks:
        network.insert(1, NativeBatchRenorm1d(5))


def with_parametrised(parametrise):
    def edit(critic):
        for layer in [module for module in critic.modules() if type(module) is nn.Linear]:
            parametrise(layer)

    return edit


def with_networks(wrap):
    def edit(critic):
        for index, network in enumerate(critic.q_networks):
            critic.q_networks[index] = wrap(network)
            setattr(critic, f"qf{index}", critic.q_networks[index])

    return edit


def with_dropout(critic):
    for network in critic.q_networks:
        network.insert(3, nn.Dropout(0.5))


def with_activation_of_the_inputs(critic):
    critic.q_networks[0].insert(0, nn.ReLU())  # not in place: the other network takes the same inputs


def with_hook(choose, register=nn.Module.register_forward_hook, hook=lambda module, inputs, output: output * 1.5):
    def edit(critic):
        for network in critic.q_networks:
            register(choose(network), hook)

    return edit


def with_hook_on_the_critic(critic):
    critic.register_forward_hook(lambda module, inputs, q_values: tuple(values + inputs[1][:, :1] for values in q_values))


def with_derived_renormalisation(critic):
    for network in critic.q_networks:
        network[3] = HalvedRenorm(8)


def with_a_forward_of_the_object_itself(critic):
    asked = critic.forward
    critic.forward = lambda obs, actions: tuple(values - actions[:, :1] for values in asked(obs, actions))


def with_a_forward_of_the_last_layer_itself(critic):
    for network in critic.q_networks:
        layer = network[-1]
        layer.forward = lambda hidden, plain=layer.forward: -3 * plain(hidden)


EDITS = {
    "renormalisation twice": with_renormalisation_behind_renormalisation,
    "forward of a layer itself": with_a_forward_of_the_last_layer_itself,
    "layer norm": with_layer_norm,
    "layer norm behind renormalisation": with_layer_norm_behind_renormalisation,
    "weight norm": with_parametrised(weight_norm),
    "spectral norm": with_parametrised(spectral_norm),
    "no Sequential": with_networks(Residual),
    "Sequential with a forward of its own": with_networks(lambda network: SignedNetwork(*network)),
    "nested": with_networks(nn.Sequential),
    "dropout": with_dropout,
    "activation of the inputs": with_activation_of_the_inputs,
    "hook on the first layer": with_hook(lambda network: network[0]),
    "hook on a linear layer": with_hook(lambda network: network[1]),
    "hook on the last layer": with_hook(lambda network: network[-1]),
    "hook on a network": with_hook(lambda network: network),
    "pre-hook on a linear layer": with_hook(
        lambda network: network[1], nn.Module.register_forward_pre_hook, lambda module, inputs: (inputs[0] * 2,)
    ),
    "hook on the critic": with_hook_on_the_critic,
    "derived renormalisation": with_derived_renormalisation,
    "forward of the object itself": with_a_forward_of_the_object_itself,
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_law_is_that_of_what_an_edited_critic_returns(edit):
    critic = make_policy().critic
    edit(critic)
    assert_is_the_smallest_q_of_direct_calls(disturbed(critic), th.randn(20, 3))


class BatchNormExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space, features_dim=4):
        super().__init__(observation_space, features_dim)
        self.layers = nn.Sequential(nn.Linear(3, features_dim), nn.BatchNorm1d(features_dim), nn.ReLU(inplace=True))

    def forward(self, observations):
        return self.layers(observations)


IMAGES = {"features_extractor_kwargs": {"features_dim": 4}}
OBSERVED = {
    "vector with an extractor": (VECTOR, MlpPolicy, {"features_extractor_class": BatchNormExtractor}),
    "image": (IMAGE, CnnPolicy, IMAGES),
    "dict": (
        spaces.Dict({"vector": VECTOR, "image": IMAGE, "number": spaces.Discrete(3)}),
        MultiInputPolicy,
        {"features_extractor_kwargs": {"cnn_output_dim": 4}},
    ),
}


@pytest.mark.parametrize("critic_class", [BatchRenormCritic, ContinuousCritic, OwnForward])
@pytest.mark.parametrize(("space", "policy_class", "kwargs"), OBSERVED.values(), ids=OBSERVED)
def test_law_is_that_of_the_critic_for_all_observations(space, policy_class, kwargs, critic_class):
    policy = make_policy(space, policy_class, critic_class=critic_class, **kwargs)
    space.seed(0)
    samples = [policy.obs_to_tensor(space.sample())[0] for _ in range(MIN_ROWS_TO_PREPARE)]
    observations = {key: th.cat([s[key] for s in samples]) for key in samples[0]} if isinstance(space, spaces.Dict) else None
    assert_is_the_smallest_q_of_direct_calls(
        disturbed(policy.critic), th.cat(samples) if observations is None else observations
    )


# Asking without teaching


def test_evaluating_puts_the_mode_back_also_after_an_exception():
    critic = make_policy().critic
    for mode in (True, False):
        critic.set_training_mode(mode)
        with evaluating(critic):
            assert not any(module.training for module in critic.modules())
        assert all(module.training == mode for module in critic.modules())
        with pytest.raises(KeyError), evaluating(critic):
            raise KeyError("within")
        assert all(module.training == mode for module in critic.modules())


# Critics of one's own


class Parabola(BaseModel):
    """Q = 50 - 50 |a - (0.5, -0.25)|^2: at temperature 1 a Gaussian law of standard deviation 0.1."""

    def __init__(self, observation_space, action_space, features_extractor, features_dim, normalize_images, **ignored):
        super().__init__(observation_space, action_space, None, features_extractor, normalize_images)
        self.anchor = nn.Parameter(th.zeros(()))

    def forward(self, obs, actions):
        distance = ((actions - th.tensor([0.5, -0.25])) ** 2).sum(dim=1, keepdim=True)
        return (50 - 50 * distance + 0 * self.anchor,)


class PolicyWithParabola(MlpPolicy):
    def make_critic(self, features_extractor=None):
        kwargs = self._update_features_extractor(self._network_kwargs([]), features_extractor)
        return Parabola(**kwargs)


@pytest.mark.parametrize("tau", [1.0, 0.01])
@pytest.mark.parametrize(
    ("policy", "policy_kwargs"),
    [("MlpPolicy", {"critic_class": Parabola}), (PolicyWithParabola, {})],
    ids=["policy_kwargs", "subclass"],
)
def test_actor_follows_a_critic_of_ones_own(policy, policy_kwargs, tau):
    model = DQS(
        policy,
        RandomEnv(spaces.Box(-1.0, 1.0, (1,))),
        tau=tau,
        temperature=1.0,
        policy_delay=1,
        learning_starts=50,
        batch_size=64,
        learning_rate=5e-3,
        policy_kwargs={"net_arch": [32, 32], **policy_kwargs},
        seed=0,
    )
    model.learn(50)
    model.train(200, batch_size=64)
    with th.no_grad():
        actions = model.actor(th.zeros(2_000, 1))
    assert actions.mean(dim=0).tolist() == pytest.approx([0.5, -0.25], abs=0.05)
    assert actions.std(dim=0).tolist() == pytest.approx([0.1, 0.1], abs=0.04)


def test_every_parameter_of_an_edited_critic_is_trained():
    class PolicyWithResiduals(MlpPolicy):
        def make_critic(self, features_extractor=None):
            critic = super().make_critic(features_extractor)
            with_networks(Residual)(critic)
            with_layer = critic.q_networks[0].network
            with_layer.insert(2, nn.LayerNorm(16))
            return critic

    model = DQS(PolicyWithResiduals, "Pendulum-v1", seed=0, **SMALL)
    before = {name: value.clone() for name, value in model.critic.named_parameters()}
    model.learn(40)
    assert all(not th.equal(before[name], value) for name, value in model.critic.named_parameters())
