"""Do the networks have the limits and inputs that their formulas promise?"""

import copy
import math

import pytest
import torch as th
from scipy import stats
from torch import nn
from torch.nn.utils import prune

from sb3_dqs.diffusion.networks import (
    PreconditionedDenoiser,
    RunningNormalization,
    ScoreNetwork,
    condition_on_first_input,
    mlp,
)
from sb3_dqs.diffusion.proposals import truncated_normal_mean
from sb3_dqs.diffusion.refiner import Refiner


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


def test_denoiser_at_the_levels_of_a_sampler_equals_the_denoiser():
    model = denoiser(levels=[3.0, 0.4, 0.02])
    features, noisy_actions = th.randn(4, 3), th.randn(4, 2)
    for sigma in (3.0, 0.4, 0.02):
        expected = model.condition(features)(noisy_actions, th.full((1, 1), sigma))
        th.testing.assert_close(model.condition_on_levels(features)(noisy_actions, sigma), expected, atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("n_observations", [1, 4])
def test_several_samples_of_each_observation_are_denoised_as_one_is(n_observations):
    model = denoiser(levels=[3.0, 0.4])
    features, noisy_actions = th.randn(n_observations, 3), th.randn(5, n_observations, 2)
    several = model.condition_on_levels(features, n_samples=5)(noisy_actions.flatten(end_dim=1), 0.4).view_as(noisy_actions)
    for n in range(5):
        alone = model.condition_on_levels(features)(noisy_actions[n], 0.4)
        th.testing.assert_close(several[n], alone, atol=1e-5, rtol=0.0)


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


def test_normalised_features_have_the_moments_of_all_batches_so_far():
    # batches of another mean each: by hand, the moments of all rows together
    batches = [th.tensor([[1.0], [3.0]]), th.tensor([[5.0], [7.0]]), th.tensor([[9.0], [11.0]])]
    normalization = RunningNormalization(1)
    for batch in batches:
        normalization.observe(batch)
    # of 1, 3, 5, 7, 9, 11: mean 6, variance 35 / 3
    # the rate is a float32
    assert math.isclose(normalization.mean.item(), 6.0, rel_tol=1e-6)
    assert math.isclose(normalization.variance.item(), 35 / 3, rel_tol=1e-6)
    expected = (8.0 - 6.0) / math.sqrt(35 / 3)
    assert math.isclose(normalization(th.tensor([[8.0]])).item(), expected, rel_tol=1e-5)


def test_normalisation_forgets_features_that_have_moved():
    normalization = RunningNormalization(1, min_rate=0.1)
    for _ in range(100):
        normalization.observe(th.tensor([[0.0], [0.0]]))
    for _ in range(10):
        normalization.observe(th.tensor([[1.0], [1.0]]))
    # ten steps of a tenth of the way
    assert math.isclose(normalization.mean.item(), 1 - 0.9**10, rel_tol=1e-6)


def test_an_infinite_feature_is_no_number_once_normalised():
    features = th.tensor([[1.0, math.inf], [-math.inf, 1e30], [math.nan, 2.0]])
    normalised = RunningNormalization(2)(features)
    assert normalised.isnan().tolist() == [[False, True], [True, False], [True, False]]
    assert normalised[1, 1] == 10.0, "what is enormous is clipped"


def test_normalised_features_ignore_shift_and_scale_and_stay_finite_where_they_were_constant():
    th.manual_seed(0)
    features = th.randn(64, 2)
    normalised = []
    for scaled in (features, 1e4 + 50 * features):
        normalization = RunningNormalization(2)
        normalization.observe(scaled)
        normalised.append(normalization(scaled))
    th.testing.assert_close(*normalised, atol=1e-2, rtol=0.0)
    constant = RunningNormalization(1)
    constant.observe(th.ones(8, 1))
    # clipped at 10 standard deviations
    assert constant(th.tensor([[1.0], [2.0], [-1e30]])).flatten().tolist() == [0.0, 10.0, -10.0]


class Residual(nn.Module):
    """A network of a user's, which does more than to call its modules one after the other."""

    def __init__(self, network):
        super().__init__()
        self.first, self.rest = network[0], network[1:]

    def forward(self, values):
        hidden = self.first(values)
        return self.rest(hidden) + hidden[..., :1]


def with_one_activation():
    activation = nn.Tanh()
    return nn.Sequential(nn.Linear(5, 8), activation, nn.Linear(8, 8), activation, nn.Linear(8, 1))


@pytest.mark.parametrize("network", [nn.Identity(), nn.Sequential(), Residual(mlp(5, 1, [8], nn.ReLU)), with_one_activation()])
def test_networks_of_another_kind_are_called(network):
    features, actions = th.randn(4, 3), th.randn(7, 4, 2)
    expected = network(th.cat([features.expand(7, 4, 3), actions], dim=-1))
    th.testing.assert_close(condition_on_first_input(network, features)(actions), expected)


@pytest.mark.parametrize("n_passes", ["one", "several"])
def test_a_residual_network_in_place_of_that_of_a_part_is_called(n_passes):
    part = denoiser(levels=[3.0, 0.4])
    part.network = Residual(part.network)
    features, noisy_actions, sigma = th.randn(4, 3), th.randn(4, 2), th.full((1, 1), 0.4)
    inputs = [features, part.c_in(sigma) * noisy_actions, part.embed(sigma).expand(4, -1)]
    expected = truncated_normal_mean(noisy_actions, sigma) + part.c_out(sigma) * part.network(th.cat(inputs, dim=-1))
    if n_passes == "one":
        found = part.condition(features)(noisy_actions, sigma)
    else:
        found = part.condition_on_levels(features)(noisy_actions, 0.4)
    th.testing.assert_close(found, expected)


def test_the_middle_of_a_residual_refiner_is_that_of_its_fit():
    refiner = Refiner(3, 2, [8], nn.ReLU)
    refiner.network = Residual(refiner.network)
    features, actions = th.randn(4, 3), th.rand(5, 4, 2) * 2 - 1
    middles, _ = refiner(features.repeat(5, 1), actions.flatten(end_dim=1))
    th.testing.assert_close(refiner.middles(features, actions), middles.view_as(actions))


def edited(kind):
    """A denoiser and a refiner whose first layers are no plain ones any more, and what they were before."""
    th.manual_seed(0)
    plain = nn.ModuleList(
        [
            PreconditionedDenoiser(3, 2, [8], nn.ReLU, sigma_min=0.02, sigma_max=1.5, sigma_data=0.5, levels=[1.5, 0.1]),
            Refiner(3, 2, [8], nn.ReLU),
        ]
    )
    changed = copy.deepcopy(plain)
    calls = []
    for part in changed:
        if kind == "hook":
            part.network[0].register_forward_hook(lambda *arguments: calls.append(arguments))
        elif kind == "pruned":
            prune.random_unstructured(part.network[0], "weight", 0.5)
    if kind == "pruned":
        for part, pruned in zip(plain, changed, strict=True):
            part.network[0].weight.data.copy_(pruned.network[0].weight)
    return plain, changed, calls


def test_backward_hooks_of_all_layers_are_called():
    network, calls = mlp(5, 2, [8], nn.ReLU), []
    for layer in network:
        layer.register_full_backward_hook(lambda layer, *gradients: calls.append(layer))
    condition_on_first_input(network, th.randn(4, 3))(th.randn(4, 2)).sum().backward()
    assert calls == [*reversed(network)]


@pytest.mark.parametrize("kind", ["hook", "pruned"])
def test_edited_first_layers_are_called(kind):
    (denoiser, refiner), (edited_denoiser, edited_refiner), calls = edited(kind)
    features, actions = th.randn(4, 3), th.rand(5, 4, 2) * 2 - 1
    rows, sigma = actions.flatten(end_dim=1), th.full((1, 1), 0.3)
    for compute in (
        lambda denoiser, refiner: denoiser.condition(features)(actions, sigma),
        lambda denoiser, refiner: denoiser.condition_on_levels(features, n_samples=5)(rows, 0.1),
        lambda denoiser, refiner: denoiser.condition_on_levels(features)(actions[0], 1.5),
        lambda denoiser, refiner: refiner.middles(features, actions),
    ):
        n_calls = len(calls)
        th.testing.assert_close(compute(edited_denoiser, edited_refiner), compute(denoiser, refiner), rtol=1e-5, atol=1e-6)
        assert len(calls) == n_calls + (kind == "hook")
