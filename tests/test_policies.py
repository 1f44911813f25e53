"""Can what a policy hands out be used? Actions in the box, the best of several where one is asked for, no hidden state."""

import functools
import itertools
import threading

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BaseModel, BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_dqs import DQS, DiffusionPolicy
from sb3_dqs.checks import InputError
from sb3_dqs.diffusion.corrector import Corrector
from sb3_dqs.policies import DiffusionActor
from tests import truth
from tests.conftest import SMALL, RandomEnv

OBSERVATIONS = np.random.default_rng(0).standard_normal((7, 3)).astype(np.float32)


# The deterministic action


def equal_peaks(actions):
    """Peaks at 0.6 and -0.6, both of standard deviation 0.15: the middle of the law is its valley."""
    return th.logaddexp(-((actions - 0.6) ** 2) / (2 * 0.15**2), -((actions + 0.6) ** 2) / (2 * 0.15**2))


class KnownCritic(BaseModel):
    """Q is the log of a known product law: there is nothing to learn."""

    def __init__(self, observation_space, action_space, features_extractor, log_density, **kwargs):
        super().__init__(observation_space, action_space, features_extractor=features_extractor)
        self.log_density = log_density
        self.unused = nn.Parameter(th.zeros(()))

    def forward(self, observations, actions):
        return (self.log_density(actions).sum(dim=-1, keepdim=True),)


def trained_on(log_density, action_dim, n_updates=300):
    """DQS whose actor was trained on a known law, at temperature 1."""
    policy_kwargs = {
        "net_arch": [32, 32],
        "critic_class": KnownCritic,
        "critic_kwargs": {"log_density": log_density},
    }
    env = RandomEnv(spaces.Box(-1.0, 1.0, (1,)), action_dim)
    model = DQS("MlpPolicy", env, temperature=1.0, learning_rate=3e-3, policy_kwargs=policy_kwargs, seed=0)
    observations = th.zeros(64, 1)
    for _ in range(n_updates):
        with th.no_grad():
            next_actions = model.actor(observations)
        actions = 2 * th.rand(64, action_dim) - 1
        batch = ReplayBufferSamples(observations, actions, observations, th.zeros(64, 1), th.zeros(64, 1))
        model._update_actor(batch, observations, next_actions)
    return model


@pytest.mark.parametrize("action_dim", [1, 2])
@pytest.mark.parametrize("law", [truth.gaussian, truth.two_peaks, truth.linear, truth.corner, equal_peaks])
def test_the_deterministic_action_is_at_least_as_good_as_the_median_sample_of_a_known_law(law, action_dim):
    model = trained_on(law, action_dim)
    with th.no_grad():
        chosen = model.policy(th.zeros(1, 1), deterministic=True)
        sampled = model.policy(th.zeros(4_000, 1))
    assert law(chosen).sum() >= law(sampled).sum(dim=1).median()


class EqualPeaks(gym.Env):
    """A bandit whose reward has equal peaks of height 1 at every corner of a box of half-width 0.6."""

    observation_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, action_dim):
        self.action_space = spaces.Box(-1.0, 1.0, (action_dim,), np.float32)
        self.peaks = np.array(list(itertools.product([-0.6, 0.6], repeat=action_dim)))

    def rewards(self, actions):
        distances = np.linalg.norm(np.asarray(actions)[..., None, :] - self.peaks, axis=-1)
        return np.exp(-(distances**2) / (2 * 0.2**2)).sum(axis=-1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), float(self.rewards(action)), True, False, {}


@pytest.mark.slow
@pytest.mark.parametrize("action_dim", [1, 2], ids=["two_peaks", "four_peaks"])
def test_the_deterministic_action_is_at_least_as_good_as_the_median_sample_of_a_learned_law(action_dim):
    env = EqualPeaks(action_dim)
    settings = {"policy_kwargs": {"net_arch": [32, 32]}, "batch_size": 64, "actor_batch_size": 64, "learning_rate": 2e-3}
    model = DQS("MlpPolicy", env, learning_starts=500, cooling_updates=300, seed=0, **settings)
    # uniform actions to learn from, then updates alone
    model.learn(500)
    model.train(900, batch_size=64)
    chosen, _ = model.predict(np.zeros((1, 1), np.float32), deterministic=True)
    sampled, _ = model.predict(np.zeros((2_000, 1), np.float32))

    def q_values(actions):
        with th.no_grad():
            values = model.policy.law_critic(th.zeros(len(actions), 1), th.as_tensor(actions))
        return th.cat(values, dim=1).amin(dim=1).numpy()

    print(f"\nreward {env.rewards(chosen).item():.3f}, median of samples {np.median(env.rewards(sampled)):.3f}")
    assert q_values(chosen) >= np.median(q_values(sampled))
    # the critic is not the reward: where most samples lie on a peak they may be level
    assert env.rewards(chosen) >= np.median(env.rewards(sampled)) - 0.01


def test_the_deterministic_action_is_a_function_of_observation_and_weights(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0).learn(40)
    before, _ = model.predict(OBSERVATIONS, deterministic=True)
    state = th.get_rng_state()
    model.predict(OBSERVATIONS, deterministic=True)
    assert th.equal(state, th.get_rng_state()), "no random numbers may be drawn"
    # whatever happens that leaves the weights alone
    model.predict(OBSERVATIONS[:2])
    model.set_random_seed(1)
    model.learning_starts = 1_000
    model.learn(20, reset_num_timesteps=False)
    model.policy.set_training_mode(True)
    after, _ = model.predict(OBSERVATIONS, deterministic=True)
    assert np.array_equal(before, after)
    alone = np.stack([model.predict(row, deterministic=True)[0] for row in OBSERVATIONS])
    np.testing.assert_allclose(alone, before, atol=1e-4)


@pytest.mark.parametrize("ask", ["policy", "best", "actor"])
def test_actions_have_gradients_by_the_observation(ask, algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0).learn(40)
    act = {
        "policy": model.policy,
        "best": lambda observations: model.policy(observations, deterministic=True),
        "actor": model.policy.actor,
    }[ask]
    observations = th.as_tensor(OBSERVATIONS).requires_grad_()
    (gradients,) = th.autograd.grad(act(observations).sum(), observations)
    assert gradients.isfinite().all()
    assert gradients.abs().max() > 0


class Gentle(DiffusionActor):
    def forward(self, obs, deterministic=False, noise=None):
        return 0.1 * super().forward(obs, deterministic, noise)


class GentlePolicy(DiffusionPolicy):
    actor_class = Gentle


@pytest.mark.parametrize("time", [0.0, 16.0])
def test_all_actions_go_through_the_forward_pass_of_an_actor_of_ones_own(time):
    model = DQS(GentlePolicy, "Pendulum-v1", seed=0, **{**SMALL, "exploration_correlation_time": time}).learn(60)
    taken = model.replay_buffer.actions[model.learning_starts : 60]
    assert 0 < np.abs(taken).max() <= 0.1 + 1e-6, "a tenth of the box"
    for deterministic in (True, False):
        actions = np.stack([model.predict(OBSERVATIONS, deterministic=deterministic)[0] for _ in range(5)])
        assert 0 < np.abs(actions).max() <= 0.2 + 1e-6, "the torque is up to 2"


def test_values_asked_of_the_critic_depend_on_no_other_row_and_teach_it_nothing(tmp_path, algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0)
    observations, actions = th.as_tensor(OBSERVATIONS), th.zeros(len(OBSERVATIONS), 1)

    def check(model):
        before = {name: value.clone() for name, value in model.policy.state_dict().items()}
        with th.no_grad():
            together = th.cat(model.critic(observations, actions), dim=1)
            alone = th.cat([th.cat(model.critic(row[None], actions[:1]), dim=1) for row in observations])
        th.testing.assert_close(together, alone)
        model.predict(OBSERVATIONS)
        assert all(th.equal(value, before[name]) for name, value in model.policy.state_dict().items())

    check(model)
    check(model.learn(60))
    model.save(tmp_path / "model")
    check(algorithm.load(tmp_path / "model"))


def test_candidates_are_ranked_by_the_smallest_q():
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(60)
    model.policy.set_training_mode(False)
    observations = th.as_tensor(OBSERVATIONS)
    with th.no_grad():
        candidates = model.policy.deployed_actor.fixed_candidates(observations)
        q_values = th.stack([th.cat(model.policy.law_critic(observations, c), dim=1).amin(dim=1) for c in candidates])
        best = model.policy(observations, deterministic=True)
    assert candidates.shape == (8, 7, 1)
    assert th.equal(best, candidates[q_values.argmax(dim=0), th.arange(7)])
    assert not th.equal(best, model.policy.deployed_actor(observations, deterministic=True))


def test_actor_alone_predicts_as_a_policy_of_one_candidate():
    model = DQS("MlpPolicy", "Pendulum-v1", n_action_candidates=1, **SMALL).learn(30)
    from_policy, _ = model.policy.predict(OBSERVATIONS, deterministic=True)
    from_actor, _ = model.policy.deployed_actor.predict(OBSERVATIONS, deterministic=True)
    np.testing.assert_allclose(from_policy, from_actor)


# Corrected samples


def on_a_known_law(n_corrector_proposals=0, n_rounds=12, guided_share=0.0, n_action_candidates=1, law=truth.gaussian):
    """
    An untrained actor, which is nearly uniform, in front of a critic that knows the law. By default that has mean 0.2, and a
    standard deviation of 0.3 at temperature 1, 0.15 at 0.25.
    """
    corrector = {"sigmas": [0.5] * n_rounds, "guided_share": guided_share}
    return DQS(
        "MlpPolicy",
        RandomEnv(spaces.Box(-1.0, 1.0, (1,)), 1),
        temperature=0.25,
        n_action_candidates=n_action_candidates,
        n_corrector_proposals=n_corrector_proposals,
        component_kwargs={"corrector": corrector} if n_corrector_proposals else None,
        policy_kwargs={"net_arch": [8], "critic_class": KnownCritic, "critic_kwargs": {"log_density": law}},
        seed=0,
    )


def spread(actions):
    """Mean and standard deviation of actions on the [-1, 1] box."""
    return actions.mean().item(), actions.std().item()


def predicted(model, n_samples=8_000):
    with th.no_grad():
        return model.policy(th.zeros(n_samples, 1))


def explored(model, n_samples=20_000):
    with th.no_grad():
        return model.policy(th.zeros(n_samples, 1), noise=th.randn(n_samples, model.policy.noise_dim))


def test_samples_chosen_among_many_follow_the_law_of_the_critic_where_the_actor_does_not():
    # of 8,000 draws, the standard error of the mean is 0.002, and the choice among 32 is worth that among a few less
    mean, std = spread(predicted(on_a_known_law(n_action_candidates=32)))
    assert (mean, std) == (pytest.approx(0.2, abs=0.02), pytest.approx(0.15, abs=0.02))
    assert spread(predicted(on_a_known_law(n_action_candidates=8)))[1] < 0.2
    assert spread(predicted(on_a_known_law()))[1] > 0.5, "a uniform law has 0.58"


def test_samples_are_chosen_at_the_temperature_of_the_moment(tmp_path):
    model = on_a_known_law(n_action_candidates=32)
    model.temperature = 0.04
    # 0.3 sqrt(0.04)
    assert spread(predicted(model))[1] == pytest.approx(0.06, abs=0.03)
    model.save(tmp_path / "model")
    assert spread(predicted(DQS.load(tmp_path / "model")))[1] == pytest.approx(0.06, abs=0.03)
    assert spread(predicted(DQS.load(tmp_path / "model", temperature=0.25)))[1] == pytest.approx(0.15, abs=0.02)


def test_without_a_corrector_actions_of_training_are_samples_of_the_actor():
    model = on_a_known_law(n_action_candidates=8)
    noise = th.randn(5, model.policy.noise_dim)
    with th.no_grad():
        assert th.equal(model.policy(th.zeros(5, 1), noise=noise), model.actor(th.zeros(5, 1), noise=noise))


def test_corrected_actions_of_training_follow_the_law_of_the_critic_where_the_actor_does_not():
    # of 20,000 draws, the standard error of the mean is 0.001
    assert spread(explored(on_a_known_law(8))) == (pytest.approx(0.2, abs=0.01), pytest.approx(0.15, abs=0.01))
    assert spread(explored(on_a_known_law()))[1] > 0.5, "a uniform law has 0.58"


def test_guided_proposals_serve_training_and_prediction():
    assert spread(explored(on_a_known_law(8, guided_share=0.5))) == (
        pytest.approx(0.2, abs=0.01),
        pytest.approx(0.15, abs=0.01),
    )
    guided = {"corrector": {"guided_share": 1.0}}
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, n_corrector_proposals=8, component_kwargs=guided, **SMALL).learn(60)
    th.manual_seed(0)
    sampled, _ = model.predict(OBSERVATIONS)
    th.manual_seed(0)
    model.policy.corrector.n_guided = 0
    unguided, _ = model.predict(OBSERVATIONS)
    assert not np.array_equal(sampled, unguided)


def test_the_corrector_samples_at_the_temperature_of_the_moment(tmp_path):
    model = on_a_known_law(8)
    model.temperature = 0.04
    # 0.3 sqrt(0.04)
    assert spread(explored(model))[1] == pytest.approx(0.06, abs=0.01)
    model.save(tmp_path / "model")
    assert spread(explored(DQS.load(tmp_path / "model")))[1] == pytest.approx(0.06, abs=0.01)
    model.policy.save(tmp_path / "policy")
    assert DiffusionPolicy.load(tmp_path / "policy").temperature.item() == pytest.approx(0.04)


def test_training_renews_the_temperature_of_the_policy():
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(60)
    assert model.policy.temperature == model.thermostat.value != 1


def uneven_peaks(actions):
    """70 % at 0.6 and 30 % at -0.6, each of standard deviation 0.05: narrower than the spacing of eight draws."""
    right, left = (-((actions - place) ** 2) / (2 * 0.05**2) for place in (0.6, -0.6))
    return th.logaddexp(right + np.log(0.7), left + np.log(0.3))


def weight_and_width(n_corrector_proposals, n_action_candidates):
    """Of the right one of the uneven peaks: its share of 20,000 samples, and root mean square distance from its middle."""
    model = on_a_known_law(n_corrector_proposals, 1, 0.0, n_action_candidates, uneven_peaks)
    model.temperature = 1.0
    actions = predicted(model, 20_000)
    right = actions[actions > 0]
    return len(right) / len(actions), (right - 0.6).square().mean().sqrt().item()


def test_a_sample_gets_its_mode_by_the_choice_and_its_place_there_by_the_corrector():
    # a share of 20,000 draws has a standard error of 0.003
    weight, width = weight_and_width(8, n_action_candidates=32)
    assert weight == pytest.approx(0.7, abs=0.03)
    assert width == pytest.approx(0.05, abs=0.01)
    weight, width = weight_and_width(0, n_action_candidates=8)
    assert weight == pytest.approx(0.7, abs=0.06)
    assert width > 0.07, "by the choice among eight alone"
    weight, _ = weight_and_width(8, n_action_candidates=1)
    assert 0.5 < weight < 0.66, "by the corrector alone, which hardly reaches from one peak to the other"


def test_the_deterministic_action_is_not_corrected():
    model = on_a_known_law(8)
    chosen, _ = model.predict(np.zeros((3, 1), np.float32), deterministic=True)
    model.policy.corrector = None  # and would fail
    again, _ = model.predict(np.zeros((3, 1), np.float32), deterministic=True)
    assert np.array_equal(chosen, again)


# No hidden state


class AsksTwice(DiffusionPolicy):
    """A user's policy that samples twice a step, and gives the first sample to the environment."""

    def forward(self, obs, deterministic=False, noise=None):
        first = super().forward(obs, deterministic, noise)
        if not deterministic:
            self.pairs = [*getattr(self, "pairs", []), (first, super().forward(obs))]
        return first


def test_two_samples_in_a_step_of_training_differ():
    model = DQS(AsksTwice, "Pendulum-v1", seed=0, **SMALL).learn(40)
    pairs = model.policy.pairs
    assert len(pairs) == 20, "every step after the warm-up"
    assert all(not th.equal(first, second) for first, second in pairs)


class AskedMeanwhile(DiffusionPolicy):
    """While it chooses an action, another thread asks it for those of a batch."""

    def forward(self, obs, deterministic=False, noise=None):
        if len(obs) == 1:
            thread = threading.Thread(target=self.answer_a_batch)
            thread.start()
            thread.join()
        return super().forward(obs, deterministic, noise)

    def answer_a_batch(self):
        actions, _ = self.predict(OBSERVATIONS)
        best, _ = self.predict(OBSERVATIONS, deterministic=True)
        self.answers = [*getattr(self, "answers", []), (actions, best)]


def test_another_thread_may_ask_for_another_number_of_actions_while_the_policy_acts():
    model = DQS(AskedMeanwhile, "Pendulum-v1", seed=0, **SMALL).learn(30)
    answers = model.policy.answers
    assert len(answers) == 10, "every step after the warm-up"
    for actions, best in answers:
        assert actions.shape == best.shape == (7, 1)
        assert len(np.unique(actions)) == 7


class AsksItselfMeanwhile(AskedMeanwhile):
    """Explores as by ``predict()``, since it takes no noise."""

    def forward(self, obs, deterministic=False):
        if len(obs) > 1:
            self.asked = {*getattr(self, "asked", set()), "average" if self.deployed_actor is self.actor_average else "actor"}
        return AskedMeanwhile.forward(self, obs, deterministic)


def test_another_thread_gets_the_averaged_actor_while_the_actor_itself_explores():
    model = DQS(AsksItselfMeanwhile, "Pendulum-v1", seed=0, **SMALL).learn(30)
    assert len(model.policy.answers) == 10
    assert model.policy.asked == {"average"}


class AskedWhileItLearns(DQS):
    """Before each update of a round, a thread that controls something asks it for an action."""

    def _update(self, *args, **kwargs):
        thread = threading.Thread(target=self.predict, args=(OBSERVATIONS[:1],), kwargs={"deterministic": True})
        thread.start()
        thread.join()
        return super()._update(*args, **kwargs)


def test_another_thread_may_ask_for_actions_while_the_model_learns():
    asked, alone = (cls("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(40) for cls in (AskedWhileItLearns, DQS))
    for name, value in alone.policy.state_dict().items():
        assert th.equal(asked.policy.state_dict()[name], value), name


class Interrupted(DQS):
    def _update(self, *args, **kwargs):
        super()._update(*args, **kwargs)
        raise KeyboardInterrupt


def test_the_critic_is_in_evaluation_mode_after_a_round_that_was_interrupted():
    model = Interrupted("MlpPolicy", "Pendulum-v1", seed=0, **SMALL)
    with pytest.raises(KeyboardInterrupt):
        model.learn(40)
    assert not any(module.training for module in model.critic.modules())


class AsksForABatch(BaseCallback):
    def _on_step(self):
        actions, _ = self.model.predict(OBSERVATIONS)
        assert len(np.unique(actions)) == 7
        return True


def test_a_callback_may_ask_for_another_number_of_actions_between_steps(algorithm):
    env = DummyVecEnv([lambda: gym.make("Pendulum-v1")] * 2)
    assert algorithm("MlpPolicy", env, seed=0).learn(40, callback=AsksForABatch()).num_timesteps == 40


# Networks of the user's choice


@pytest.mark.parametrize(
    "activation", [nn.ELU, functools.partial(nn.LeakyReLU, 0.2), nn.SiLU, nn.ReLU], ids=["ELU", "LeakyReLU", "SiLU", "ReLU"]
)
def test_activations_in_place_train_as_the_same_activations_do(activation, algorithm):
    def weights(activation_fn):
        policy_kwargs = {"net_arch": [16, 16], "activation_fn": activation_fn}
        model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs, seed=0).learn(40)
        return {name: value for name, value in model.policy.named_parameters()}

    usual, in_place = weights(activation), weights(functools.partial(activation, inplace=True))
    for name, value in usual.items():
        th.testing.assert_close(in_place[name], value, msg=lambda text, name=name: f"{name}: {text}")


def test_the_unit_and_the_origin_of_an_observation_do_not_matter_to_the_actor_once_they_are_known():
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(40)
    normalization, noise = model.actor.normalization, th.randn(7, model.actor.noise_dim)
    scale, shift = th.tensor([1_000.0, 0.125, 2.0]), th.tensor([50.0, -3.0, 0.5])
    observations = th.as_tensor(OBSERVATIONS)
    model.policy.set_training_mode(False)
    with th.no_grad():
        before = model.actor(observations, noise=noise)
        normalization.mean.mul_(scale).add_(shift)
        # the variance is so much larger than the constant that is added to it that the latter does not show
        normalization.variance.mul_(scale**2)
        after = model.actor(scale * observations + shift, noise=noise)
        elsewhere = model.actor(observations, noise=noise)
    th.testing.assert_close(after, before, atol=1e-3, rtol=0.0)
    assert (elsewhere - before).abs().max() > 1e-2


# In range, or an error that names the input


class RoundedBox(RandomEnv):
    """In float32, -2.0 + (-0.8 - -2.0) is above -0.8."""

    def __init__(self):
        super().__init__(spaces.Box(-1.0, 1.0, (3,)))
        self.action_space = spaces.Box(-2.0, np.float32(-0.8), (2,), np.float32)

    def step(self, action):
        assert self.action_space.contains(action)
        return super().step(action)


def at_the_upper_wall(model):
    """Weights with which every action is 1 on [-1, 1]."""
    for actor in (model.actor, model.policy.deployed_actor):
        network = getattr(actor.diffusion, "denoiser", None) or actor.diffusion.score_network
        network.network[-1].bias.data.fill_(1e4)
        # which would move them
        actor.refiner = None
    model.policy.corrector = Corrector(0)
    return model


@pytest.mark.parametrize("part", ["policy", "actor"])
@pytest.mark.parametrize("deterministic", [True, False])
def test_actions_at_a_wall_that_rounding_would_leave_are_in_the_box(part, deterministic, algorithm):
    model = at_the_upper_wall(algorithm("MlpPolicy", RoundedBox()))
    unrounded = BasePolicy.unscale_action(model.policy, np.ones((1, 2), np.float32))
    assert (unrounded > np.float32(-0.8)).all(), "bounds that rounding leaves, else this tests nothing"
    actions, _ = getattr(model, part).predict(OBSERVATIONS, deterministic=deterministic)
    assert np.array_equal(actions, np.full((7, 2), -0.8, np.float32))


def test_actions_taken_in_training_are_in_the_box(algorithm):
    # the environment itself asserts it
    at_the_upper_wall(algorithm("MlpPolicy", RoundedBox(), learning_starts=0, gradient_steps=0)).learn(10)


def test_unscaling_takes_the_walls_to_the_bounds_and_the_middle_to_the_middle(algorithm):
    env = RandomEnv(spaces.Box(-1.0, 1.0, (3,)))
    env.action_space = spaces.Box(np.array([[-2.0, 0.0]], np.float32), np.array([[3.0, 10.0]], np.float32))
    policy = algorithm("MlpPolicy", env).policy
    scaled = np.array([[[-1.0, -1.0]], [[0.0, 0.0]], [[1.0, 1.0]], [[0.5, -0.5]]], np.float32)
    expected = np.array([[[-2.0, 0.0]], [[0.5, 5.0]], [[3.0, 10.0]], [[1.75, 2.5]]])
    np.testing.assert_allclose(policy.unscale_action(scaled), expected, atol=1e-6)
    np.testing.assert_allclose(policy.scale_action(policy.unscale_action(scaled)), scaled, atol=1e-6)


@pytest.mark.parametrize("deterministic", [True, False])
def test_an_observation_that_is_no_number_gives_no_action_but_an_error_that_names_it(deterministic, algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1")
    observations = OBSERVATIONS.copy()
    observations[3, 1] = np.nan
    for part in (model, model.policy, model.actor):
        with pytest.raises(InputError, match=r"(?s)not finite.*nan.*NaN.*observations"):
            part.predict(observations, deterministic=deterministic)
    # and the model is as it was
    assert np.isfinite(model.predict(OBSERVATIONS, deterministic=deterministic)[0]).all()


# With and without a target network


def test_a_target_network_starts_as_the_critic_that_was_saved_without_one(tmp_path, algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", tau=1.0, seed=0).learn(40)
    assert model.critic_target is None
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=model.env, tau=0.005)
    saved, target = model.critic.state_dict(), loaded.critic_target.state_dict()
    assert saved.keys() == target.keys()
    assert all(th.equal(saved[name], target[name]) for name in saved)
    # from here on it follows slowly
    loaded.learn(30, reset_num_timesteps=False)
    online, target = (dict(m.named_parameters()) for m in (loaded.critic, loaded.critic_target))
    moved = [(online[name] - saved[name]).norm() > 2 * (target[name] - saved[name]).norm() > 0 for name in online]
    assert all(moved)


def test_a_target_network_that_was_saved_is_left_out_without_need_and_kept_with_it(tmp_path, algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", tau=0.005, seed=0).learn(60)
    model.save(tmp_path / "model")
    without = algorithm.load(tmp_path / "model", env=model.env, tau=1.0)
    assert without.critic_target is None
    for name, value in model.critic.state_dict().items():
        assert th.equal(without.critic.state_dict()[name], value)
    assert without.learn(30, reset_num_timesteps=False)._n_updates == 70
    again = algorithm.load(tmp_path / "model", tau=0.25)
    pairs = zip(model.critic_target.parameters(), again.critic_target.parameters(), strict=True)
    assert all(th.equal(*pair) for pair in pairs)
    assert not all(th.equal(*pair) for pair in zip(model.critic.parameters(), again.critic_target.parameters(), strict=True))


# With and without an averaged critic


def test_an_averaged_critic_is_kept_left_out_or_starts_as_the_critic_that_was_saved(tmp_path):
    model = DQS("MlpPolicy", "Pendulum-v1", policy_tau=0.25, seed=0, **SMALL).learn(40)
    critic, average = model.critic.state_dict(), model.policy.critic_average.state_dict()
    assert not th.equal(critic["qf0.1.weight"], average["qf0.1.weight"])
    model.save(tmp_path / "with")

    def equal(ours, theirs):
        return ours.keys() == theirs.keys() and all(th.equal(ours[name], theirs[name]) for name in theirs)

    again = DQS.load(tmp_path / "with", policy_tau=0.5)
    assert equal(again.policy.critic_average.state_dict(), average)
    assert equal(again.critic.state_dict(), critic)
    without = DQS.load(tmp_path / "with", policy_tau=1.0)
    assert without.policy.critic_average is None
    without.save(tmp_path / "without")
    fresh = DQS.load(tmp_path / "without", env=model.env, policy_tau=0.25)
    assert equal(fresh.policy.critic_average.state_dict(), critic)
    assert fresh.learn(30, reset_num_timesteps=False)._n_updates == 50


def test_an_averaged_actor_is_kept_left_out_or_starts_as_the_actor_that_was_saved(tmp_path):
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(40)
    actor, average = model.actor.state_dict(), model.policy.actor_average.state_dict()
    model.save(tmp_path / "with")

    def equal(ours, theirs):
        return ours.keys() == theirs.keys() and all(th.equal(ours[name], theirs[name]) for name in theirs)

    assert not equal(actor, average)
    again = DQS.load(tmp_path / "with")
    assert equal(again.policy.actor_average.state_dict(), average)
    assert again.policy.n_averaged_actors == model.policy.n_averaged_actors > 1
    without = DQS.load(tmp_path / "with", actor_tau=1.0)
    assert without.policy.actor_average is None
    without.save(tmp_path / "without")
    fresh = DQS.load(tmp_path / "without", actor_tau=0.1)
    assert equal(fresh.policy.actor_average.state_dict(), actor)
    assert fresh.policy.n_averaged_actors == 0, "it begins anew"


class WithOldWeightNorm(FlattenExtractor):
    """Its weight is computed from others, and torch does not copy what is computed."""

    def __init__(self, observation_space):
        super().__init__(observation_space)
        self.layer = th.nn.utils.weight_norm(nn.Linear(self.features_dim, self.features_dim))

    def forward(self, observations):
        return self.layer(super().forward(observations))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_an_extractor_that_cannot_be_copied_deeply_has_averages_too():
    policy_kwargs = {**SMALL["policy_kwargs"], "features_extractor_class": WithOldWeightNorm}
    model = DQS("MlpPolicy", "Pendulum-v1", **{**SMALL, "policy_kwargs": policy_kwargs}).learn(40)
    ours, theirs = (actor.features_extractor.layer.weight_g for actor in (model.policy.actor_average, model.actor))
    assert not th.equal(ours, theirs)


def test_the_averaged_actor_does_not_move_the_random_numbers_of_what_follows():
    one, other = (DQS("MlpPolicy", "Pendulum-v1", actor_tau=tau, seed=0, **SMALL) for tau in (1.0, 0.1))
    for name, value in one.critic.state_dict().items():
        assert th.equal(value, other.critic.state_dict()[name])


def test_parts_of_the_weights_can_be_loaded():
    model, other = (DQS("MlpPolicy", "Pendulum-v1", seed=seed, **SMALL) for seed in (0, 1))
    state = {name: value for name, value in other.policy.state_dict().items() if name.startswith("critic.")}
    model.policy.load_state_dict(state, strict=False)
    assert th.equal(model.critic.qf0[-1].weight, other.critic.qf0[-1].weight)
    assert not th.equal(next(model.actor.parameters()), next(other.actor.parameters()))


def test_averages_are_no_second_name_of_weights_that_are_assigned():
    model = DQS("MlpPolicy", "Pendulum-v1", **SMALL)
    state = {name: value for name, value in model.policy.state_dict().items() if "average." not in name}
    model.policy.load_state_dict(state, assign=True)
    for average, online in ((model.policy.actor_average, model.actor), (model.policy.critic_average, model.critic)):
        for ours, theirs in zip(average.parameters(), online.parameters(), strict=True):
            assert th.equal(ours, theirs)
            assert ours.data_ptr() != theirs.data_ptr()


def test_the_policy_alone_brings_its_temperature_with_it():
    taken, model = (DQS("MlpPolicy", "Pendulum-v1", seed=seed, cooling_updates=10, **SMALL) for seed in (0, 1))
    taken.learn(60)
    policy = taken.policy.state_dict()
    assert policy["temperature"] < model.policy.temperature / 2
    model.set_parameters({"policy": policy}, exact_match=False)
    assert model.policy.temperature == policy["temperature"]
    # with the thermostat, its own
    model.set_parameters({**taken.get_parameters(), "policy": {**policy, "temperature": th.tensor(99.0)}})
    assert model.policy.temperature == taken.thermostat.value


def test_the_average_starts_anew_only_where_an_actor_is_loaded_without_it():
    model = DQS("MlpPolicy", "Pendulum-v1", seed=0, **SMALL).learn(60)
    n_averaged = model.policy.n_averaged_actors.item()
    assert n_averaged > 0
    state = model.policy.state_dict()
    critics = {name: value for name, value in state.items() if name.startswith("critic")}
    model.set_parameters({"policy": critics}, exact_match=False)
    assert model.policy.n_averaged_actors.item() == n_averaged
    actors = {name: value for name, value in state.items() if name.startswith("actor.")}
    model.set_parameters({"policy": actors}, exact_match=False)
    assert model.policy.n_averaged_actors.item() == 0
    for ours, theirs in zip(model.policy.actor_average.parameters(), model.actor.parameters(), strict=True):
        assert th.equal(ours, theirs)


class Caches(FlattenExtractor):
    """Keeps a tensor from its first call, as positional encodings do."""

    def forward(self, observations):
        features = super().forward(observations)
        if not hasattr(self, "scale"):
            self.scale = features.new_ones(features.shape[-1])
        return features * self.scale


def test_an_extractor_may_keep_a_tensor_of_predict_for_training(algorithm):
    policy_kwargs = {**SMALL["policy_kwargs"], "features_extractor_class": Caches}
    # so that predict() asks what is trained
    settings = {"actor_tau": 1.0} if algorithm.chosen is DQS else {}
    model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs, **settings)
    model.predict(OBSERVATIONS)
    assert model.learn(40)._n_updates == 20


def test_predict_is_in_inference_mode_where_no_module_is_a_users():
    assert DQS("MlpPolicy", "Pendulum-v1", **SMALL).policy.allows_inference_mode
    for extractor, activation_fn in [(Caches, nn.ReLU), (FlattenExtractor, type("Own", (nn.ReLU,), {"__module__": "own"}))]:
        policy_kwargs = {"net_arch": [16], "features_extractor_class": extractor, "activation_fn": activation_fn}
        model = DQS("MlpPolicy", "Pendulum-v1", **{**SMALL, "policy_kwargs": policy_kwargs})
        assert not model.policy.allows_inference_mode
    assert not DQS(Uphill, "Pendulum-v1", **SMALL).policy.allows_inference_mode
    guided = {"corrector": {"guided_share": 0.5}}
    assert not DQS("MlpPolicy", "Pendulum-v1", component_kwargs=guided, **SMALL).policy.allows_inference_mode


class Uphill(DiffusionPolicy):
    """A user's policy that follows a gradient of the critic."""

    def forward(self, obs, deterministic=False):
        with th.enable_grad():
            actions = super().forward(obs, deterministic).requires_grad_()
            (gradient,) = th.autograd.grad(self.critic(obs, actions)[0].sum(), actions)
        return (actions + 0.01 * gradient).detach().clamp(-1, 1)


def test_a_policy_of_ones_own_may_use_gradients():
    assert DQS(Uphill, "Pendulum-v1", **SMALL).learn(40)._n_updates == 20


def test_copies_stay_in_evaluation_mode_when_the_policy_is_put_in_training_mode():
    model = DQS("MlpPolicy", "Pendulum-v1", **{**SMALL, "tau": 0.5})
    policy = model.policy.train()
    assert all(part.training for part in (policy, policy.actor, policy.critic))
    assert not any(copied.training for copied in (policy.critic_target, policy.critic_average, policy.actor_average))
