"""Do both settings, trained on a known Q, sample its Boltzmann law?"""

import itertools
import math

import numpy as np
import pytest
import torch as th
from scipy import stats
from torch import nn

from sb3_dqs.diffusion import box, estimators
from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.diffusion.paper import PaperDiffusion
from tests import truth


def trained(diffusion, log_density, action_dim, n_updates, n_rows, learning_rate=2e-3):
    """Train on the law of exp(log_density) for a single state; returns the entropies per dimension of the last updates."""
    q_fn = truth.product_q_fn(log_density)
    optimizer = th.optim.Adam(diffusion.parameters(), lr=learning_rate)
    features = th.zeros(n_rows, 1)
    entropies = []
    for update in range(n_updates):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - update / n_updates)
        n_on_policy = n_rows // 2 if isinstance(diffusion, BoxDiffusion) else 0
        with th.no_grad():
            on_policy = diffusion.sample_actions(features[:n_on_policy], th.randn(n_on_policy, action_dim))
        actions = th.cat([on_policy, 2 * th.rand(n_rows - n_on_policy, action_dim) - 1])
        counts = [n_on_policy] if isinstance(diffusion, BoxDiffusion) else []
        regression = diffusion.regress(features, actions, *counts, q_fn, th.tensor(1.0), diffusion.draw_noise(actions))
        optimizer.zero_grad()
        regression.loss.backward()
        optimizer.step()
        if "entropy" in regression.measures and update >= n_updates * 3 // 4:
            entropies.append(regression.measures["entropy"].item())
    return np.array(entropies)


@pytest.mark.parametrize(("log_density", "action_dim"), [(truth.two_peaks, 1), (truth.linear, 2), (truth.two_peaks, 6)])
def test_box_samples_the_law_and_knows_its_entropy_at_the_default_number_of_samples(log_density, action_dim):
    th.manual_seed(0)
    # enough steps that the error left is that of the training
    diffusion = BoxDiffusion(1, action_dim, [64, 64], nn.ReLU, n_diffusion_steps=12, n_score_samples=8)
    entropies = trained(diffusion, log_density, action_dim, n_updates=1_500, n_rows=64)
    exact = truth.smoothed_entropy(log_density, diffusion.sigma_min)
    with th.no_grad():
        samples = diffusion.sample_actions(th.zeros(20_000, 1), th.randn(20_000, action_dim)).numpy()
    edges = np.linspace(-1, 1, 26)
    mass = np.histogram(samples[:, 0], edges)[0] / len(samples)
    density = truth.grid_density(log_density)
    exact_mass = [
        np.trapezoid(density * ((low <= truth.GRID) & (high > truth.GRID)), truth.GRID)
        for low, high in itertools.pairwise(edges)
    ]
    total_variation = 0.5 * np.abs(mass - exact_mass).sum()
    print(
        f"\n{log_density.__name__} d={action_dim}: TV {total_variation:.3f}, entropy {entropies.mean():.3f}, truth {exact:.3f}"
    )
    assert total_variation < 0.10
    # few proposals take the law for narrower than it is, the more so in many dimensions
    assert abs(entropies.mean() - exact) < 0.15
    assert (np.abs(samples) <= 1).all()


def test_paper_samples_a_gaussian_law_on_the_whole_line():
    # before the tanh, the published setting samples exp(Q) on the whole line: mean 0.2 and standard deviation 0.3
    th.manual_seed(0)
    diffusion = PaperDiffusion(1, 1, [64, 64], nn.ReLU, n_diffusion_steps=100, n_score_samples=64, sigma_min=1e-2)
    trained(diffusion, truth.gaussian, 1, n_updates=800, n_rows=64)
    with th.no_grad():
        samples = diffusion.sample_actions(th.zeros(5_000, 1), th.randn(5_000, 1), th.randn(100, 5_000, 1)).atanh()
    print(f"\npaper: mean {samples.mean():.3f} (0.2), sd {samples.std():.3f} (0.3)")
    assert abs(samples.mean() - 0.2) < 0.05
    assert abs(samples.std() - 0.3) < 0.05


def test_paper_without_step_noise_is_the_published_evaluation_mode():
    th.manual_seed(0)
    diffusion = PaperDiffusion(1, 2, [8], nn.ReLU, n_diffusion_steps=10, n_score_samples=2)
    features, start_noise, step_noise = th.zeros(3, 1), th.randn(3, 2), th.randn(10, 3, 2)
    first = diffusion.sample_actions(features, start_noise)
    assert th.equal(first, diffusion.sample_actions(features, start_noise))
    assert th.allclose(first, diffusion.sample_actions(features, start_noise, 0 * step_noise))
    assert not th.equal(first, diffusion.sample_actions(features, start_noise, step_noise))


@pytest.mark.parametrize(("squash", "expected"), [("tanh", math.tanh), ("clip", lambda x: max(-1.0, min(1.0, x)))])
def test_paper_brings_samples_into_the_box_by_tanh_or_clipping(squash, expected):
    diffusion = PaperDiffusion(1, 1, [], nn.ReLU, n_diffusion_steps=4, n_score_samples=2, squash=squash)
    for parameter in diffusion.parameters():
        parameter.data.zero_()
    # a zero score leaves the start noise as it is; sigma(1) = 1 to 1e-10
    action = diffusion.sample_actions(th.zeros(1, 1), th.tensor([[0.6]]))
    assert action.item() == pytest.approx(expected(0.6), abs=1e-6)


@pytest.mark.parametrize("offset", [0.0, 0.5])
def test_loss_of_the_paper_by_hand(offset):
    th.manual_seed(0)
    # a network of zeros, and the score 3 of Q = 3 a at temperature 1, whatever the noise
    diffusion = PaperDiffusion(1, 1, [], nn.ReLU, n_diffusion_steps=4, n_score_samples=4, loss_weight_offset=offset)
    for parameter in diffusion.parameters():
        parameter.data.zero_()
    actions = th.zeros(16, 1)
    noise = diffusion.draw_noise(actions)
    found = diffusion.regress(th.zeros(16, 1), actions, truth.product_q_fn(truth.linear), th.tensor(1.0), noise).loss
    variances = diffusion.process.sigma(noise.times) ** 2
    assert found.item() == pytest.approx((9 * (variances + offset)).mean().item(), rel=1e-4)


def test_loss_of_the_box_by_hand_and_whose_spread_gives_the_entropy(monkeypatch):
    th.manual_seed(0)
    # a network of zeros gives the mean of the uniform law, and the target is 0.25
    diffusion = BoxDiffusion(1, 1, [], nn.ReLU, n_diffusion_steps=4, n_score_samples=8)
    for parameter in diffusion.parameters():
        parameter.data.zero_()
    asked, spreads = [], []

    def posterior(q_fn, noisy_actions, sigma, *arguments):
        asked.append((noisy_actions, sigma))
        return estimators.PosteriorEstimate(th.full_like(noisy_actions, 0.25), th.ones(16), th.arange(16.0).unsqueeze(1))

    def entropy(squared_error, sigma, *arguments):
        spreads.append((squared_error, sigma))
        return th.zeros(())

    monkeypatch.setattr(box, "box_posterior_mean", posterior)
    monkeypatch.setattr(box, "boltzmann_entropy", entropy)
    actions = th.linspace(-1, 1, 16).unsqueeze(1)
    noise, q_fn = diffusion.draw_noise(actions), truth.product_q_fn(truth.linear)
    found = diffusion.regress(th.zeros(16, 1), actions, 5, q_fn, th.tensor(1.0), noise).loss
    (noisy_actions, sigma), (squared_error, its_sigma) = asked[0], spreads[0]
    rows = th.cat([noisy_actions, sigma], dim=1).tolist()
    of_uniform = th.tensor([stats.truncnorm((-1 - x) / s, (1 - x) / s, x, s).mean() for x, s in rows])
    # the preconditioning of EDM with sigma_data 0.5
    c_out = sigma * 0.5 / (sigma**2 + 0.25).sqrt()
    assert found.item() == pytest.approx((((of_uniform.unsqueeze(1) - 0.25) / c_out) ** 2).mean().item(), rel=1e-3)
    assert squared_error.flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0], "of the rows that were drawn from the policy"
    assert th.equal(its_sigma, sigma[:5])


def test_noise_of_the_box_follows_the_laws_that_it_names():
    th.manual_seed(0)
    noise = BoxDiffusion(1, 2, [8], nn.ReLU, n_diffusion_steps=4, n_score_samples=8).draw_noise(th.zeros(20_000, 2))
    # name -> lower and upper end, mean, standard deviation; at 20,000 draws their standard errors are below 0.01
    laws = {
        "level_uniforms": (0.0, 1.0, 0.5, 12**-0.5),
        "noise": (-math.inf, math.inf, 0.0, 1.0),
        "proposal_uniforms": (0.0, 1.0, 0.5, 12**-0.5),
        "kept_uniforms": (0.0, 1.0, 0.5, 12**-0.5),
        "signs": (-1.0, 1.0, 0.0, 1.0),
        "uniform_actions": (-1.0, 1.0, 0.0, 3**-0.5),
    }
    assert set(laws) == set(noise._fields)
    for name, (low, high, mean, std) in laws.items():
        values = getattr(noise, name)
        assert low <= values.min() <= values.max() <= high, name
        assert (values.mean().item(), values.std().item()) == pytest.approx((mean, std), abs=0.03), name


def test_actions_of_the_policy_are_kept_as_proposals_and_those_of_the_replay_buffer_are_not(monkeypatch):
    kept = []

    def recorded(*arguments):
        kept.append(arguments[-1].actions)
        return estimators.box_posterior_mean(*arguments)

    monkeypatch.setattr(box, "box_posterior_mean", recorded)
    diffusion = BoxDiffusion(1, 1, [8], nn.ReLU, n_diffusion_steps=4, n_score_samples=8)
    actions = th.linspace(-1, 1, 16).unsqueeze(1)
    noise = diffusion.draw_noise(actions)
    diffusion.regress(th.zeros(16, 1), actions, 5, truth.product_q_fn(truth.linear), th.tensor(1.0), noise)
    assert th.equal(kept[0], actions[:5])


def test_noise_range_of_the_box_reaches_grid_and_regression(monkeypatch):
    seen = []

    def recorded(q_fn, noisy_actions, sigma, *arguments):
        seen.append(sigma)
        return estimators.box_posterior_mean(q_fn, noisy_actions, sigma, *arguments)

    monkeypatch.setattr(box, "box_posterior_mean", recorded)
    diffusion = BoxDiffusion(1, 1, [8], nn.ReLU, n_diffusion_steps=4, n_score_samples=8, sigma_min=0.1, sigma_max=2.0)
    assert (diffusion.sigmas[0], diffusion.sigmas[-1], len(diffusion.sigmas)) == (2.0, 0.1, 4)
    noise, q_fn = diffusion.draw_noise(th.zeros(64, 1)), truth.product_q_fn(truth.linear)
    diffusion.regress(th.zeros(64, 1), th.zeros(64, 1), 32, q_fn, th.tensor(1.0), noise)
    # 32 strata of ln sigma: the ends are met within one of them
    assert 0.1 <= seen[0].min() < 0.1 * 20 ** (1 / 32)
    assert 2.0 >= seen[0].max() > 2.0 / 20 ** (1 / 32)


def test_same_noise_gives_the_same_regression():
    th.manual_seed(0)
    diffusion = BoxDiffusion(1, 2, [8], nn.ReLU, n_diffusion_steps=4, n_score_samples=8)
    arguments = (th.zeros(16, 1), th.zeros(16, 2), 8, truth.product_q_fn(truth.linear), th.tensor(1.0))
    noise = diffusion.draw_noise(arguments[1])
    first, again = (diffusion.regress(*arguments, noise) for _ in range(2))
    assert first.loss == again.loss
    assert first.measures == again.measures
    assert first.loss != diffusion.regress(*arguments, diffusion.draw_noise(arguments[1])).loss


def test_measured_spread_of_q_is_its_standard_deviation_over_uniform_actions():
    # Q = 3 (a_1 + a_2): variance 2 * 9 / 3 over uniform actions on the box. The policy's own actions lie elsewhere.
    th.manual_seed(0)
    diffusion = BoxDiffusion(1, 2, [8], nn.ReLU, n_diffusion_steps=4, n_score_samples=8)
    actions = th.full((64, 2), 0.8)
    spreads = [
        diffusion.regress(
            th.zeros(64, 1), actions, 32, truth.product_q_fn(truth.linear), th.tensor(1.0), diffusion.draw_noise(actions)
        ).measures["q_spread"]
        for _ in range(400)
    ]
    # 25,600 pairs: the relative standard error of their mean square is below 0.01
    assert th.stack(spreads).square().mean().sqrt().item() == pytest.approx(6**0.5, rel=0.02)


@pytest.mark.parametrize("make", [BoxDiffusion, PaperDiffusion])
def test_callback_sees_what_each_network_pass_is_given(make):
    th.manual_seed(0)
    diffusion = make(1, 2, [8], nn.ReLU, n_diffusion_steps=4, n_score_samples=8)
    start_noise, passes = th.randn(5, 2), []
    with th.no_grad():
        diffusion.sample_actions(th.zeros(5, 1), start_noise, callback=lambda x: passes.append(x.clone()))
    assert [x.shape for x in passes] == [(5, 2)] * 4
    scale = diffusion.sigma_max if make is BoxDiffusion else 1.0
    th.testing.assert_close(passes[0], scale * start_noise)


@pytest.mark.parametrize(("n_steps", "places"), [(2, [0, 1]), (4, [0, 2, 3]), (5, [0, 2, 4]), (8, [0, 2, 4, 6, 7])])
def test_candidates_leave_out_every_other_level_and_end_at_the_last(n_steps, places, monkeypatch):
    diffusion = BoxDiffusion(1, 2, [8], nn.ReLU, n_diffusion_steps=n_steps, n_score_samples=8)
    visited = []

    def at_level(features, n_samples):
        return lambda noisy_actions, sigma: visited.append(sigma) or noisy_actions

    monkeypatch.setattr(diffusion.denoiser, "condition_on_levels", at_level)
    diffusion.sample_candidates(th.zeros(1, 1), th.zeros(3, 1, 2))
    assert visited == [diffusion.sigmas[place] for place in places]
