"""Is each update the one that its formula says? Rows small enough to compute by hand, and one test for each option."""

import numpy as np
import pytest
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from sb3_dqs import DQS
from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.dqs import regression_rows
from sb3_dqs.policies import fixed_start_noise, min_q_fn
from tests.conftest import SMALL, SMALL_PAPER


def constant_critic(critic, values):
    """Make the ensemble return fixed numbers, whatever observation and action."""
    for q_network, value in zip(critic.q_networks, values, strict=True):
        for parameter in q_network.parameters():
            parameter.data.zero_()
        q_network[-1].bias.data.fill_(value)


def three_rows(discounts=None):
    return ReplayBufferSamples(
        observations=th.randn(3, 3),
        actions=th.zeros(3, 1),
        next_observations=th.randn(3, 3),
        dones=th.tensor([[0.0], [1.0], [0.0]]),
        rewards=th.tensor([[1.0], [2.0], [3.0]]),
        discounts=discounts,
    )


@pytest.mark.parametrize(
    ("discounts", "targets"),
    [
        # smallest target Q is 10: reward + gamma * 10 unless terminated
        (None, [1.0 + 9.0, 2.0, 3.0 + 9.0]),
        # n-step rows bring their own discounts
        (th.tensor([[0.5], [0.5], [0.25]]), [1.0 + 5.0, 2.0, 3.0 + 2.5]),
    ],
)
def test_critic_regresses_on_the_smallest_target_q_without_entropy_term(discounts, targets):
    model = DQS("MlpPolicy", "Pendulum-v1", gamma=0.9, **SMALL)
    model.learn(1)
    constant_critic(model.critic, [0.0, 1.0])
    constant_critic(model.critic_target, [20.0, 10.0])
    metrics = model._update_critic(three_rows(discounts), th.zeros(3, 1))
    target = np.array(targets)
    # half the sum over the ensemble of mean squared errors, at current Q 0 and 1
    expected = 0.5 * (np.mean((target - 0.0) ** 2) + np.mean((target - 1.0) ** 2))
    assert metrics["critic_loss"].item() == pytest.approx(expected, rel=1e-5)
    assert metrics["mean_q"].item() == pytest.approx(0.5)


def test_share_of_actions_at_the_walls_is_counted():
    model = DQS("MlpPolicy", "Pendulum-v1", **SMALL)
    metrics = model._update_critic(three_rows(), th.tensor([[1.0], [-0.995], [0.98]]))
    assert metrics["wall_share"].item() == pytest.approx(2 / 3)


def test_actor_update_leaves_the_critic_alone_and_critic_update_the_actor(settings):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **settings).learn(25)
    replay_data = model.replay_buffer.sample(16)
    next_actions = model._sample_next_actions(replay_data)

    def snapshot(module):
        return [parameter.clone() for parameter in module.parameters()]

    def unchanged(module, before):
        return all(th.equal(*pair) for pair in zip(module.parameters(), before, strict=True))

    for parameter in model.critic.parameters():
        parameter.grad = None
    actor, critic = snapshot(model.actor), snapshot(model.critic)
    model._update_actor(replay_data, next_actions)
    assert unchanged(model.critic, critic)
    assert not unchanged(model.actor, actor)
    assert all(parameter.grad is None for parameter in model.critic.parameters())

    actor = snapshot(model.actor)
    model._update_critic(replay_data, next_actions)
    assert unchanged(model.actor, actor)
    assert not unchanged(model.critic, critic)


def test_target_network_moves_by_tau():
    model = DQS("MlpPolicy", "Pendulum-v1", tau=0.25, **SMALL)
    constant_critic(model.critic, [4.0, 8.0])
    constant_critic(model.critic_target, [0.0, 0.0])
    model._update_target_network()
    assert [q_network[-1].bias.item() for q_network in model.critic_target.q_networks] == [1.0, 2.0]


def test_policy_delay_counts_across_calls(settings):
    model = DQS("MlpPolicy", "Pendulum-v1", policy_delay=3, seed=0, **settings).learn(21)
    moved = []
    for _ in range(6):
        before = model.actor.state_dict()
        before = {name: value.clone() for name, value in before.items()}
        model.train(gradient_steps=1, batch_size=8)
        moved.append(any(not th.equal(before[name], value) for name, value in model.actor.state_dict().items()))
    # one update was done in learn
    assert moved == [False, True, False, False, True, False]


@pytest.mark.parametrize(("own_settings", "n_actor_updates"), [(SMALL, 3), (SMALL_PAPER, 6)])
def test_box_updates_its_actor_at_every_second_update_and_paper_at_each(own_settings, n_actor_updates, monkeypatch):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **own_settings).learn(20)
    calls = []
    original = model._update_actor
    monkeypatch.setattr(model, "_update_actor", lambda *args: calls.append(args) or original(*args))
    model.train(gradient_steps=6, batch_size=8)
    assert len(calls) == n_actor_updates


def recorded_regression(monkeypatch, **arguments):
    """The arguments of the first call of regress in training."""
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **arguments)
    calls = []
    original = model.actor.diffusion.regress
    monkeypatch.setattr(model.actor.diffusion, "regress", lambda *args: calls.append(args) or original(*args))
    model.learn(22)
    return calls[0], model


@pytest.mark.parametrize("actor_batch_size", [None, 8])
def test_box_regresses_on_half_policy_and_half_replay_actions(monkeypatch, actor_batch_size):
    (features, actions, n_on_policy, *_), model = recorded_regression(monkeypatch, **SMALL, actor_batch_size=actor_batch_size)
    n_points = actor_batch_size or 16  # the default is cut to the batch
    assert len(features) == len(actions) == n_points
    assert n_on_policy == n_points // 2
    replayed = set(model.replay_buffer.actions[: model.replay_buffer.pos].flatten().tolist())
    in_replay = [action in replayed for action in actions.flatten().tolist()]
    assert not any(in_replay[:n_on_policy])
    assert all(in_replay[n_on_policy:])


def test_terminal_next_observations_become_regression_points_only_where_the_others_are_too_few():
    th.manual_seed(0)
    dones = th.zeros(12, 1)
    dones[:4] = 1.0
    seen_on_policy, seen_replayed = set(), set()
    for _ in range(200):
        on_policy, replayed = (rows.tolist() for rows in regression_rows(dones, 3, 3))
        assert not set(on_policy) & set(replayed)
        seen_on_policy |= set(on_policy)
        seen_replayed |= set(replayed)
    assert seen_on_policy == set(range(4, 12))
    assert seen_replayed == set(range(12))
    on_policy, replayed = regression_rows(dones, 12, 0)
    assert set(on_policy[-4:].tolist()) == {0, 1, 2, 3}
    assert len(replayed) == 0
    on_policy, replayed = regression_rows(th.zeros(12, 1), 5, 7)
    assert {*on_policy.tolist(), *replayed.tolist()} == set(range(12)), "disjoint where no row is terminal"


def test_regression_points_come_from_the_whole_batch_of_hindsight_replay(monkeypatch):
    # HerReplayBuffer puts the relabelled transitions last, 4 of 5 by default
    env = BitFlippingEnv(n_bits=3, continuous=True)
    model = DQS("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, actor_batch_size=4, seed=0, **SMALL).learn(30)
    batch = model.replay_buffer.sample(16)
    numbered = th.arange(16.0).unsqueeze(1).expand_as(batch.actions)
    regress, seen = BoxDiffusion.regress, []

    def recorded(self, features, actions, *arguments):
        seen.extend(actions[:, 0].tolist())
        return regress(self, features, actions.clamp(-1, 1), *arguments)

    monkeypatch.setattr(BoxDiffusion, "regress", recorded)
    for _ in range(100):
        model._update_actor(batch._replace(actions=numbered, dones=th.zeros(16, 1)), numbered)
    assert set(seen) == set(range(16))


def test_paper_regresses_on_replay_actions_alone(monkeypatch):
    (features, actions, n_on_policy, *_), model = recorded_regression(monkeypatch, **SMALL_PAPER)
    assert len(features) == 16
    assert n_on_policy == 0
    replayed = set(model.replay_buffer.actions[: model.replay_buffer.pos].flatten().tolist())
    assert all(action in replayed for action in actions.flatten().tolist())


def test_q_fn_is_the_smallest_q_of_the_ensemble_for_each_observation(settings):
    settings["policy_kwargs"] = {"net_arch": [16, 16], "n_critics": 3}
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **settings)
    observations, actions = th.randn(5, 3), th.rand(7, 5, 1) * 2 - 1
    expected = th.stack([th.cat(model.critic(observations, sample), dim=1).amin(dim=1) for sample in actions])
    th.testing.assert_close(min_q_fn(model.critic, observations)(actions), expected)


def test_named_diffusion_settings_reach_the_diffusion():
    box = DQS("MlpPolicy", "Pendulum-v1", n_score_samples=6, n_diffusion_steps=3, score_estimator="value", **SMALL)
    diffusion = box.actor.diffusion
    assert (diffusion.n_score_samples, len(diffusion.sigmas), diffusion.score_estimator) == (6, 3, "value")
    paper = DQS("MlpPolicy", "Pendulum-v1", diffusion="paper", **SMALL).actor.diffusion
    assert (paper.n_score_samples, paper.n_diffusion_steps, paper.squash) == (1000, 500, "tanh")
    assert (paper.process.sigma_min, paper.process.sigma_max, paper.loss_weight_offset) == (1e-5, 1.0, 1e-3)


def test_published_settings_can_be_overridden():
    kwargs = {"sigma_min": 1e-3, "sigma_max": 2.0, "squash": "clip", "loss_weight_offset": 0.5}
    paper = DQS("MlpPolicy", "Pendulum-v1", diffusion_kwargs=kwargs, **SMALL_PAPER).actor.diffusion
    assert (paper.process.sigma_min, paper.process.sigma_max) == (1e-3, 2.0)
    assert (paper.squash, paper.loss_weight_offset) == ("clip", 0.5)


def test_start_noise_of_candidates_is_zero_first_and_always_the_same():
    assert th.equal(fixed_start_noise(1, 3), th.zeros(1, 3))
    assert th.equal(fixed_start_noise(33, 3)[:4], fixed_start_noise(4, 3))
    assert fixed_start_noise(4, 3)[1:].abs().min() > 0


@pytest.mark.parametrize("optimizer_kwargs", [{}, {"foreach": True}, {"fused": False}], ids=["default", "foreach", "unfused"])
def test_adam_is_fused_unless_the_user_says_otherwise(optimizer_kwargs):
    model = DQS("MlpPolicy", "Pendulum-v1", policy_kwargs={"optimizer_kwargs": optimizer_kwargs})
    for optimizer in (model.actor.optimizer, model.critic.optimizer):
        assert bool(optimizer.defaults["fused"]) == (not optimizer_kwargs)
        assert bool(optimizer.defaults["foreach"]) == optimizer_kwargs.get("foreach", False)


@pytest.mark.parametrize(("settings", "default"), [(SMALL, 3.0), (SMALL_PAPER, 1.0)])
def test_actor_learns_at_its_multiple_of_the_learning_rate(settings, default):
    def rates(**more):
        model = DQS("MlpPolicy", "Pendulum-v1", learning_rate=lambda remaining: 1e-3 * remaining, **settings, **more)
        # one update, half way: the rate is set anew, not multiplied again
        model.learn(25)
        model._current_progress_remaining = 0.5
        model.train(1, 16)
        return [optimizer.param_groups[0]["lr"] for optimizer in (model.critic.optimizer, model.actor.optimizer)]

    assert rates() == pytest.approx([5e-4, default * 5e-4])
    assert rates(actor_learning_rate_factor=0.5) == pytest.approx([5e-4, 2.5e-4])
