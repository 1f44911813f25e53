"""Does DQS keep every promise of a Stable-Baselines3 off-policy algorithm?"""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.envs import BitFlippingEnv, FakeImageEnv, SimpleMultiObsEnv
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, FlattenExtractor
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_dqs import DQS, CnnPolicy, DiffusionPolicy, LogLinearSchedule, MlpPolicy, MultiInputPolicy
from tests.conftest import RandomEnv

SCALAR_KEYS = {"critic_loss", "actor_loss", "mean_q", "wall_share", "effective_sample_size", "temperature", "n_updates"}
MEASURED_KEYS = {"entropy", "policy_entropy", "q_spread", "target_entropy"}


def train_values(model):
    return {name.removeprefix("train/"): value for name, value in model.logger.name_to_value.items() if "train/" in name}


def test_policy_names_and_classes_are_exported():
    assert DQS.policy_aliases == {"MlpPolicy": MlpPolicy, "CnnPolicy": CnnPolicy, "MultiInputPolicy": MultiInputPolicy}
    assert MlpPolicy is DiffusionPolicy


def test_learn_returns_itself_counts_updates_and_logs(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0)
    assert model.learn(60, log_interval=None) is model
    assert model._n_updates == 40
    values = train_values(model)
    expected = SCALAR_KEYS | {"learning_rate"} | (MEASURED_KEYS if algorithm.chosen is DQS else set())
    assert set(values) == expected
    assert all(np.isfinite(value) for value in values.values())
    assert values["n_updates"] == 40
    assert 0 <= values["wall_share"] <= 1
    assert 1 <= values["effective_sample_size"] <= model.actor.diffusion.n_score_samples


def test_learn_raises_no_warning(recwarn, algorithm):
    algorithm("MlpPolicy", "Pendulum-v1").learn(40)
    assert [str(warning.message) for warning in recwarn] == []


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1.0, 1.0, (3,), np.float64),
        spaces.Box(-1e9, 1e9, (2, 2), np.float32),
        spaces.Discrete(4),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(3),
    ],
    ids=str,
)
def test_observation_spaces(space, algorithm):
    model = algorithm("MlpPolicy", RandomEnv(space)).learn(50)
    action, _ = model.predict(space.sample(), deterministic=True)
    assert model.action_space.contains(action)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_fill_asymmetric_bounds(dtype, algorithm):
    # warm-up alone: some updates are enough for a run so short to cool, and for a law of its critic that leans to one side
    model = algorithm("MlpPolicy", RandomEnv(spaces.Box(-1.0, 1.0, (3,)), action_dtype=dtype), seed=0).learn(10)
    assert model._n_updates == 0
    actions, _ = model.predict(np.zeros((500, 3), np.float32))
    assert actions.dtype == dtype
    assert actions.min() >= -2.0
    assert actions.max() <= 3.0
    # the box has its centre at 0.5; an untrained policy spreads around it
    assert abs(actions.mean() - 0.5) < 1.0
    assert actions.std() > 0.1


def test_dict_observations(algorithm):
    model = algorithm("MultiInputPolicy", SimpleMultiObsEnv(random_start=False, discrete_actions=False))
    model.learn(40)
    actions, _ = model.predict(model.env.reset(), deterministic=True)
    assert model.action_space.contains(actions[0])


@pytest.mark.parametrize("share_features_extractor", [True, False])
def test_images(share_features_extractor, algorithm):
    policy_kwargs = {
        "net_arch": [16],
        "features_extractor_kwargs": {"features_dim": 16},
        "share_features_extractor": share_features_extractor,
    }
    env = FakeImageEnv(screen_height=36, screen_width=36, discrete=False)
    model = algorithm("CnnPolicy", env, policy_kwargs=policy_kwargs, buffer_size=100, tau=0.005).learn(30)
    same = model.critic.features_extractor is model.actor.features_extractor
    assert same == share_features_extractor
    assert model.critic_target.features_extractor is not model.critic.features_extractor


def test_hindsight_experience_replay(algorithm):
    env = BitFlippingEnv(n_bits=3, continuous=True)
    model = algorithm("MultiInputPolicy", env, replay_buffer_class=HerReplayBuffer)
    model.learn(60)
    assert model._n_updates == 40


def test_n_step_returns_use_the_discounts_of_the_buffer(algorithm):
    model = algorithm("MlpPolicy", RandomEnv(spaces.Box(-1.0, 1.0, (2,))), n_steps=3, gamma=0.5).learn(60)
    discounts = model.replay_buffer.sample(200).discounts
    # three steps, or the one or two that are left of the episode of ten
    assert set(discounts.flatten().tolist()) == {0.5, 0.25, 0.125}


def test_several_environments_with_as_many_updates_as_steps(algorithm):
    env = make_vec_env("Pendulum-v1", n_envs=3)
    model = algorithm("MlpPolicy", env, gradient_steps=-1, train_freq=2).learn(60)
    # 10 rounds of 6 steps, of which those up to step 20 are warm-up
    assert model._n_updates == 42


def test_episodic_training(algorithm):
    env = RandomEnv(spaces.Box(-1.0, 1.0, (2,)))
    model = algorithm("MlpPolicy", env, train_freq=(1, "episode"), gradient_steps=2).learn(60)
    assert model._n_updates == 8


def test_memory_optimised_buffer_action_noise_and_schedules(algorithm):
    model = algorithm(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=LinearSchedule(1e-3, 1e-4, 1.0),
        action_noise=NormalActionNoise(np.zeros(1), 0.1 * np.ones(1)),
        optimize_memory_usage=True,
        replay_buffer_kwargs={"handle_timeout_termination": False},
    ).learn(60)
    assert model.critic.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4, rel=0.2)


def test_normalised_observations_and_rewards(algorithm):
    env = VecNormalize(make_vec_env("Pendulum-v1", n_envs=2), clip_obs=0.5, clip_reward=0.25)
    model = algorithm("MlpPolicy", env)
    update, batches = model._update, []

    def recorded(batch, is_actor_update):
        batches.append(batch)
        return update(batch, is_actor_update)

    model._update = recorded
    model.learn(60)
    assert max(batch.observations.abs().max().item() for batch in batches) == 0.5
    assert max(batch.next_observations.abs().max().item() for batch in batches) == 0.5
    assert max(batch.rewards.abs().max().item() for batch in batches) == 0.25


def test_callbacks_evaluate_checkpoint_and_stop(tmp_path, algorithm):
    model = algorithm("MlpPolicy", RandomEnv(spaces.Box(-1.0, 1.0, (2,))))
    callbacks = [
        EvalCallback(RandomEnv(spaces.Box(-1.0, 1.0, (2,))), eval_freq=20, log_path=str(tmp_path), verbose=0, warn=False),
        CheckpointCallback(save_freq=25, save_path=str(tmp_path), save_replay_buffer=True),
        StopTrainingOnMaxEpisodes(max_episodes=5),
    ]
    model.learn(1_000, callback=callbacks)
    assert model.num_timesteps == 50
    assert list(np.load(tmp_path / "evaluations.npz")["timesteps"]) == [20, 40]
    loaded = algorithm.load(tmp_path / "rl_model_25_steps.zip")
    # the callback saves at step 25, before the update of that step
    assert loaded._n_updates == 4


def test_another_environment_can_be_set(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1").learn(30)
    model.set_env(gym.make("Pendulum-v1"))
    model.learn(30, reset_num_timesteps=False)
    assert model.num_timesteps == 60


class BatchNormExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space, features_dim=8):
        super().__init__(observation_space, features_dim)
        self.layers = nn.Sequential(nn.Linear(3, features_dim), nn.BatchNorm1d(features_dim), nn.ReLU())

    def forward(self, observations):
        return self.layers(observations)


def test_batch_norm_statistics_move_in_training_only_and_reach_the_target(algorithm):
    policy_kwargs = {"net_arch": [16], "features_extractor_class": BatchNormExtractor}
    model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs, tau=0.005, seed=0).learn(40)
    online = model.critic.features_extractor.layers[1]
    target = model.critic_target.features_extractor.layers[1]
    assert not th.allclose(online.running_mean, th.zeros(8))
    assert th.equal(online.running_mean, target.running_mean)
    deployed = model.policy.deployed_actor
    before = deployed.features_extractor.layers[1].running_mean.clone()
    assert not target.training
    model.predict(np.ones((5, 3), np.float32))
    model.predict(np.ones((5, 3), np.float32), deterministic=True)
    assert th.equal(before, deployed.features_extractor.layers[1].running_mean)
    assert not deployed.features_extractor.training


@pytest.mark.parametrize("settings", [{}, {"policy_tau": 1.0}], ids=["average", "no_average"])
def test_shared_extractor_is_in_training_mode_for_its_gradient_steps(settings, algorithm):
    if settings and algorithm("MlpPolicy", "Pendulum-v1").policy_tau == 1.0:  # it has no such setting, and no average
        settings = {}
    policy_kwargs = {
        "net_arch": [16],
        "share_features_extractor": True,
        "features_extractor_class": BatchNormExtractor,
    }
    model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs, seed=0, **settings).learn(30)
    modes = []
    model.actor.features_extractor.register_forward_hook(
        lambda module, inputs, output: modes.append(module.training) if output.requires_grad else None
    )
    model.learn(15, reset_num_timesteps=False)
    assert modes
    assert all(modes)


def test_shared_extractor_is_trained_by_the_actor_alone(algorithm):
    policy_kwargs = {
        "net_arch": [16],
        "share_features_extractor": True,
        "features_extractor_class": BatchNormExtractor,
    }
    model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs)
    in_critic = {id(p) for group in model.critic.optimizer.param_groups for p in group["params"]}
    shared = {id(p) for p in model.actor.features_extractor.parameters()}
    assert not in_critic & shared
    assert shared <= {id(p) for group in model.actor.optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("net_arch", [[], [12], {"pi": [8, 8], "qf": [10]}])
@pytest.mark.parametrize("n_critics", [1, 3])
def test_network_sizes_and_number_of_critics(net_arch, n_critics, algorithm):
    policy_kwargs = {"net_arch": net_arch, "n_critics": n_critics, "activation_fn": nn.Tanh}
    model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs).learn(30)
    q_values = model.critic(th.zeros(5, 3), th.zeros(5, 1))
    assert [q.shape for q in q_values] == [(5, 1)] * n_critics


def test_custom_optimizer_reaches_actor_and_critic(algorithm):
    policy_kwargs = {
        "net_arch": [16],
        "optimizer_class": th.optim.AdamW,
        "optimizer_kwargs": {"weight_decay": 0.25},
        "features_extractor_class": FlattenExtractor,
    }
    model = algorithm("MlpPolicy", "Pendulum-v1", policy_kwargs=policy_kwargs)
    for optimizer in (model.actor.optimizer, model.critic.optimizer):
        assert isinstance(optimizer, th.optim.AdamW)
        assert optimizer.param_groups[0]["weight_decay"] == 0.25


def test_every_critic_and_actor_parameter_changes_in_training(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0)
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(60)
    for name, value in model.policy.named_parameters():
        assert not th.equal(before[name], value), name


def test_same_seed_gives_the_same_run_and_another_seed_another(algorithm):
    def actions(seed):
        model = algorithm("MlpPolicy", "Pendulum-v1", seed=seed).learn(60)
        return np.concatenate([model.predict(np.ones(3, np.float32))[0] for _ in range(5)])

    first, second, other = actions(3), actions(3), actions(4)
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)
    assert len(set(first.tolist())) > 1, "stochastic prediction must vary"


@pytest.mark.parametrize("deterministic", [True, False])
def test_save_and_load_keep_every_parameter_and_action(tmp_path, deterministic, algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0).learn(50)
    # as in SB3's own test: other numbers in every entry, so that nothing is right by accident
    state = {name: th.rand_like(value.float()).to(value.dtype) for name, value in model.policy.state_dict().items()}
    # but the temperature, which the policy has of the thermostat
    model.policy.load_state_dict({**state, "temperature": model.thermostat.value})
    observations = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    th.manual_seed(0)
    before, _ = model.predict(observations, deterministic=deterministic)
    assert np.isfinite(before).all()

    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = algorithm.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", n_envs=2))
    loaded.load_replay_buffer(tmp_path / "buffer")
    th.manual_seed(0)
    np.testing.assert_array_equal(before, loaded.predict(observations, deterministic=deterministic)[0])
    assert loaded.replay_buffer.pos == model.replay_buffer.pos
    thermostats = zip(model.thermostat.state_dict().values(), loaded.thermostat.state_dict().values(), strict=True)
    assert all(th.equal(*pair) for pair in thermostats)
    assert loaded._n_updates == model._n_updates
    optimizers = [(m.actor.optimizer.state_dict()["state"][0]["exp_avg"]) for m in (model, loaded)]
    assert th.equal(*optimizers)


def test_continuing_with_another_number_of_environments(tmp_path, algorithm):
    algorithm("MlpPolicy", "Pendulum-v1").learn(40).save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=make_vec_env("Pendulum-v1", n_envs=3))
    loaded.learn(60, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 100
    assert loaded._n_updates > 20


def test_loading_without_an_environment_is_enough_to_predict(tmp_path, algorithm):
    algorithm("MlpPolicy", "Pendulum-v1").save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    loaded.predict(np.zeros(3, np.float32), deterministic=True)


def test_a_model_goes_on_with_the_settings_that_it_is_loaded_with(tmp_path, algorithm):
    env = RandomEnv(spaces.Box(-1.0, 1.0, (2,)))
    algorithm("MlpPolicy", env, learning_rate=LinearSchedule(1e-3, 1e-4, 1.0)).learn(40).save(tmp_path / "model")
    replaced = {"learning_rate": 0.25, "lr_schedule": lambda progress: 0.0}
    loaded = algorithm.load(tmp_path / "model", env=env, n_steps=3, gamma=0.5, custom_objects=replaced)
    loaded.learn(40, reset_num_timesteps=False)
    assert loaded._n_updates == 20 + 40
    # the schedule follows from the learning rate
    rate = loaded.critic.optimizer.param_groups[0]["lr"]
    assert rate == 0.25
    assert loaded.actor.optimizer.param_groups[0]["lr"] == loaded.actor_learning_rate_factor * rate
    assert 0.125 in loaded.replay_buffer.sample(200).discounts


@pytest.mark.parametrize("part", ["policy", "actor"])
def test_policy_and_actor_are_saved_alone(tmp_path, part, algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1", seed=0).learn(30)
    module = getattr(model, part)
    module.save(tmp_path / part)
    loaded = type(module).load(tmp_path / part)
    observations = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        module.predict(observations, deterministic=True)[0], loaded.predict(observations, deterministic=True)[0]
    )


def test_temperature_schedule_is_saved_and_followed(tmp_path, algorithm):
    schedule = LogLinearSchedule(10.0, 1.0, 0.5)
    model = algorithm("MlpPolicy", "Pendulum-v1", temperature=schedule)
    assert model.thermostat.value.item() == pytest.approx(10.0)
    model.learn(100)
    assert model.thermostat.value.item() == pytest.approx(1.0)
    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    assert loaded.temperature(0.75) == pytest.approx(10**0.5)
    # it is at the end of its schedule, where it was saved
    assert loaded.thermostat.value.item() == pytest.approx(1.0)


def test_deterministic_policy_can_be_exported(algorithm):
    model = algorithm("MlpPolicy", "Pendulum-v1")

    class Deterministic(nn.Module):
        def __init__(self, policy):
            super().__init__()
            self.policy = policy

        def forward(self, observations):
            return self.policy(observations, deterministic=True)

    model.policy.set_training_mode(False)
    batch = th.export.Dim("batch", min=1, max=1_024)
    exported = th.export.export(Deterministic(model.policy), (th.zeros(4, 3),), dynamic_shapes=({0: batch},))
    observations = th.randn(6, 3)
    th.testing.assert_close(exported.module()(observations), model.policy(observations, deterministic=True))


def test_parallel_environments_of_one_process_match_the_documented_types(algorithm):
    env = DummyVecEnv([lambda: gym.make("Pendulum-v1") for _ in range(2)])
    actions, _ = algorithm("MlpPolicy", env).predict(env.reset())
    assert actions.shape == (2, 1)


class ContextualBandit(gym.Env):
    """Episodes of one step with reward -10 (a - c / 2)^2 in context c; the last observation has nothing to do with it."""

    observation_space = spaces.Box(-10.0, 10.0, (1,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        # three draws for one: SB3 seeds the warm-up actions as the environment, and one each would make both equal
        self.context = self.np_random.uniform(-1.0, 1.0, 3)[2:].astype(np.float32)
        return self.context, {}

    def step(self, action):
        reward = -10.0 * float(action[0] - self.context[0] / 2) ** 2
        return np.full(1, 8.0, np.float32), reward, True, False, {}


@pytest.mark.slow
def test_episodes_of_one_step_have_the_law_of_their_reward_whatever_the_last_observation_is():
    settings = {"policy_kwargs": {"net_arch": [32, 32]}, "batch_size": 64, "actor_batch_size": 64, "learning_rate": 2e-3}
    model = DQS("MlpPolicy", ContextualBandit(), learning_starts=1_000, cooling_updates=500, seed=0, **settings)
    # uniform actions to learn from, then updates alone, the last of them at a smaller rate
    model.learn(1_000)
    model.train(1_000, batch_size=64)
    model.learning_rate = 4e-4
    model.train(500, batch_size=64)
    # exp(-10 (a - c / 2)^2 / temperature) is normal, of variance temperature / 20
    exact = (model.thermostat.value.item() / 20) ** 0.5
    contexts = np.repeat(np.linspace(-0.8, 0.8, 9, dtype=np.float32), 2_000)[:, None]
    actions = model.predict(contexts)[0].reshape(9, 2_000)
    std = actions.var(axis=1).mean() ** 0.5
    print(f"\nstd {std:.4f}, of the law {exact:.4f}")
    assert std == pytest.approx(exact, rel=0.2)
    # and the temperature is that of the target: one nat below zero is a normal law of std exp(-1) / sqrt(2 pi e) = 0.089
    assert std == pytest.approx(0.089, rel=0.3)
    np.testing.assert_allclose(actions.mean(axis=1), contexts[::2_000, 0] / 2, atol=0.1)
