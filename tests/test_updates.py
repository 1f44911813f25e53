"""Is each update the one that its formula says? Rows small enough to compute by hand, and one test for each option."""

import math

import numpy as np
import pytest
import torch as th
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.logger import configure
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from torch import nn

import sb3_dqs.dqs
from sb3_dqs import DQS, PaperDQS
from sb3_dqs.checks import InputError
from sb3_dqs.diffusion.box import BoxDiffusion
from sb3_dqs.diffusion.estimators import Regression
from sb3_dqs.diffusion.refiner import Refiner
from sb3_dqs.dqs import observations_to_go_on_from
from sb3_dqs.envs import MultiGoalEnv
from sb3_dqs.inspection.evaluation import ExactPolicy, q_values_at
from sb3_dqs.policies import DiffusionActor, DiffusionPolicy, fixed_start_noise
from tests.conftest import SMALL, SMALL_PAPER
from tests.inspection.models import linear_critic


def constant_critic(critic, values):
    """Make the ensemble return fixed numbers, whatever observation and action."""
    for q_network, value in zip(critic.q_networks, values, strict=True):
        for parameter in q_network.parameters():
            parameter.data.zero_()
        q_network[-1].bias.data.fill_(value)


def biases(critic):
    return [q_network[-1].bias.item() for q_network in critic.q_networks]


def three_rows(discounts=None):
    return ReplayBufferSamples(
        observations=th.randn(3, 3),
        actions=th.zeros(3, 1),
        next_observations=th.randn(3, 3),
        dones=th.tensor([[0.0], [1.0], [0.0]]),
        rewards=th.tensor([[1.0], [2.0], [3.0]]),
        discounts=discounts,
    )


def snapshot(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def unchanged(module, before):
    return all(th.equal(before[name], value) for name, value in module.state_dict().items())


# Critic


@pytest.mark.parametrize("critic_class", [None, ContinuousCritic], ids=["normalised", "plain"])
@pytest.mark.parametrize(
    ("discounts", "targets"),
    [
        # smallest next Q is 10: reward + gamma * 10 unless terminated
        (None, [1.0 + 9.0, 2.0, 3.0 + 9.0]),
        # n-step rows bring their own discounts
        (th.tensor([[0.5], [0.5], [0.25]]), [1.0 + 5.0, 2.0, 3.0 + 2.5]),
    ],
)
def test_critic_regresses_on_the_smallest_next_q_without_entropy_term(discounts, targets, critic_class):
    kwargs = {"net_arch": [16], **({"critic_class": critic_class} if critic_class else {})}
    # Adam's first step is as long as the learning rate, whatever the gradient
    settings = {**SMALL, "policy_kwargs": kwargs, "gamma": 0.9, "learning_rate": 0.125}

    with_target = DQS("MlpPolicy", "Pendulum-v1", tau=0.5, **settings).learn(1)
    constant_critic(with_target.critic, [0.0, 1.0])
    constant_critic(with_target.critic_target, [20.0, 10.0])
    # current Q is 0 and 1; without target network next Q is the smaller of the same ensemble
    without = DQS("MlpPolicy", "Pendulum-v1", **settings).learn(1)
    constant_critic(without.critic, [10.0, 11.0])

    for model, (first, second) in ((with_target, (0.0, 1.0)), (without, (10.0, 11.0))):
        batch = three_rows(discounts)
        scalars = model._update_critic(batch, batch.next_observations, th.zeros(3, 1))
        # half the sum over the ensemble of mean squared errors
        expected = 0.5 * (np.mean((np.array(targets) - first) ** 2) + np.mean((np.array(targets) - second) ** 2))
        assert scalars["critic_loss"].item() == pytest.approx(expected, rel=1e-5)
        assert scalars["mean_q"].item() == pytest.approx((first + second) / 2)
        towards = np.sign(np.mean(targets) - [first, second])
        assert biases(model.critic) == pytest.approx([first, second] + 0.125 * towards, rel=1e-5)


def test_share_of_actions_at_the_walls_is_counted(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1")
    model.actor.forward = lambda *args, **kwargs: th.tensor([[1.0], [-0.92], [0.88]])
    scalars = model._update(three_rows(), is_actor_update=False)
    assert scalars["wall_share"].item() == pytest.approx(2 / 3)


def test_where_an_episode_ended_the_policy_is_asked_at_the_observation_before():
    batch = three_rows()
    expected = [batch.next_observations[0], batch.observations[1], batch.next_observations[2]]
    assert th.equal(observations_to_go_on_from(batch), th.stack(expected))
    images = {"image": th.arange(24.0).view(3, 2, 2, 2), "vector": th.ones(3, 1)}
    later = {"image": -images["image"], "vector": 2 * images["vector"]}
    chosen = observations_to_go_on_from(batch._replace(observations=images, next_observations=later))
    assert th.equal(chosen["image"], th.stack([later["image"][0], images["image"][1], later["image"][2]]))
    assert chosen["vector"].flatten().tolist() == [2.0, 1.0, 2.0]


def test_actor_update_leaves_the_critic_alone_and_critic_update_the_actor(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0).learn(25)
    batch = model.replay_buffer.sample(16)
    next_observations, next_actions = observations_to_go_on_from(batch), th.rand(16, 1) * 2 - 1
    model.policy.set_training_mode(True)
    for parameter in model.critic.parameters():
        parameter.grad = None

    actor, critic = snapshot(model.actor), snapshot(model.critic)
    model._update_actor(batch, next_observations, next_actions)
    assert unchanged(model.critic, critic)
    assert not unchanged(model.actor, actor)
    assert all(parameter.grad is None for parameter in model.critic.parameters())
    assert model.critic.training

    actor = snapshot(model.actor)
    model._update_critic(batch, next_observations, next_actions)
    assert unchanged(model.actor, actor)
    assert not unchanged(model.critic, critic)


def test_critic_and_actor_have_betas_of_their_own():
    def betas(algorithm, **policy_kwargs):
        model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8], **policy_kwargs})
        return [optimizer.defaults["betas"] for optimizer in (model.critic.optimizer, model.actor.optimizer)]

    assert betas(DQS) == [(0.5, 0.999), (0.9, 0.999)]
    assert betas(PaperDQS) == [(0.9, 0.999), (0.9, 0.999)]
    assert betas(DQS, critic_betas=(0.7, 0.8)) == [(0.7, 0.8), (0.9, 0.999)]
    assert betas(DQS, optimizer_class=th.optim.AdamW) == [(0.5, 0.999), (0.9, 0.999)]
    assert betas(DQS, optimizer_kwargs={"betas": (0.1, 0.2)}) == [(0.1, 0.2), (0.1, 0.2)]
    # an optimizer that has none
    model = DQS("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8], "optimizer_class": th.optim.SGD})
    assert "betas" not in model.critic.optimizer.defaults


@pytest.mark.parametrize("optimizer_kwargs", [{}, {"foreach": True}, {"fused": False}], ids=["default", "foreach", "unfused"])
def test_adam_is_fused_unless_the_user_says_otherwise(optimizer_kwargs):
    model = DQS("MlpPolicy", "Pendulum-v1", policy_kwargs={"net_arch": [8], "optimizer_kwargs": optimizer_kwargs})
    for optimizer in (model.actor.optimizer, model.critic.optimizer):
        assert bool(optimizer.defaults["fused"]) == (not optimizer_kwargs)
        assert bool(optimizer.defaults["foreach"]) == optimizer_kwargs.get("foreach", False)


# Target network


@pytest.mark.parametrize("settings", [(DQS, SMALL), (PaperDQS, SMALL_PAPER)], ids=["ours", "paper"])
def test_target_network_moves_by_tau(settings):
    algorithm, small = settings
    model = algorithm("MlpPolicy", "Pendulum-v1", tau=0.25, learning_rate=0.0, **small).learn(1)
    constant_critic(model.critic, [4.0, 8.0])
    constant_critic(model.critic_target, [0.0, 0.0])
    model._update(three_rows(), is_actor_update=False)
    assert biases(model.critic) == [4.0, 8.0]
    assert biases(model.critic_target) == [1.0, 2.0]
    assert not model.critic_target.training


def test_target_network_takes_the_statistics_of_the_critic_as_they_are():
    model = DQS("MlpPolicy", "Pendulum-v1", tau=0.25, seed=0, **SMALL).learn(40)
    for name, values in model.critic.named_buffers():
        if not name.endswith("steps"):
            assert th.equal(values, model.critic_target.get_buffer(name)), name
            assert not th.equal(values, th.zeros_like(values)), name
    assert not th.equal(model.critic.qf0[-1].weight, model.critic_target.qf0[-1].weight)


def test_target_network_follows_by_tau_whatever_its_layers_are_called():
    # a name that holds that of a statistic, as that of a camera does
    class CameraExtractor(BaseFeaturesExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space, 4)
            self.camera_front, self.running_gear = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, observations):
            return self.camera_front(observations) + self.running_gear(observations)

    kwargs = {"net_arch": [8], "features_extractor_class": CameraExtractor}
    model = DQS("MlpPolicy", "Pendulum-v1", tau=0.25, **{**SMALL, "policy_kwargs": kwargs})
    layers = ("camera_front", "running_gear")
    for name in layers:
        getattr(model.critic.features_extractor, name).weight.data.fill_(4.0)
        getattr(model.critic_target.features_extractor, name).weight.data.fill_(0.0)
    model.policy.update_target(0.25)
    for name in layers:
        assert getattr(model.critic_target.features_extractor, name).weight.unique().tolist() == [1.0], name


def test_tau_of_one_means_no_target_network():
    assert DQS("MlpPolicy", "Pendulum-v1", **SMALL).critic_target is None
    assert PaperDQS("MlpPolicy", "Pendulum-v1", tau=1.0, **SMALL_PAPER).learn(25).critic_target is None


# Averaged critic, which the policy follows


def test_the_averaged_critic_moves_by_policy_tau_and_td_targets_do_not_ask_it():
    # no step of the critic; with the average in the target, the loss would be (4 - 0.5 * 0)^2 / 2 + (8 - 0.5 * 0)^2 / 2 = 40
    settings = {**SMALL, "learning_rate": 0.0, "gamma": 0.5, "policy_tau": 0.25}
    model = DQS("MlpPolicy", "Pendulum-v1", **settings).learn(1)
    constant_critic(model.critic, [4.0, 8.0])
    constant_critic(model.policy.critic_average, [0.0, 0.0])
    batch = three_rows()._replace(rewards=th.zeros(3, 1), dones=th.zeros(3, 1))
    scalars = model._update(batch, is_actor_update=False)
    # (4 - 0.5 * 4)^2 / 2 + (8 - 0.5 * 4)^2 / 2 = 2 + 18
    assert scalars["critic_loss"].item() == pytest.approx(20.0)
    assert biases(model.critic) == [4.0, 8.0]
    assert biases(model.policy.critic_average) == [1.0, 2.0]
    assert not model.policy.critic_average.training


def test_statistics_are_averaged_with_the_weights_that_they_belong_to_and_counts_are_copied():
    model = DQS("MlpPolicy", "Pendulum-v1", policy_tau=0.25, seed=0, **SMALL).learn(40)
    before = snapshot(model.policy.critic_average)
    model.policy.update_average_of_critic(0.25)
    theirs, ours = snapshot(model.critic), snapshot(model.policy.critic_average)
    for name, value in ours.items():
        expected = theirs[name] if name.endswith("steps") else 0.75 * before[name] + 0.25 * theirs[name]
        th.testing.assert_close(value, expected)
    moved = {name.rsplit(".", 1)[1] for name, value in ours.items() if not th.equal(value, before[name])}
    assert {"weight", "scale", "ra_mean", "ra_var"} <= moved


@pytest.mark.parametrize(
    ("setting", "average", "asked", "itself"),
    [("policy_tau", "critic_average", "law_critic", "critic"), ("actor_tau", "actor_average", "deployed_actor", "actor")],
)
def test_at_one_there_is_no_average_and_the_network_itself_is_asked(setting, average, asked, itself):
    for model in (
        DQS("MlpPolicy", "Pendulum-v1", **{setting: 1.0}, **SMALL),
        PaperDQS("MlpPolicy", "Pendulum-v1", **SMALL_PAPER),
    ):
        assert getattr(model.policy, average) is None
        assert getattr(model.policy, asked) is getattr(model, itself)


# Averaged actor, which predict() asks


def shifted_by(distance, actor):
    """All weights moved, so that the actor does something else."""
    with th.no_grad():
        for parameter in actor.parameters():
            parameter += distance
    return actor


def test_the_averaged_actor_moves_by_actor_tau_at_updates_of_the_actor_once_it_has_seen_many():
    model = DQS("MlpPolicy", "Pendulum-v1", actor_tau=0.25, seed=0, **{**SMALL, "learning_rate": 0.0}).learn(1)
    shifted_by(1.0, model.actor)
    model.policy.n_averaged_actors.fill_(1_000)
    before = snapshot(model.policy.actor_average)
    model._update(three_rows(), is_actor_update=False)
    assert all(th.equal(value, before[name]) for name, value in snapshot(model.policy.actor_average).items())
    model._update(three_rows(), is_actor_update=True)
    after = snapshot(model.policy.actor_average)
    for name, _ in model.actor.named_parameters():
        th.testing.assert_close(after[name], before[name] + 0.25)
    assert not model.policy.actor_average.training


def test_the_averaged_actor_starts_as_a_copy_and_forgets_that_at_the_first_update():
    model = DQS("MlpPolicy", "Pendulum-v1", actor_tau=1e-6, seed=0, **{**SMALL, "learning_rate": 0.0}).learn(1)
    before = snapshot(model.actor)
    assert all(th.equal(value, before[name]) for name, value in snapshot(model.policy.actor_average).items())
    shifted_by(1.0, model.actor)
    for distance in (1.0, 8 / 9):  # shares 8 / (1 + 7) and 8 / (2 + 7)
        model._update(three_rows(), is_actor_update=True)
        average = snapshot(model.policy.actor_average)
        for name, parameter in model.actor.named_parameters():
            th.testing.assert_close(average[name], parameter - (1 - distance))
        shifted_by(1.0, model.actor)


def test_predict_asks_the_averaged_actor_and_training_the_actor_itself():
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(40)
    observations, noise = th.ones(50, 3), th.randn(50, model.policy.noise_dim)

    def answers():
        th.manual_seed(0)
        predicted = [model.policy(observations, deterministic=True), model.policy(observations)]
        return predicted, [model.policy(observations, noise=noise), model.actor(observations, noise=noise[:, :3])]

    predicted, of_training = answers()
    shifted_by(0.1, model.actor)
    assert all(th.equal(*pair) for pair in zip(answers()[0], predicted, strict=True))
    assert not any(th.equal(*pair) for pair in zip(answers()[1], of_training, strict=True))
    of_training = answers()[1]
    shifted_by(0.1, model.policy.actor_average)
    assert not any(th.equal(*pair) for pair in zip(answers()[0], predicted, strict=True))
    assert all(th.equal(*pair) for pair in zip(answers()[1], of_training, strict=True))


def test_the_averaged_actor_leaves_the_course_of_training_as_it_is():
    one, other = (DQS("MlpPolicy", "Pendulum-v1", actor_tau=tau, seed=0, **SMALL).learn(40) for tau in (1.0, 0.001))
    theirs = snapshot(other.actor) | snapshot(other.critic)
    assert all(th.equal(value, theirs[name]) for name, value in (snapshot(one.actor) | snapshot(one.critic)).items())


def with_opposite_average(**settings):
    """A trained actor whose critic rises along the action, and whose averaged critic falls."""
    model = DQS("MlpPolicy", "Pendulum-v1", policy_tau=1e-6, temperature=1.0, seed=0, **{**SMALL, **settings}).learn(1)
    linear_critic(model.critic, [20.0])
    linear_critic(model.policy.critic_average, [-20.0])
    return model


def test_deterministic_actions_are_the_best_of_the_candidates_by_the_average():
    model = with_opposite_average()
    candidates = model.actor.fixed_candidates(th.zeros(5, 3))
    assert th.equal(model.policy(th.zeros(5, 3), deterministic=True), candidates.amin(dim=0))
    assert not th.equal(candidates.amin(dim=0), candidates.amax(dim=0))


def test_sampled_actions_are_chosen_by_the_law_of_the_average():
    model = with_opposite_average(n_corrector_proposals=0)
    actions, _ = model.predict(np.zeros((500, 3), np.float32))
    # mean of exp(-20 a) on [-1, 1]: -coth(20) + 1 / 20 = -0.95, where eight untrained draws, of mean 0, do not always get
    assert model.policy.scale_action(actions).mean() < -0.6


def test_actions_of_training_are_corrected_towards_the_law_of_the_average():
    model = with_opposite_average(n_corrector_proposals=8, component_kwargs={"corrector": {"sigmas": [0.5] * 30}})
    with th.no_grad():
        actions = model.policy(th.zeros(500, 3), noise=th.randn(500, model.policy.noise_dim))
    # mean of exp(-20 a) on [-1, 1]: -coth(20) + 1 / 20
    assert actions.mean().item() == pytest.approx(-0.95, abs=0.01)


def test_td_targets_ask_the_critic_for_refined_actions_of_the_actor(monkeypatch):
    model = with_opposite_average()
    seen, refined, values = [], [], sb3_dqs.dqs.transition_values

    def spied(critic, critic_target, observations, actions, next_observations, next_actions):
        seen.append((critic, next_actions))
        return values(critic, critic_target, observations, actions, next_observations, next_actions)

    monkeypatch.setattr(sb3_dqs.dqs, "transition_values", spied)
    refine = model.actor.refiner.refine
    model.actor.refiner.refine = lambda *args: refined.append(refine(*args)) or refined[-1]
    model._update(three_rows(), is_actor_update=False)
    ((critic, asked),) = seen
    assert critic is model.critic
    assert th.equal(asked, refined[0])


def test_the_actor_learns_the_law_of_the_average():
    model = with_opposite_average()
    slopes, regress = [], model.actor.diffusion.regress

    def spied(features, actions, n_on_policy, q_fn, *rest):
        with th.no_grad():
            slopes.append(q_fn(th.ones(1, 3, 1)))
        return regress(features, actions, n_on_policy, q_fn, *rest)

    model.actor.diffusion.regress = spied
    model._update_actor(three_rows(), th.zeros(3, 3), th.zeros(3, 1))
    th.testing.assert_close(slopes, [th.full((1, 3), -20.0)])


def test_pictures_and_distances_ask_the_average():
    model = with_opposite_average()
    with q_values_at(model, np.zeros(3, np.float32)) as q_fn:
        assert q_fn(th.tensor([[[0.5]]])).item() == pytest.approx(-10.0, rel=1e-5)
    actions, _ = ExactPolicy(model).predict(np.zeros((500, 3), np.float32))
    assert model.policy.scale_action(actions).mean() == pytest.approx(-0.95, abs=0.01)


# Actor: when, how fast, and at which points


def test_policy_delay_counts_across_calls():
    model = DQS("MlpPolicy", "Pendulum-v1", policy_delay=3, seed=0, **SMALL).learn(21)
    moved = []
    for _ in range(6):
        before = snapshot(model.actor)
        model.train(gradient_steps=1, batch_size=8)
        moved.append(not unchanged(model.actor, before))
    # one update was done in learn
    assert moved == [False, True, False, False, True, False]


@pytest.mark.parametrize(("algorithm", "small", "n_actor_updates"), [(DQS, SMALL, 2), (PaperDQS, SMALL_PAPER, 6)])
def test_ours_updates_its_actor_at_every_third_update_and_the_published_at_each(
    algorithm, small, n_actor_updates, monkeypatch
):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, **small).learn(20)
    calls = []
    original = model._update_actor
    monkeypatch.setattr(model, "_update_actor", lambda *args: calls.append(args) or original(*args))
    model.train(gradient_steps=6, batch_size=8)
    assert len(calls) == n_actor_updates


@pytest.mark.parametrize(("algorithm", "small", "factor"), [(DQS, SMALL, 2.0), (PaperDQS, SMALL_PAPER, 1.0)])
def test_actor_learns_at_its_multiple_of_the_learning_rate(algorithm, small, factor):
    def rates(**more):
        model = algorithm("MlpPolicy", "Pendulum-v1", learning_rate=lambda remaining: 1e-3 * remaining, **small, **more)
        # one update, half way: the rate is set anew, not multiplied again
        model.learn(25)
        model._current_progress_remaining = 0.5
        model.train(1, 16)
        return [optimizer.param_groups[0]["lr"] for optimizer in (model.critic.optimizer, model.actor.optimizer)]

    assert rates() == pytest.approx([5e-4, factor * 5e-4])
    if algorithm is DQS:
        assert rates(actor_learning_rate_factor=0.5) == pytest.approx([5e-4, 2.5e-4])


def test_a_falling_learning_rate_ends_at_zero_though_the_last_episode_goes_beyond_the_end():
    # episodes of Pendulum have 200 steps, so that updates come after 200 and 400
    settings = {**SMALL, "train_freq": (1, "episode"), "gradient_steps": 1}
    model = DQS("MlpPolicy", "Pendulum-v1", learning_rate=lambda remaining: 1e-3 * remaining, **settings)
    rates = []
    original = model.train
    model.train = lambda *args, **kwargs: (
        original(*args, **kwargs),
        rates.append(model.critic.optimizer.param_groups[0]["lr"]),
    )
    model.learn(250)
    assert rates == pytest.approx([1e-3 * (1 - 200 / 250), 0.0])


def test_a_learning_rate_that_is_negative_half_way_is_named_before_it_acts():
    model = DQS("MlpPolicy", "Pendulum-v1", learning_rate=lambda r: -1e-3 if 0.2 < r < 0.8 else 1e-3, **SMALL)
    with pytest.raises(InputError, match=r"learning_rate must be a finite number >= 0 .*got -0.001; a schedule maps"):
        model.learn(40)
    assert model._n_updates == 0


def recorded_regression(monkeypatch, algorithm, **arguments):
    """The arguments of the first call of regress in training."""
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0, **arguments)
    calls = []
    original = model.actor.diffusion.regress
    monkeypatch.setattr(model.actor.diffusion, "regress", lambda *args: calls.append(args) or original(*args))
    model.learn(24)  # the actor is updated at every third of the updates
    return calls[0], model


@pytest.mark.parametrize(
    ("actor_batch_size", "on_policy_share", "n_points", "n_drawn"),
    # more points than rows are cut to the batch of 16; half by default; a share is rounded up
    [(128, None, 16, 8), (8, None, 8, 4), (8, 0.3, 8, 3), (8, 1, 8, 8), (16, 1e-6, 16, 1)],
)
def test_regression_points_are_actions_of_the_policy_and_of_the_replay_buffer(
    monkeypatch, actor_batch_size, on_policy_share, n_points, n_drawn
):
    kwargs = None if on_policy_share is None else {"diffusion": {"on_policy_share": on_policy_share}}
    settings = {**SMALL, "actor_batch_size": actor_batch_size, "component_kwargs": kwargs}
    (features, actions, n_on_policy, *_), model = recorded_regression(monkeypatch, DQS, **settings)
    assert len(features) == len(actions) == n_points
    assert n_on_policy == n_drawn
    replayed = set(model.replay_buffer.actions[: model.replay_buffer.pos].flatten().tolist())
    assert [action in replayed for action in actions.flatten().tolist()] == [False] * n_drawn + [True] * (n_points - n_drawn)


def test_each_regression_point_has_the_observation_of_its_action(monkeypatch):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(1)
    numbers = th.arange(16.0).unsqueeze(1)
    batch = ReplayBufferSamples(
        observations=numbers.expand(16, 3),
        actions=numbers / 100,
        next_observations=-numbers.expand(16, 3),
        dones=th.zeros(16, 1),
        rewards=th.zeros(16, 1),
    )
    calls, regress = [], model.actor.regress
    monkeypatch.setattr(model.actor, "regress", lambda *args: calls.append(args) or regress(*args))
    model._update_actor(batch, batch.next_observations, -numbers / 100)
    features, actions, n_on_policy, *_ = calls[0]
    th.testing.assert_close(features, 100 * actions.expand(16, 3))
    assert set(features[:n_on_policy, 0].abs().tolist()).isdisjoint(features[n_on_policy:, 0].abs().tolist())


def test_regression_points_come_from_the_whole_batch_of_hindsight_replay(monkeypatch):
    # HerReplayBuffer puts the relabelled transitions last, 4 of 5 by default
    env = BitFlippingEnv(n_bits=3, continuous=True)
    model = DQS("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer, actor_batch_size=4, seed=0, **SMALL).learn(30)
    batch = model.replay_buffer.sample(16)
    numbered = th.arange(16.0).unsqueeze(1).expand_as(batch.actions)
    regress, seen = BoxDiffusion.regress, {"drawn": set(), "replayed": set()}

    def recorded(self, features, actions, n_on_policy, *arguments):
        seen["drawn"] |= set(actions[:n_on_policy, 0].tolist())
        seen["replayed"] |= set(actions[n_on_policy:, 0].tolist())
        return regress(self, features, actions.clamp(-1, 1), n_on_policy, *arguments)

    monkeypatch.setattr(BoxDiffusion, "regress", recorded)
    for _ in range(150):
        # the chance that one of 16 rows is never among 2 of them is below 1e-7
        model._update_actor(batch._replace(actions=numbered), batch.next_observations, numbered)
    assert seen["drawn"] == seen["replayed"] == set(range(16))


def test_published_algorithm_regresses_on_replay_actions_alone(monkeypatch):
    (features, actions, *_), model = recorded_regression(monkeypatch, PaperDQS, **{**SMALL_PAPER, "actor_batch_size": 8})
    assert len(features) == len(actions) == 8
    replayed = set(model.replay_buffer.actions[: model.replay_buffer.pos].flatten().tolist())
    assert all(action in replayed for action in actions.flatten().tolist())


def test_actor_is_regressed_on_the_critic_at_the_temperature(monkeypatch, algorithm):
    # the arguments of both: ..., q_fn, temperature, noise
    (*_, q_fn, temperature, _), model = recorded_regression(
        monkeypatch, algorithm.chosen, temperature=0.375, **{**algorithm.small, "batch_size": 4, "actor_batch_size": 4}
    )
    assert temperature.item() == 0.375
    assert q_fn(th.zeros(7, 4, 1)).shape == (7, 4)
    constant_critic(model.policy.law_critic, [3.0, 2.0])
    assert q_fn(th.zeros(7, 4, 1)).unique().tolist() == [2.0]


class Curious(DiffusionActor):
    """Learns by its refiner alone, and measures something of its own."""

    def regress(self, *args):
        _, of_refiner = super().regress(*args)
        return [Regression(of_refiner.loss, {"curiosity": th.tensor(3.0)})]


class CuriousPolicy(DiffusionPolicy):
    actor_class = Curious


def test_what_an_actor_of_ones_own_measures_is_logged():
    model = DQS(CuriousPolicy, "Pendulum-v1", temperature=0.1, **SMALL)
    model.set_logger(configure(None, []))
    model.learn(30, log_interval=10**9)
    assert model.logger.name_to_value["train/curiosity"] == 3.0
    assert "train/effective_sample_size" not in model.logger.name_to_value
    with pytest.raises(InputError, match="choose a number for temperature"):
        DQS(CuriousPolicy, "Pendulum-v1", **SMALL).learn(30)


# Options of the parts


def test_settings_of_the_diffusion_reach_it():
    rare = {"score_estimator": "value", "sigma_min": 0.1, "sigma_max": 2.0, "sigma_data": 0.3, "guide_widening": 2.5}
    box = DQS(
        "MlpPolicy", "Pendulum-v1", n_score_samples=6, n_diffusion_steps=3, component_kwargs={"diffusion": rare}, **SMALL
    )
    diffusion = box.actor.diffusion
    assert (diffusion.n_score_samples, len(diffusion.sigmas)) == (6, 3)
    assert {name: getattr(diffusion, name) for name in rare} == rare
    paper = PaperDQS("MlpPolicy", "Pendulum-v1", **SMALL).actor.diffusion
    assert (paper.n_score_samples, paper.n_diffusion_steps, paper.squash) == (1000, 500, "tanh")
    assert (paper.process.sigma_min, paper.process.sigma_max, paper.loss_weight_offset) == (1e-5, 1.0, 1e-3)


def test_settings_of_refiner_and_corrector_reach_them_and_are_saved(tmp_path):
    rare = {"refiner": {"relative_sigma": 0.2}, "corrector": {"sigmas": [0.4, 0.1], "guided_share": 0.5}}
    DQS("MlpPolicy", MultiGoalEnv(), n_corrector_proposals=4, component_kwargs=rare, **SMALL).save(tmp_path / "model")
    model = DQS.load(tmp_path / "model")
    # times the half-diagonal of the action box in two dimensions
    assert model.actor.refiner.sigma == pytest.approx(0.2 * math.sqrt(2))
    assert (model.policy.corrector.sigmas, model.policy.corrector.n_guided) == ((0.4, 0.1), 2)


class WideRefiner(Refiner):
    def __init__(self, *args, width=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.width = width


def policy_with(refiner):
    actor = type("ActorOfOnesOwn", (DiffusionActor,), {"refiner_class": refiner})
    return type("PolicyOfOnesOwn", (DiffusionPolicy,), {"actor_class": actor})


def test_a_refiner_of_ones_own_takes_its_settings_and_none_is_refused():
    model = DQS(policy_with(WideRefiner), "Pendulum-v1", component_kwargs={"refiner": {"width": 2.0}}, **SMALL)
    assert model.actor.refiner.width == 2.0
    # what it passes on to ours, too
    model = DQS(policy_with(WideRefiner), MultiGoalEnv(), component_kwargs={"refiner": {"relative_sigma": 0.2}}, **SMALL)
    assert model.actor.refiner.sigma == pytest.approx(0.2 * math.sqrt(2))
    with pytest.raises(ValueError, match="refiner_class of the actor of PolicyOfOnesOwn is None; DQS has a refiner"):
        DQS(policy_with(None), "Pendulum-v1", **SMALL)


def test_published_settings_can_be_overridden():
    rare = {"diffusion": {"sigma_min": 1e-3, "sigma_max": 2.0, "squash": "clip", "loss_weight_offset": 0.5}}
    paper = PaperDQS("MlpPolicy", "Pendulum-v1", component_kwargs=rare, **SMALL_PAPER).actor.diffusion
    assert (paper.process.sigma_min, paper.process.sigma_max) == (1e-3, 2.0)
    assert (paper.squash, paper.loss_weight_offset) == ("clip", 0.5)


def test_start_noise_of_candidates_is_zero_first_and_always_the_same():
    assert th.equal(fixed_start_noise(1, 3), th.zeros(1, 3))
    assert th.equal(fixed_start_noise(33, 3)[:4], fixed_start_noise(4, 3))
    assert fixed_start_noise(4, 3)[1:].abs().min() > 0
