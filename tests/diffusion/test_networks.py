"""Do the networks have the limits and inputs that their formulas promise?"""

import math

import pytest
import torch as th
from scipy import stats
from torch import nn

from sb3_dqs.diffusion import estimators
from sb3_dqs.diffusion.networks import PreconditionedDenoiser, ScoreNetwork, SmallestOutput, condition_on_first_input, mlp


def denoiser(**kwargs):
    th.manual_seed(0)
    return PreconditionedDenoiser(3, 2, [16, 16], nn.ReLU, 0.02, 3.0, 0.5, **kwargs)


def test_conditioned_network_equals_the_network_on_the_concatenated_input():
    th.manual_seed(0)
    network = mlp(3 + 2 + 4, 5, [8, 8], nn.Tanh).double()
    features, actions = th.randn(6, 3).double(), th.randn(10, 6, 2).double()
    embedding = th.randn(1, 4).double()
    expected = network(th.cat([features.expand(10, 6, 3), actions, embedding.expand(10, 6, 4)], dim=-1))
    assert th.allclose(condition_on_first_input(network, features)(actions, embedding), expected, atol=1e-12)


def test_network_without_hidden_layers_is_linear_and_can_be_conditioned():
    network = mlp(5, 1, [], nn.ReLU)
    features, actions = th.randn(4, 3), th.randn(7, 4, 2)
    expected = network(th.cat([features.expand(7, 4, 3), actions], dim=-1))
    assert th.allclose(condition_on_first_input(network, features)(actions), expected, atol=1e-6)


@pytest.mark.parametrize("activation_fn", [nn.ReLU, nn.Tanh, nn.ELU], ids=["relu", "tanh", "elu"])
@pytest.mark.parametrize("net_arch", [[], [8], [8, 8]], ids=["linear", "one", "two"])
def test_gradient_through_the_network_of_the_smallest_output_is_that_of_autograd(net_arch, activation_fn):
    th.manual_seed(0)
    networks = [mlp(3 + 2, 1, net_arch, activation_fn).double() for _ in range(3)]
    features, actions = th.randn(6, 3).double(), th.randn(10, 6, 2).double().requires_grad_(True)
    smallest_output = SmallestOutput(networks, features)
    inputs = th.cat([features.expand(10, 6, 3), actions], dim=-1)
    expected = th.cat([network(inputs) for network in networks], dim=-1).amin(dim=-1)
    (expected_gradient,) = th.autograd.grad(expected.sum(), actions)
    value, gradient = smallest_output.value_and_gradient(actions.detach())
    th.testing.assert_close(smallest_output(actions), expected)
    th.testing.assert_close(value, expected.detach())
    th.testing.assert_close(gradient, expected_gradient)
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert all(parameter.grad is None for network in networks for parameter in network.parameters())


@pytest.mark.parametrize("rows_at_once", [1, 24, 10_000])
def test_smallest_output_goes_through_the_critic_in_bounded_parts(rows_at_once, monkeypatch):
    monkeypatch.setattr(estimators, "MAX_CRITIC_ROWS", rows_at_once)
    th.manual_seed(0)
    smallest_output = SmallestOutput([mlp(3 + 2, 1, [8], nn.ReLU) for _ in range(2)], th.randn(6, 3))
    n_rows = []
    whole = smallest_output.value_and_gradient

    def recorded(actions):
        n_rows.append(actions.shape[0] * actions.shape[1])
        return whole(actions)

    monkeypatch.setattr(smallest_output, "value_and_gradient", recorded)
    actions = th.rand(10, 6, 2)
    found = estimators._q_values_and_gradients(smallest_output, actions)
    # a part is never less than one action per row of the batch
    assert max(n_rows) <= max(rows_at_once, 6)
    assert sum(n_rows) == 60
    for part, expected in zip(found, whole(actions), strict=True):
        th.testing.assert_close(part, expected)


def test_gradient_of_the_smallest_output_passes_layer_norm():
    th.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 1)).double()
    features, actions = th.randn(6, 3).double(), th.randn(10, 6, 2).double().requires_grad_(True)
    expected = network(th.cat([features.expand(10, 6, 3), actions], dim=-1)).sum()
    (expected_gradient,) = th.autograd.grad(expected, actions)
    th.testing.assert_close(SmallestOutput([network], features).value_and_gradient(actions.detach())[1], expected_gradient)


def test_denoiser_at_the_levels_of_a_sampler_equals_the_denoiser():
    model = denoiser(levels=[3.0, 0.4, 0.02])
    features, noisy_actions = th.randn(4, 3), th.randn(4, 2)
    for sigma in (3.0, 0.4, 0.02):
        expected = model.condition(features)(noisy_actions, th.full((1, 1), sigma))
        th.testing.assert_close(model.condition_on_levels(features)(noisy_actions, sigma), expected, atol=1e-5, rtol=0.0)


def test_preconditioning_has_the_edm_coefficients():
    model, sigma = denoiser(), th.tensor(0.5)
    # at sigma = sigma_data = 0.5
    assert math.isclose(model.c_out(sigma), 0.5 / math.sqrt(2), rel_tol=1e-6)
    assert math.isclose(model.c_in(sigma), math.sqrt(2), rel_tol=1e-6)


def test_denoiser_without_network_is_that_of_the_uniform_law():
    model = denoiser()
    for parameter in model.parameters():
        parameter.data.zero_()
    noisy_actions, sigma = th.tensor([[0.9, -1.5]]), th.full((1, 1), 0.3)
    expected = [stats.truncnorm.mean((-1 - x) / 0.3, (1 - x) / 0.3, loc=x, scale=0.3) for x in (0.9, -1.5)]
    th.testing.assert_close(model.condition(th.zeros(1, 3))(noisy_actions, sigma), th.tensor([expected]).float())


def test_denoiser_returns_its_input_at_no_noise_and_forgets_it_at_large_noise():
    model = denoiser()
    features, actions = th.randn(4, 3), th.rand(4, 2) * 1.8 - 0.9
    denoise = model.condition(features)
    assert th.allclose(denoise(actions, th.full((1, 1), 1e-6)), actions, atol=1e-5)
    assert (denoise(30 * actions, th.full((1, 1), 30.0)) - denoise(0 * actions, th.full((1, 1), 30.0))).abs().max() < 0.2


def test_denoiser_reads_features_noisy_actions_and_sigma():
    model = denoiser()
    features, noisy_actions, sigma = th.randn(4, 3), th.randn(4, 2), th.full((4, 1), 0.4)
    reference = model.condition(features)(noisy_actions, sigma)
    assert not th.allclose(model.condition(features + 1)(noisy_actions, sigma), reference)
    assert not th.allclose(model.condition(features)(noisy_actions + 1, sigma), reference)
    assert not th.allclose(model.condition(features)(noisy_actions, sigma + 1), reference)


def test_score_network_reads_time_noisy_actions_features_and_temperature():
    th.manual_seed(0)
    model = ScoreNetwork(3, 2, [16, 16], nn.ReLU)
    assert model.network[0].in_features == 3 + 2 + 128 + 1
    features, noisy_actions, time, temperature = th.randn(4, 3), th.randn(4, 2), th.rand(4, 1), th.tensor(0.05)
    reference = model.condition(features, temperature)(noisy_actions, time)
    assert not th.allclose(model.condition(features + 1, temperature)(noisy_actions, time), reference)
    assert not th.allclose(model.condition(features, temperature + 1)(noisy_actions, time), reference)
    assert not th.allclose(model.condition(features, temperature)(noisy_actions + 1, time), reference)
    assert not th.allclose(model.condition(features, temperature)(noisy_actions, time + 0.1), reference)
