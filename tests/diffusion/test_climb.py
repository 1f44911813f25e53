"""Does a climb end at the best point of its line, and never below its start?"""

import pytest
import torch as th

from sb3_dqs.diffusion.climb import climb


def test_the_best_point_of_the_line_is_taken():
    # uphill along +1 in the first coordinate and -1 in the second; the top of each row is one stride away
    tops = th.tensor([[0.2, -0.2], [0.4, -0.4], [0.8, -0.8]])

    def q_fn(actions):
        return -((actions - tops) ** 2).sum(dim=-1)

    assert th.allclose(climb(q_fn, th.zeros(3, 2), 5), tops)
    # strides of 0.8 and 0.4 alone: 0.2 is as far from the start as from 0.4
    assert th.allclose(climb(q_fn, th.zeros(3, 2), 2)[1:], tops[1:])


@pytest.mark.parametrize("action_dim", [1, 6])
@pytest.mark.parametrize("n_points", [1, 5])
def test_q_never_falls_and_the_box_is_never_left(action_dim, n_points):
    generator = th.Generator().manual_seed(0)
    actions = 2 * th.rand(500, action_dim, generator=generator) - 1
    waves = 10 * th.randn(action_dim, generator=generator)

    def q_fn(a):
        return (waves * a).sin().sum(dim=-1)

    climbed = climb(q_fn, actions, n_points)
    assert (climbed.abs() <= 1).all()
    assert (q_fn(climbed) >= q_fn(actions)).all()
    assert q_fn(climbed).mean() > q_fn(actions).mean() + 0.1
    # linear: the corner is uphill of all, one stride away from most
    to_the_corner = climb(lambda a: a.sum(dim=-1), actions, n_points)
    assert th.allclose(to_the_corner, (actions + 0.8).clamp(max=1.0))


def test_where_q_is_level_actions_stay():
    actions = th.rand(4, 2)
    assert th.equal(climb(lambda a: a.sum(dim=-1) * 0, actions, 5), actions)
