"""Do the regression targets equal their closed forms and quadratures?"""

import math

import numpy as np
import pytest
import torch as th
from scipy import stats

from sb3_dqs.diffusion import estimators
from sb3_dqs.diffusion.estimators import BOX_ESTIMATORS, Guide, Kept, box_posterior_mean, smoothed_score, stein_control_variate
from tests import truth

TARGETS = [truth.gaussian, truth.two_peaks, truth.corner]


def box_estimates(
    log_density, noisy_actions, sigma, n_samples, estimator="stein", temperature=1.0, n_replicates=1, guide=None
):
    """Independent estimates for one noisy action (action_dim,), float64: targets (n_replicates, action_dim) and ESS."""
    generator = th.Generator().manual_seed(0)
    rows = th.as_tensor(noisy_actions, dtype=th.float64).expand(n_replicates, -1)
    sigmas = th.full((n_replicates, 1), sigma, dtype=th.float64)
    uniforms = th.rand((n_samples // 2, *rows.shape), dtype=th.float64, generator=generator)
    if guide is not None:
        guide = Guide(rows * 0 + guide[0], sigmas * 0 + guide[1])
    q_fn = truth.product_q_fn(log_density, temperature)
    return box_posterior_mean(q_fn, rows, sigmas, temperature, uniforms, estimator, guide)


def root_mean_square_error(log_density, action_dim, sigma, n_samples, estimator, n_rows=200):
    """Over noisy actions drawn from the exact noised law, as in training; also for the published gradient form."""
    rng = np.random.default_rng(1)
    generator = th.Generator().manual_seed(1)
    actions = truth.sample(log_density, n_rows, action_dim, rng)
    noisy_actions = actions + sigma * th.randn(actions.shape, dtype=th.float64, generator=generator)
    sigmas = th.full((n_rows, 1), sigma, dtype=th.float64)
    q_fn = truth.product_q_fn(log_density)
    if estimator == "published":
        noise = th.randn((n_samples, *actions.shape), dtype=th.float64, generator=generator)
        estimate = noisy_actions + sigma**2 * smoothed_score(q_fn, noisy_actions, sigmas, 1.0, noise).score
    else:
        uniforms = th.rand((n_samples // 2, *actions.shape), dtype=th.float64, generator=generator)
        estimate = box_posterior_mean(q_fn, noisy_actions, sigmas, 1.0, uniforms, estimator).mean
    exact = truth.posterior_means(log_density, noisy_actions, sigmas)
    return ((estimate - exact) ** 2).mean().sqrt().item()


def test_linear_q_gives_exact_published_score_for_any_noise():
    slope = th.tensor([2.0, -5.0, 0.5], dtype=th.float64)
    noise = th.randn(7, 4, 3, dtype=th.float64, generator=th.Generator().manual_seed(0))
    noisy_actions = th.linspace(-3, 3, 12, dtype=th.float64).reshape(4, 3)
    estimate = smoothed_score(lambda a: a @ slope, noisy_actions, th.full((4, 1), 0.7, dtype=th.float64), 0.25, noise)
    # grad Q / temperature = slope / 0.25
    assert th.allclose(estimate.score, (slope / 0.25).expand(4, 3), rtol=1e-12)


def test_gaussian_q_gives_published_score_of_smoothed_gaussian():
    # exp(Q) = N(0.2, 0.3^2) on the whole line; smoothed by 0.4: score -(x - 0.2) / (0.09 + 0.16)
    noisy_action, sigma, n_replicates = -0.6, 0.4, 40
    noise = th.randn(20_000, n_replicates, 1, dtype=th.float64, generator=th.Generator().manual_seed(0))
    rows = th.full((n_replicates, 1), noisy_action, dtype=th.float64)
    q_fn = truth.product_q_fn(truth.gaussian)
    scores = smoothed_score(q_fn, rows, th.full_like(rows, sigma), 1.0, noise).score
    standard_error = scores.std() / math.sqrt(n_replicates)
    assert abs(scores.mean() - 0.8 / 0.25) < 4 * standard_error


@pytest.mark.parametrize("estimator", BOX_ESTIMATORS)
@pytest.mark.parametrize(("noisy_action", "sigma"), [(0.4, 0.3), (-0.9, 1.0), (1.5, 0.5)])
def test_linear_q_gives_truncated_normal_mean(estimator, noisy_action, sigma):
    # exp(3 a) N(x; a, sigma^2) on the box is N(x + 3 sigma^2, sigma^2), truncated
    centre = noisy_action + 3 * sigma**2
    exact = stats.truncnorm.mean((-1 - centre) / sigma, (1 - centre) / sigma, loc=centre, scale=sigma)
    estimates = box_estimates(truth.linear, [noisy_action], sigma, 5_000, estimator, n_replicates=20).mean
    assert abs(estimates.mean() - exact) < 4 * estimates.std() / math.sqrt(20) + 1e-9


# Many dimensions at large sigma, and a steep law in several, leave too few effective samples without a guide
TOO_FEW_SAMPLES = [(truth.corner, 6, 1.0), (truth.corner, 17, 0.2), (truth.corner, 17, 1.0), (truth.gaussian, 17, 1.0)]


@pytest.mark.parametrize(
    ("log_density", "action_dim", "sigma", "estimator"),
    [
        (log_density, action_dim, sigma, estimator)
        for log_density in TARGETS
        for estimator, action_dim in [*(("stein", n) for n in (1, 2, 6, 17)), ("value", 2), ("gradient", 2)]
        for sigma in (0.2, 1.0)
        if (log_density, action_dim, sigma) not in TOO_FEW_SAMPLES
    ],
)
def test_estimate_is_within_four_standard_errors_of_quadrature(log_density, action_dim, sigma, estimator):
    n_replicates = 20
    rng = np.random.default_rng(0)
    # a noisy action as it comes in training: drawn from the noised law
    action = truth.sample(log_density, 1, action_dim, rng).numpy()[0]
    noisy_actions = action + sigma * rng.standard_normal(action_dim)
    estimate = box_estimates(log_density, noisy_actions, sigma, 100_000 // n_replicates, estimator, 0.7, n_replicates)
    assert estimate.effective_sample_size.sum() > 100
    exact = th.tensor([truth.posterior_mean(log_density, x, sigma) for x in noisy_actions], dtype=th.float64)
    standard_error = estimate.mean.std(dim=0) / math.sqrt(n_replicates)
    # a self-normalised mean is biased by about 1 / ESS of the spread of the target
    bias = 1.0 / estimate.effective_sample_size.mean()
    assert (abs(estimate.mean.mean(dim=0) - exact) < 4 * standard_error + bias).all()


@pytest.mark.parametrize("action_dim", [1, 6])
def test_few_proposals_do_not_pull_the_means_between_two_modes_together(action_dim):
    n_rows, n_replicates, sigma = 32, 500, 1.0
    generator = th.Generator().manual_seed(0)
    actions = truth.sample(truth.two_peaks, n_rows, action_dim, np.random.default_rng(0))
    noisy_actions = actions + sigma * th.randn(actions.shape, dtype=th.float64, generator=generator)
    exact = truth.posterior_means(truth.two_peaks, noisy_actions, th.full((n_rows, 1), sigma))
    rows, sigmas = noisy_actions.repeat(n_replicates, 1), th.full((n_rows * n_replicates, 1), sigma, dtype=th.float64)
    uniforms = th.rand((4, *rows.shape), dtype=th.float64, generator=generator)
    # the spread of the two peaks together is 0.55
    guide = Guide(exact.repeat(n_replicates, 1), 0.67 * sigmas)
    estimates = box_posterior_mean(truth.product_q_fn(truth.two_peaks), rows, sigmas, 1.0, uniforms, "stein", guide).mean
    errors = estimates.reshape(n_replicates, n_rows, action_dim) - exact
    squared_bias = (errors.mean(dim=0) ** 2 - errors.var(dim=0) / n_replicates).mean().item()
    # 8 proposals; with a coefficient fitted on the very proposals it is applied to, the bias is 0.026 and 0.032
    assert squared_bias < 0.012**2


@pytest.mark.parametrize("estimator", BOX_ESTIMATORS)
@pytest.mark.parametrize("guide", [(0.5, 0.3), (-0.5, 0.1), (0.9, 1.0), (0.0, 0.02)], ids=str)
def test_any_guide_right_or_wrong_leaves_the_estimate_consistent(guide, estimator):
    noisy_actions = [0.1, -1.3]
    estimates = box_estimates(truth.two_peaks, noisy_actions, 0.5, 5_000, estimator, n_replicates=20, guide=guide).mean
    exact = th.tensor([truth.posterior_mean(truth.two_peaks, x, 0.5) for x in noisy_actions], dtype=th.float64)
    assert (abs(estimates.mean(dim=0) - exact) < 4 * estimates.std(dim=0) / math.sqrt(20) + 2e-3).all()


@pytest.mark.parametrize(
    ("n_pairs", "guide"),
    [(2, None), (2, (0.6, 0.4)), (3, (0.6, 0.4))],
    ids=["unguided", "guided", "one of three pairs guided"],
)
@pytest.mark.parametrize("log_density", [truth.two_peaks, truth.corner])
def test_a_kept_draw_of_the_law_makes_few_proposals_unbiased(log_density, n_pairs, guide):
    # over draws of the law, their noise and the proposals: mean of (estimate - E[a | x]) f(x) for f = 1 and f = E[a | x]
    n_rows, sigma = 40_000, 0.6
    generator = th.Generator().manual_seed(0)
    actions = truth.sample(log_density, n_rows, 1, np.random.default_rng(0))
    sigmas = th.full((n_rows, 1), sigma, dtype=th.float64)
    noisy_actions = actions + sigmas * th.randn(actions.shape, dtype=th.float64, generator=generator)
    uniforms = th.rand((n_pairs, n_rows, 1), dtype=th.float64, generator=generator)
    guide = guide and Guide(actions * 0 + guide[0], sigmas * 0 + guide[1])
    q_fn, exact = truth.product_q_fn(log_density), truth.denoiser(log_density)(noisy_actions, sigma)

    def z_scores(kept):
        errors = box_posterior_mean(q_fn, noisy_actions, sigmas, 1.0, uniforms, "value", guide, kept).mean - exact
        products = th.cat([errors, errors * exact], dim=1)
        return products.mean(dim=0) / (products.std(dim=0) / n_rows**0.5)

    places = th.rand(n_rows, dtype=th.float64, generator=generator)
    assert z_scores(Kept(actions, places)).abs().max() < 4
    assert z_scores(None).abs().max() > 10


def test_coefficient_of_the_control_variate_by_hand():
    """
    Fold 0 by fold 1: around their means -1, 0, 1 and 0, -1, 1, of covariance 1/3 and variances 2/3, so of slope 1/2 and
    squared correlation 1/4. Fold 1 by fold 0, where all lies on a line of slope 1/2.
    """
    deviations, control_variate = th.tensor([0.0, 1.0, 2.0, 0.0, 1.0, 2.0]), th.tensor([0.0, 2.0, 4.0, 1.0, 0.0, 2.0])
    weights, folds = th.full((6, 1), 1 / 6), th.tensor([0, 0, 0, 1, 1, 1])
    found = estimators._cross_fitted_coefficient(weights, deviations.view(6, 1, 1), control_variate.view(6, 1, 1), folds)
    assert found.flatten().tolist() == pytest.approx([-1 / 8] * 3 + [-1 / 2] * 3)


def test_what_is_kept_counts_in_its_own_rows_alone():
    q_fn = truth.product_q_fn(truth.corner)
    noisy_actions, sigmas = th.zeros(4, 1, dtype=th.float64), th.full((4, 1), 0.1, dtype=th.float64)
    uniforms = th.rand((4, 4, 1), dtype=th.float64, generator=th.Generator().manual_seed(0))
    without = box_posterior_mean(q_fn, noisy_actions, sigmas, 0.01, uniforms)
    # at this temperature all weight is that of the largest action
    kept = Kept(th.ones(2, 1, dtype=th.float64), th.full((2,), 0.5, dtype=th.float64))
    with_two = box_posterior_mean(q_fn, noisy_actions, sigmas, 0.01, uniforms, kept=kept)
    assert with_two.mean[:2].flatten().tolist() == [1.0, 1.0]
    assert th.equal(with_two.mean[2:], without.mean[2:])


def test_good_guide_lowers_the_error_where_q_is_steep_in_many_dimensions():
    # exp(9 a) in 6 dimensions at large noise: uniform proposals hardly meet the corner, where all the mass is
    def steep(actions):
        return 9.0 * actions

    exact = truth.posterior_mean(steep, 0.9, 2.0)
    error = {}
    for guide in (None, (exact, 0.15)):
        estimates = box_estimates(steep, [0.9] * 6, 2.0, 16, "value", n_replicates=500, guide=guide)
        error[guide] = ((estimates.mean - exact) ** 2).mean().sqrt().item()
    print(f"\nRMSE without guide {error[None]:.3f}, with guide {error[exact, 0.15]:.3f}")
    assert error[exact, 0.15] < 0.35 * error[None]


@pytest.mark.parametrize("estimator", BOX_ESTIMATORS)
def test_error_falls_as_one_over_root_of_samples(estimator):
    errors = []
    for n_samples in (64, 1024):
        estimates = box_estimates(truth.two_peaks, [0.1, -0.2], 0.5, n_samples, estimator, n_replicates=400).mean
        exact = th.tensor([truth.posterior_mean(truth.two_peaks, x, 0.5) for x in (0.1, -0.2)], dtype=th.float64)
        errors.append(((estimates - exact) ** 2).mean().sqrt())
    # 16 times the samples: a quarter of the error; 400 replicates of 2 coordinates know it to about 5 %
    assert 3.2 < errors[0] / errors[1] < 5.0


@pytest.mark.parametrize(
    ("log_density", "action_dim", "sigma"),
    [
        (truth.gaussian, 2, 0.2),
        (truth.gaussian, 6, 0.5),
        (truth.gaussian, 17, 0.2),
        (truth.two_peaks, 6, 0.2),
        (truth.linear, 6, 0.5),
        (truth.linear, 17, 0.2),
    ],
)
def test_control_variate_beats_values_alone_and_the_published_form(log_density, action_dim, sigma):
    error = {
        estimator: root_mean_square_error(log_density, action_dim, sigma, 64, estimator)
        for estimator in ("stein", "value", "published")
    }
    print(f"\n{log_density.__name__} d={action_dim} sigma={sigma}: " + ", ".join(f"{k} {v:.3f}" for k, v in error.items()))
    assert error["stein"] < 0.5 * min(error["value"], error["published"])


@pytest.mark.parametrize("n_samples", [2, 4])
def test_control_variate_does_no_harm_with_too_few_proposals_to_fit_its_coefficient(n_samples):
    error = {e: root_mean_square_error(truth.two_peaks, 2, 0.5, n_samples, e) for e in ("stein", "value")}
    # with 4 proposals, a coefficient fitted on the one other pair takes the error from 0.13 to 0.28
    assert error["stein"] < 1.001 * error["value"]


def test_antithetic_pairs_lower_the_error():
    # With independent instead of mirrored uniforms at small sigma: the package completes the first half by mirror images
    paired = box_estimates(truth.linear, [0.1], 0.05, 16, "value", n_replicates=500).mean.std()
    generator = th.Generator().manual_seed(0)
    draws = 0.1 + 0.05 * th.randn(16, 500, dtype=th.float64, generator=generator)
    weights = th.softmax(3 * draws, dim=0)
    independent = (weights * draws).sum(dim=0).std()
    assert paired < 0.5 * independent


def test_constant_q_gives_score_of_smoothed_uniform_law():
    # uniform on [-1, 1] smoothed by 0.3, at 0.9: (pdf(1.9 / 0.3) - pdf(0.1 / 0.3)) / (0.3 (cdf(1.9 / 0.3) - cdf(-0.1 / 0.3)))
    estimates = box_estimates(lambda a: 0 * a, [0.9], 0.3, 10_000, "value", n_replicates=40).mean
    scores = (estimates - 0.9) / 0.3**2
    assert abs(scores.mean() - (-1.995)) < 4 * scores.std() / math.sqrt(40) + 5e-4


@pytest.mark.parametrize("noisy_action", [-1.8, -0.95, 0.0, 0.6, 1.4])
@pytest.mark.parametrize("sigma", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("log_density", [truth.linear, truth.gaussian, truth.corner])
def test_control_variate_has_zero_posterior_mean_on_the_box(log_density, sigma, noisy_action):
    grid = th.as_tensor(truth.GRID).requires_grad_(True)
    log_values = log_density(grid)
    (gradients,) = th.autograd.grad(log_values.sum(), grid)
    actions = grid.detach().reshape(-1, 1, 1)
    phi = stein_control_variate(
        actions,
        th.full((1, 1), noisy_action, dtype=th.float64),
        th.full((1, 1), sigma, dtype=th.float64),
        gradients.reshape(-1, 1, 1),
    )
    exponent = (log_values.detach() - (grid.detach() - noisy_action) ** 2 / (2 * sigma**2)).numpy()
    posterior = truth.normalised(np.exp(exponent - exponent.max()))
    mean_phi = np.trapezoid(posterior * phi.numpy().squeeze(), truth.GRID)
    # trapezoidal rule with step 5e-5 on integrands of size up to 1 / sigma^2 and width down to 1 / 20
    assert abs(mean_phi) < 1e-4 * max(1.0, 1 / sigma**2)


@pytest.mark.parametrize("estimator", BOX_ESTIMATORS)
def test_box_target_ignores_constants_and_common_scale_of_q(estimator):
    noisy_actions = th.tensor([[0.3, -1.2], [2.0, 0.0]], dtype=th.float64)
    sigma = th.tensor([[0.3], [1.0]], dtype=th.float64)
    uniforms = th.rand(8, 2, 2, dtype=th.float64, generator=th.Generator().manual_seed(0))
    q_fn = truth.product_q_fn(truth.two_peaks)

    def target(q, temperature):
        return box_posterior_mean(q, noisy_actions, sigma, temperature, uniforms, estimator).mean

    reference = target(q_fn, 0.5)
    assert th.allclose(target(lambda a: q_fn(a) + 1000.0, 0.5), reference, atol=1e-9)
    assert th.allclose(target(lambda a: 7.0 * q_fn(a), 3.5), reference, atol=1e-9)
    assert not th.allclose(target(q_fn, 1.0), reference, atol=1e-3), "the temperature must matter"


def test_published_target_ignores_constants_and_common_scale_of_q():
    noisy_actions = th.tensor([[0.3, -1.2]], dtype=th.float64)
    sigma = th.tensor([[0.3]], dtype=th.float64)
    noise = th.randn(9, 1, 2, dtype=th.float64, generator=th.Generator().manual_seed(0))
    q_fn = truth.product_q_fn(truth.two_peaks)
    reference = smoothed_score(q_fn, noisy_actions, sigma, 0.5, noise).score
    assert th.allclose(smoothed_score(lambda a: q_fn(a) - 50, noisy_actions, sigma, 0.5, noise).score, reference)
    assert th.allclose(smoothed_score(lambda a: 7 * q_fn(a), noisy_actions, sigma, 3.5, noise).score, reference)


@pytest.mark.parametrize("estimator", BOX_ESTIMATORS)
def test_huge_q_stays_finite_and_inside_the_box_in_float32(estimator):
    noisy_actions = th.linspace(-4, 4, 40).reshape(20, 2)
    sigma = th.logspace(math.log10(0.02), math.log10(3), 20).unsqueeze(1)
    uniforms = th.rand(8, 20, 2, generator=th.Generator().manual_seed(0))
    q_fn = truth.product_q_fn(lambda a: 1e4 * truth.two_peaks(a))
    estimate = box_posterior_mean(q_fn, noisy_actions, sigma, 0.1, uniforms, estimator)
    assert th.isfinite(estimate.mean).all()
    assert (estimate.mean.abs() <= 1).all()
    noise = th.randn(16, 20, 2, generator=th.Generator().manual_seed(0))
    assert th.isfinite(smoothed_score(q_fn, noisy_actions, sigma, 0.1, noise).score).all()


def test_targets_are_detached_and_leave_the_critic_alone():
    weight = th.ones(2, requires_grad=True)
    noisy_actions, sigma = th.zeros(3, 2), th.ones(3, 1)
    for estimator in BOX_ESTIMATORS:
        uniforms = th.rand(4, 3, 2)
        target = box_posterior_mean(lambda a: a @ weight, noisy_actions, sigma, 1.0, uniforms, estimator).mean
        assert not target.requires_grad
    assert not smoothed_score(lambda a: a @ weight, noisy_actions, sigma, 1.0, th.randn(4, 3, 2)).score.requires_grad
    assert weight.grad is None


def test_critic_in_chunks_gives_the_same_target(monkeypatch):
    noise = th.randn(100, 4, 2, dtype=th.float64, generator=th.Generator().manual_seed(0))
    arguments = (truth.product_q_fn(truth.gaussian), noise[0], th.full((4, 1), 0.5, dtype=th.float64), 1.0, noise)
    whole = smoothed_score(*arguments).score
    monkeypatch.setattr(estimators, "MAX_CRITIC_ROWS", 28)
    assert th.allclose(smoothed_score(*arguments).score, whole, rtol=1e-12)


def test_effective_sample_size_counts_equal_weights_fully_and_one_weight_once():
    flat = box_estimates(lambda a: 0 * a, [0.0], 1.0, 32).effective_sample_size
    steep = box_estimates(lambda a: 1e6 * a, [0.0], 1.0, 32).effective_sample_size
    assert flat.item() == pytest.approx(32)
    assert steep.item() == pytest.approx(1)
