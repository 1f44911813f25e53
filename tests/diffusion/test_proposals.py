"""Are the proposals truncated normal draws, also in float32 far outside the box?"""

import numpy as np
import pytest
import torch as th
from scipy import stats

from sb3_dqs.diffusion.proposals import TruncatedNormal, TruncatedNormalMean, antithetic_uniforms, truncated_normal_mean


def law(mean, sigma, dtype=th.float64):
    return TruncatedNormal(th.full((1, 1), mean, dtype=dtype), th.full((1, 1), sigma, dtype=dtype))


@pytest.mark.parametrize("mean", [-2.0, -0.3, 0.0, 0.8, 1.7])
@pytest.mark.parametrize("sigma", [0.1, 0.6, 3.0])
def test_proposals_are_the_inverse_cdf_of_the_truncated_normal(mean, sigma):
    uniforms = th.linspace(0.01, 0.99, 99, dtype=th.float64).reshape(-1, 1, 1)
    proposals = law(mean, sigma).sample(uniforms).squeeze()
    expected = stats.truncnorm.ppf(uniforms.squeeze(), (-1 - mean) / sigma, (1 - mean) / sigma, loc=mean, scale=sigma)
    # a mean left of the centre reads the quantiles from the other side
    expected = expected if mean > 0 else expected[::-1]
    assert np.abs(proposals.numpy() - expected).max() < 1e-9


@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("n_sigma_outside", [0.0, 5.0, 8.0])
def test_float32_far_outside_the_box_is_as_exact_as_float64(n_sigma_outside, side):
    sigma = 0.05
    mean = side * (1 + n_sigma_outside * sigma)
    uniforms = th.rand(2_000, 1, 1, dtype=th.float64, generator=th.Generator().manual_seed(0))
    in_float64 = law(mean, sigma).sample(uniforms)
    in_float32 = law(mean, sigma, th.float32).sample(uniforms.float())
    assert th.isfinite(in_float32).all()
    assert (in_float32.abs() <= 1).all()
    # the spread of the draws 8 sigma outside is sigma / 8 = 6e-3; float32 carries 1e-7 times the mean's distance
    assert (in_float32 - in_float64).abs().max() < 2e-6
    assert in_float32.unique().numel() > 1_000


def test_hundreds_of_sigma_outside_the_box_collapse_onto_the_wall():
    proposals = TruncatedNormal(th.tensor([[-9.0, 9.0]]), th.tensor([[0.02]])).sample(th.rand(16, 1, 2))
    assert (proposals - th.tensor([-1.0, 1.0])).abs().max() < 0.02 / 2


@pytest.mark.parametrize("mean", [0.3, -0.9, 1.4, 0.0])
def test_partners_are_those_of_antithetic_pairs(mean):
    law = TruncatedNormal(th.full((1, 2), mean, dtype=th.float64), th.full((1, 1), 0.4, dtype=th.float64))
    uniforms = th.rand((50, 1, 2), dtype=th.float64, generator=th.Generator().manual_seed(0))
    first, second = law.sample(antithetic_uniforms(uniforms)).chunk(2)
    th.testing.assert_close(law.antithetic(first), second, atol=1e-9, rtol=0)
    th.testing.assert_close(law.antithetic(second), first, atol=1e-9, rtol=0)


def test_partners_far_outside_the_box_are_finite_and_inside_in_float32():
    means, sigma = th.tensor([[-30.0], [-1.5], [0.0], [1.5], [30.0]]), th.full((5, 1), 0.02)
    for actions in (th.full((5, 1), -1.0), th.zeros(5, 1), th.ones(5, 1)):
        assert TruncatedNormal(means, sigma).antithetic(actions).abs().max() <= 1


def test_pairs_cancel_around_the_mean_inside_the_box():
    uniforms = antithetic_uniforms(th.rand(50, 1, 1, dtype=th.float64, generator=th.Generator().manual_seed(0)))
    proposals = law(0.3, 0.05).sample(uniforms)
    assert abs(proposals.mean() - 0.3) < 1e-9


@pytest.mark.parametrize("sigma", [0.02, 0.15, 0.5, 3.0])
def test_the_mean_has_a_gradient_everywhere(sigma):
    mean = th.linspace(-1 - 3 * sigma, 1 + 3 * sigma, 1_001).requires_grad_()
    (slopes,) = th.autograd.grad(TruncatedNormalMean(sigma)(mean).sum(), mean)
    # the slope of the mean is the variance over that of the normal law
    ends = ((-1 - mean) / sigma).detach().numpy(), ((1 - mean) / sigma).detach().numpy()
    expected = stats.truncnorm.var(*ends)
    np.testing.assert_allclose(slopes.numpy(), expected, atol=5e-3)


def mean_at_one_sigma(mean, sigma):
    return TruncatedNormalMean(sigma.item())(mean)


@pytest.mark.parametrize(
    ("function", "dtype"),
    [(truncated_normal_mean, th.float32), (truncated_normal_mean, th.float64), (mean_at_one_sigma, th.float32)],
)
@pytest.mark.parametrize("sigma", [0.02, 0.15, 0.3, 3.0])
def test_mean_of_the_truncated_normal(function, dtype, sigma):
    means = np.concatenate([np.linspace(-1, 1, 21), 1 + sigma * np.array([2.0, 6.0, 11.0]), -1 - sigma * np.array([3.0, 9.0])])
    expected = [stats.truncnorm.mean((-1 - m) / sigma, (1 - m) / sigma, loc=m, scale=sigma) for m in means]
    given = th.as_tensor(means, dtype=dtype)
    found = function(given, th.tensor(sigma, dtype=dtype))
    # float32 carries 1e-7 of the distance 11 to the wall and of its square, in units of sigma
    assert np.abs(found.double().numpy() - expected).max() < (1e-4 * sigma + 2e-6 if dtype == th.float32 else 1e-7)
    assert th.equal(given, th.as_tensor(means, dtype=dtype))


@pytest.mark.parametrize("function", [truncated_normal_mean, mean_at_one_sigma])
def test_mean_of_the_truncated_normal_is_finite_and_at_the_wall_far_outside(function):
    found = function(th.tensor([-40.0, -4.0, 4.0, 40.0]), th.tensor(0.02))
    th.testing.assert_close(found, th.tensor([-1.0, -1.0, 1.0, 1.0]), atol=0.01, rtol=0.0)


@pytest.mark.parametrize("mean", [-1.5, -0.2, 0.9])
@pytest.mark.parametrize("sigma", [0.1, 2.0])
def test_log_density_of_the_truncated_normal_differs_by_the_documented_constant(mean, sigma):
    actions = th.linspace(-1, 1, 9, dtype=th.float64).reshape(9, 1, 1)
    found = law(mean, sigma).log_density(actions)
    expected = stats.truncnorm.logpdf(actions.flatten(), (-1 - mean) / sigma, (1 - mean) / sigma, loc=mean, scale=sigma)
    np.testing.assert_allclose(found.flatten() - np.log(2 * np.pi) / 2, expected, atol=1e-9)


@pytest.mark.parametrize("mean", [-0.5, 0.5])
@pytest.mark.parametrize("draw", [0.0, 1.0])
def test_uniform_draws_of_zero_and_one_stay_near_the_mean_and_not_at_a_wall(draw, mean):
    # the mirror image of a draw of 0 is 1; a normal draw in float32 lies within 6 sigma
    assert abs(law(mean, 0.02, th.float32).sample(th.full((1, 1, 1), draw)).item() - mean) < 0.02 * 6


@pytest.mark.parametrize("sigma", [0.02, 0.3, 1.5])
def test_a_wall_has_a_partner_wherever_the_mean_is(sigma):
    # rounding may leave less than the mass beyond the far wall, where the inverse CDF has no answer
    means = th.linspace(-1.5, 1.5, 1001).unsqueeze(1)
    partners = TruncatedNormal(means, th.full_like(means, sigma)).antithetic(th.tensor([-1.0, 1.0]).view(2, 1, 1))
    assert partners.abs().max() <= 1
    if sigma > 1:  # both walls are well within reach of the middle
        assert partners[:, 500].flatten().tolist() == pytest.approx([1.0, -1.0], abs=1e-4)


@pytest.mark.parametrize("mean", [-1.0, -0.5, 0.0, 0.999])
def test_the_partner_of_an_action_out_of_reach_stays_near_the_mean(mean):
    # a normal draw in float32 lies within 6 sigma
    partners = law(mean, 0.02, th.float32).antithetic(th.tensor([-1.0, 1.0]).view(2, 1, 1))
    assert (partners - mean).abs().max() < 0.02 * 6


def test_antithetic_proposals_of_a_draw_of_zero_are_on_both_sides_of_the_mean():
    proposals = law(0.0, 0.02, th.float32).sample(antithetic_uniforms(th.zeros(1, 1, 1))).flatten()
    assert proposals.abs().max() < 0.02 * 6
    assert proposals.prod() < 0
