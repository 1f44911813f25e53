"""Is what is logged the mean of what happened, and does a figure that is not finite name its update?"""

import math

import pytest
import torch as th

from sb3_dqs.update_log import UpdateLog


def test_each_figure_is_averaged_over_the_updates_that_have_it():
    log = UpdateLog()
    log.add(1, {"critic_loss": th.tensor(1.0)})
    log.add(2, {"critic_loss": th.tensor(3.0), "actor_loss": th.tensor(5.0)})
    log.add(3, {"critic_loss": th.tensor(8.0)})
    log.add(4, {"critic_loss": th.tensor(0.0), "actor_loss": th.tensor(6.0)})
    assert log.means({"temperature": th.tensor(0.25)}) == {"critic_loss": 3.0, "actor_loss": 5.5, "temperature": 0.25}


def test_a_round_without_updates_logs_its_state():
    assert UpdateLog().means({"temperature": th.tensor(0.25)}) == {"temperature": 0.25}


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
def test_first_update_that_is_not_finite_is_named_with_the_temperature_and_a_remedy(bad):
    log = UpdateLog()
    for n_update, value in ((10, 1.0), (12, bad), (14, bad)):
        log.add(n_update, {"actor_loss": th.tensor(value), "critic_loss": th.tensor(1.0)})
    message = r"actor_loss is not finite at update 12, temperature 0\.25\. .*rewards.*learning_rate.*saved"
    with pytest.raises(ValueError, match=message):
        log.means({"temperature": th.tensor(0.25)})


def test_scalars_whose_sum_overflows_are_named_too():
    log = UpdateLog()
    for n_update in (1, 2):
        log.add(n_update, {"critic_loss": th.tensor(3e38)})
    with pytest.raises(ValueError, match="critic_loss is not finite at update 2,"):
        log.means({"temperature": th.tensor(1.0)})


def test_a_state_that_is_not_finite_is_named():
    log = UpdateLog()
    log.add(7, {"critic_loss": th.tensor(1.0)})
    with pytest.raises(ValueError, match="temperature is not finite at update 7, temperature nan"):
        log.means({"temperature": th.tensor(math.nan)})
