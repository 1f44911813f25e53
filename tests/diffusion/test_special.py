"""Are operations that are written out for other runtimes what they stand for?"""

import numpy as np
import pytest
import torch as th
from scipy import special, stats

from sb3_dqs.diffusion.proposals import TruncatedNormalMean
from sb3_dqs.diffusion.special import OF_TORCH, WRITTEN_OUT, add_quotient, available_operations, erfcx_by_series, expm1_by_tanh


@pytest.mark.parametrize(("dtype", "tolerance"), [(th.float64, 1e-9), (th.float32, 1e-6)])
def test_series_is_erfcx(dtype, tolerance):
    # below -3, where the square goes into the exponent, float32 carries 1e-7 of the square
    values = th.as_tensor(np.concatenate([np.linspace(-3, 20, 20_001), np.geomspace(20, 1e6, 101)]), dtype=dtype)
    expected = special.erfcx(values.double().numpy())
    assert np.abs(erfcx_by_series(values).double().numpy() / expected - 1).max() < tolerance


def test_series_overflows_where_erfcx_does():
    values = th.tensor([-40.0, -9.2, 1e30])
    th.testing.assert_close(erfcx_by_series(values), th.special.erfcx(values), rtol=1e-4, atol=1e-30)
    assert erfcx_by_series(values)[0] == th.inf


def test_expm1_by_tanh_keeps_what_is_small():
    values = th.as_tensor(-np.concatenate([[0.0], np.geomspace(1e-12, 100, 1_001)]), dtype=th.float32)
    expected = np.expm1(values.double().numpy())
    np.testing.assert_allclose(expm1_by_tanh(values).double().numpy(), expected, rtol=3e-7)


def test_quotient_is_added():
    values, dividend, divisor = th.rand(3, 2, 4) + 1
    th.testing.assert_close(add_quotient(values, dividend, divisor, value=-0.3), values.addcdiv(dividend, divisor, value=-0.3))


@pytest.mark.parametrize("sigma", [0.02, 0.0588, 0.1732, 0.51, 1.5])
def test_mean_of_the_truncated_normal_is_as_exact_as_by_torchs_own(sigma):
    # where the sampler goes, and beyond the walls as far as the law is told apart from the wall
    means = np.linspace(-1 - 12 * sigma, 1 + 12 * sigma, 801).astype(np.float32)
    outer = [(wall - means.astype(np.float64)) / sigma for wall in (-1, 1)]
    expected = stats.truncnorm.mean(*outer, loc=means.astype(np.float64), scale=sigma)
    errors = {
        operations: np.abs(TruncatedNormalMean(sigma)(th.as_tensor(means), operations).numpy() - expected).max()
        for operations in (WRITTEN_OUT, OF_TORCH)
    }
    assert errors[WRITTEN_OUT] < 2 * errors[OF_TORCH] + 1e-6


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
def test_operations_are_written_out_in_traced_and_exported_programs_alone():
    asked = []

    class Asks(th.nn.Module):
        def forward(self, values):
            asked.append(available_operations())
            return values + 1

    Asks()(th.zeros(1))
    assert asked.pop() is OF_TORCH
    th.jit.trace(Asks(), th.zeros(1), check_trace=False)
    assert asked.pop() is WRITTEN_OUT
    th.export.export(Asks(), (th.zeros(1),))
    assert asked.pop() is WRITTEN_OUT
    assert available_operations() is OF_TORCH
