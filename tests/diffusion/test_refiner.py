"""Is the learned Gaussian the posterior of the law, where that is one, and do samples stay in their mode?"""

import math

import pytest
import torch as th
from torch import nn

from sb3_dqs.diffusion.choice import choose_by_law
from sb3_dqs.diffusion.refiner import Refiner
from sb3_dqs.diffusion.reflection import reflect, reflected_normal_log_density

SIGMA = 0.5


def refiner_of(sigma, action_dim, net_arch, activation_fn=nn.ReLU):
    refiner = Refiner(1, action_dim, net_arch, activation_fn, relative_sigma=sigma / math.sqrt(max(action_dim, 2)))
    assert refiner.sigma == pytest.approx(sigma)
    return refiner


def trained_on(q_fn, action_dim, temperature=1.0, n_updates=1_500):
    """A refiner of the law exp(q / temperature), by uniform actions, cooled from 100 times that temperature as in training."""
    th.manual_seed(0)
    refiner = refiner_of(SIGMA, action_dim, [64, 64])
    optimizer = th.optim.Adam(refiner.parameters(), lr=3e-3)
    for update in range(n_updates):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - update / n_updates)
        actions = 2 * th.rand(256, action_dim) - 1
        noise = th.randn(256, 2 * action_dim)
        hot = 100.0 ** max(0.0, 1 - 2 * update / n_updates)
        optimizer.zero_grad()
        refiner.regress(th.zeros(256, 1), actions, q_fn, th.tensor(hot * temperature), noise).loss.backward()
        optimizer.step()
    return refiner


def gaussian_q_fn(mean, std, temperature=1.0):
    """Q whose law at the temperature is N(mean, std^2)."""
    return lambda actions: -temperature * ((actions - th.tensor(mean)) / th.tensor(std)).square().sum(dim=-1) / 2


@pytest.mark.parametrize("temperature", [1.0, 0.02])
def test_posterior_of_a_gaussian_law_is_the_product_of_law_and_noise(temperature):
    mean, std = [-0.2, 0.1], [0.1, 0.2]
    refiner = trained_on(gaussian_q_fn(mean, std, temperature), 2, temperature)
    noisy_actions = th.tensor([[-0.5, 0.0], [0.0, 0.3], [0.4, -0.4]])
    # precisions add up, and means by their precisions
    precision = 1 / th.tensor(std) ** 2 + 1 / SIGMA**2
    expected = (th.tensor(mean) / th.tensor(std) ** 2 + noisy_actions / SIGMA**2) / precision
    with th.no_grad():
        found, found_std = refiner(th.zeros(3, 1), noisy_actions)
    assert th.allclose(found, expected, atol=0.03)
    assert th.allclose(found_std, precision.rsqrt().expand(3, 2), rtol=0.12)


def test_refining_leaves_a_gaussian_law_as_it_is():
    mean, std = [-0.2, 0.1], [0.1, 0.2]
    refiner = trained_on(gaussian_q_fn(mean, std), 2)
    draws = th.tensor(mean) + th.tensor(std) * th.randn(20_000, 2)
    with th.no_grad():
        refined = refiner.refine(th.zeros(20_000, 1), draws, th.randn(20_000, 4))
    assert th.allclose(refined.mean(dim=0), th.tensor(mean), atol=0.02)
    assert th.allclose(refined.std(dim=0), th.tensor(std), rtol=0.1)
    # and brings another one there
    with th.no_grad():
        refined = refiner.refine(th.zeros(20_000, 1), 2 * th.rand(20_000, 2) - 1, th.randn(20_000, 4))
    assert th.allclose(refined.std(dim=0), th.tensor(std), rtol=0.3)


def test_samples_of_two_peaks_stay_with_their_peak():
    def q_fn(actions):
        right, left = (-((actions - peak) / 0.1).square().sum(dim=-1) / 2 for peak in (0.7, -0.7))
        return th.logaddexp(right, left)

    refiner = trained_on(q_fn, 1)
    draws = th.where(th.rand(4_000, 1) < 0.3, 0.7, -0.7) + 0.1 * th.randn(4_000, 1)
    with th.no_grad():
        refined = refiner.refine(th.zeros(4_000, 1), draws, th.randn(4_000, 2))
        middles = refiner.middles(th.zeros(1, 1), th.tensor([[[0.7]], [[-0.7]]])).squeeze(1)
    # a step of 0.5 crosses the middle, 0.7 away, in 8 % of the draws, and then goes either way
    assert (refined.sign() == draws.sign()).double().mean() > 0.88
    assert (refined > 0).double().mean() == pytest.approx(0.3, abs=0.06)
    assert th.allclose(middles, th.tensor([[0.7], [-0.7]]), atol=0.05)
    # nothing lies between
    assert (refined.abs() < 0.3).double().mean() < 0.02


def test_middles_are_the_means_of_what_several_samples_of_each_observation_are_refined_to():
    refiner = refiner_of(SIGMA, 2, [8, 8])
    features, actions = th.randn(5, 1), 2 * th.rand(3, 5, 2) - 1
    with th.no_grad():
        refiner.network[-1].weight.mul_(20)
        middles = refiner.middles(features, actions)
        for n in range(3):
            th.testing.assert_close(middles[n], refiner(features, actions[n])[0])
    assert middles.abs().amax() == 1, "some means lie outside of the box"
    assert middles.std() > 0.1


def test_candidates_are_draws_of_fitted_gaussians_and_a_quarter_of_the_noise_around_samples():
    refiner = refiner_of(SIGMA, 2, [8])
    actions, features = 2 * th.rand(8, 5, 2) - 1, th.randn(5, 1)
    noise = 0.1 * th.randn(8, 5, 2)
    candidates = refiner.candidates(features, actions, noise)
    for n in range(8):
        mean, std = refiner(features, actions[n]) if n < 6 else (actions[n], th.full((5, 2), SIGMA))
        th.testing.assert_close(candidates.means[n], mean)
        th.testing.assert_close(candidates.stds[n], std)
        th.testing.assert_close(candidates.actions[n], reflect(mean + std * noise[n]))
    # too few to spare one
    alone = refiner.candidates(features, actions[:3], noise[:3])
    th.testing.assert_close(alone.stds, candidates.stds[:3])


def test_a_law_that_the_gaussians_leave_out_is_still_reached(monkeypatch):
    # fitted to a peak of standard deviation 0.1, asked for the uniform law: there the mean of |a| is 0.5, of the peak 0.08
    refiner = trained_on(lambda actions: -((actions / 0.1).square().sum(dim=-1)) / 2, 1)

    def mean_size():
        with th.no_grad():
            candidates = refiner.candidates(th.zeros(4_000, 1), 2 * th.rand(32, 4_000, 1) - 1, th.randn(32, 4_000, 1))
        flat = lambda actions: th.zeros_like(actions[..., 0])  # noqa: E731
        return choose_by_law(candidates, flat, 1.0, th.rand(4_000)).abs().mean().item()

    assert mean_size() == pytest.approx(0.5, abs=0.03)
    monkeypatch.setattr("sb3_dqs.diffusion.refiner.DEFENSIVE_SHARE", 0.0)
    assert mean_size() < 0.3


def test_candidates_stay_with_their_peak():
    def q_fn(actions):
        right, left = (-((actions - peak) / 0.1).square().sum(dim=-1) / 2 for peak in (0.7, -0.7))
        return th.logaddexp(right, left)

    refiner = trained_on(q_fn, 1)
    draws = th.where(th.rand(1, 4_000, 1) < 0.3, 0.7, -0.7) + 0.1 * th.randn(1, 4_000, 1)
    with th.no_grad():
        candidates = refiner.candidates(th.zeros(4_000, 1), draws, th.randn(1, 4_000, 1))
    # without noise none is carried over to the other
    assert (candidates.actions.sign() == draws.sign()).double().mean() > 0.999


def test_entropy_is_that_of_the_gaussian():
    th.manual_seed(0)
    refiner = refiner_of(SIGMA, 3, [])
    for parameter in refiner.parameters():
        parameter.data.zero_()
    _, std = refiner(th.zeros(1, 1), th.zeros(1, 3))
    # the one of an untrained refiner is too wide for the box: narrower, the walls are far
    refiner.network[-1].bias.data[3:] = 2.0
    _, std = refiner(th.zeros(1, 1), th.zeros(1, 3))
    assert std.max() < 0.2
    noise = th.randn(20_000, 6)
    measures = refiner.regress(
        th.zeros(20_000, 1), th.zeros(20_000, 3), gaussian_q_fn([0.0], [1.0]), th.tensor(1.0), noise
    ).measures
    expected = 0.5 * math.log(2 * math.pi * math.e) + math.log(std[0, 0].item())
    assert measures["policy_entropy"].item() == pytest.approx(expected, abs=0.02)


def test_gradient_is_that_of_the_divergence_and_the_critic_gets_none():
    th.manual_seed(0)
    refiner = refiner_of(SIGMA, 2, [8], nn.Tanh).double()
    slope = nn.Parameter(th.tensor(3.0, dtype=th.float64))

    def q_fn(actions):
        return (slope * actions).sin().sum(dim=-1)

    features, actions, noise = th.zeros(5, 1).double(), (2 * th.rand(5, 2) - 1).double(), th.randn(5, 4).double()
    temperature = th.tensor(0.3, dtype=th.float64)
    parameters = list(refiner.parameters())
    found = th.autograd.grad(refiner.regress(features, actions, q_fn, temperature, noise).loss, parameters)

    noisy_actions = reflect(actions + SIGMA * noise[:, :2])
    mean, std = refiner(features, noisy_actions)
    assert mean.abs().max() < 1  # nothing is beyond the walls
    refined = reflect(mean + std * noise[:, 2:])
    divergence = (
        reflected_normal_log_density(refined, mean, std)
        - reflected_normal_log_density(refined, noisy_actions, SIGMA)
        - q_fn(refined) / temperature
    ).mean()
    for gradient, expected in zip(found, th.autograd.grad(divergence, parameters), strict=True):
        assert th.allclose(gradient, expected)
    refiner.regress(features, actions, q_fn, temperature, noise).loss.backward()
    assert slope.grad is None


def test_refined_actions_are_in_the_box_however_large_the_noise():
    refiner = refiner_of(1.0, 2, [8])
    refined = refiner.refine(th.zeros(100, 1), th.ones(100, 2), 30 * th.randn(100, 4))
    assert refined.abs().max() <= 1
    assert refined.std() > 0.1


def test_modes_at_random_places_are_told_apart_equally_well_in_any_dimension():
    th.manual_seed(0)
    for action_dim in (2, 4, 8):
        sigma = Refiner(1, action_dim, [8], nn.ReLU).sigma
        first, second = (2 * th.rand(20_000, action_dim) - 1 for _ in range(2))
        # squared distance over that of the noise decides: two uniform numbers in [-1, 1] are 2/3 apart, squared
        squared = (first - second).square().sum(dim=1).mean() / sigma**2
        assert squared.item() == pytest.approx(2 / 3 / 0.35**2, rel=0.05)


def test_noise_leaves_a_trace_of_the_action_in_many_dimensions_and_has_room_in_one():
    assert Refiner(1, 1, [8], nn.ReLU).sigma == pytest.approx(0.35 * math.sqrt(2))
    th.manual_seed(0)
    actions = 2 * th.rand(4_000, 40) - 1
    noisy_actions = reflect(actions + Refiner(1, 40, [8], nn.ReLU).sigma * th.randn(4_000, 40))
    # of cos(pi (a + 1) / 2), the slowest mode between two mirrors, what heat flow leaves after a time of sigma^2 / 2
    waves = [th.cos(math.pi * (points + 1) / 2) for points in (actions, noisy_actions)]
    correlation = (waves[0] * waves[1]).mean() / waves[0].square().mean()
    assert correlation.item() == pytest.approx(math.exp(-(math.pi**2) / 8), abs=0.01)


@pytest.mark.parametrize(("sigma", "expected"), [(0.05, None), (0.5, 0.3424), (1.0, 0.6494)])
def test_entropy_where_q_does_not_matter_is_that_of_reflected_noise(sigma, expected):
    refiner = refiner_of(sigma, 2, [8])
    if expected is None:
        # the walls are far for nearly all actions: that of the normal law, but for a share of about sigma of them
        expected = 0.5 * math.log(2 * math.pi * math.e * sigma**2)
        assert refiner.entropy_range()[1] == pytest.approx(expected, abs=sigma)
    else:
        th.manual_seed(0)
        noisy_actions = 2 * th.rand(4_000_000, 1, dtype=th.float64) - 1
        draws = reflect(noisy_actions + sigma * th.randn(4_000_000, 1, dtype=th.float64))
        # where they come from, by counting: entropy of a histogram given the noisy action
        counts = th.histogramdd(th.cat([noisy_actions, draws], dim=1), [64, 64], range=[-1.0, 1.0, -1.0, 1.0]).hist
        density = counts / counts.sum(dim=1, keepdim=True) * 32
        counted = -(density * density.clamp(min=1e-12).log()).sum(dim=1).mean() / 32
        assert counted.item() == pytest.approx(expected, abs=0.003)
        assert refiner.entropy_range()[1] == pytest.approx(expected, abs=0.001)
    assert refiner.entropy_range()[1] < math.log(2)


def test_sigma_must_be_positive():
    with pytest.raises(ValueError, match="relative_sigma must be a finite number > 0"):
        Refiner(1, 1, [8], nn.ReLU, 0.0)


def test_smallest_entropy_is_that_of_the_narrowest_gaussian():
    refiner = refiner_of(0.5, 2, [])
    with th.no_grad():
        refiner.network[-1].bias[2:] = 1e3  # the spread, as far as it goes
    _, std = refiner(th.zeros(1, 1), th.zeros(1, 2))
    entropy = 0.5 * th.log(2 * math.pi * math.e * std**2)
    assert refiner.entropy_range()[0] == pytest.approx(entropy[0, 0].item(), abs=1e-5)
