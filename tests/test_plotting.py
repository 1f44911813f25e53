"""Do the pictures show what they say, and does the callback log them without touching the course of training?"""

import re
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dqs import DQS
from sb3_dqs.callbacks import FigureCallback
from sb3_dqs.envs import BanditEnv, MultiGoalEnv
from sb3_dqs.evaluation import roll_out
from sb3_dqs.plotting import denoising_paths, plot_critic, plot_denoising_paths, plot_roll_outs, plot_training_course
from tests.conftest import SMALL, RandomEnv

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def linear_critic(model, slopes):
    """Let every Q network of the model be ``slopes @ action``, whatever the observation."""
    features_dim = model.critic.q_networks[0][0].in_features - len(slopes)
    for q_network in model.critic.q_networks:
        first, last = q_network[0], q_network[-1]
        with th.no_grad():
            for parameter in q_network.parameters():
                parameter.zero_()
            # relu(z) - relu(-z) = z through every layer
            for j, slope in enumerate(slopes):
                first.weight[2 * j, features_dim + j], first.weight[2 * j + 1, features_dim + j] = slope, -slope
            for layer in q_network[2:-1:2]:
                layer.weight.copy_(th.eye(layer.out_features))
            last.weight[0, : 2 * len(slopes)] = th.tensor([1.0, -1.0] * len(slopes))
    return model


def test_critic_picture_in_one_dimension_shows_q_law_and_samples():
    model = linear_critic(DQS("MlpPolicy", BanditEnv(), temperature=2.0, **SMALL), [3.0])
    figure = plot_critic(model, np.zeros(1, np.float32), n_samples=200)
    landscape, law = figure.axes
    actions, q_values = landscape.lines[0].get_data()
    assert np.asarray(q_values) == pytest.approx(3.0 * np.asarray(actions), abs=1e-5)
    # exp(1.5 a) on [-1, 1]: density 1.5 e^1.5 / (e^1.5 - e^-1.5) at the upper wall, over a bin 0.04 wide
    exact, sampled = (patch.get_data().values for patch in law.patches)
    top = (np.exp(1.5) - np.exp(1.5 * 0.96)) / (np.exp(1.5) - np.exp(-1.5)) / 0.04
    assert exact[-1] == pytest.approx(top, rel=1e-3)
    assert sampled.sum() * 0.04 == pytest.approx(1.0)
    assert "temperature 2" in law.get_title()
    assert all(axes.get_ylabel() for axes in figure.axes)


def test_critic_picture_in_two_dimensions_and_on_slices():
    model = linear_critic(DQS("MlpPolicy", MultiGoalEnv(), temperature=1.0, **SMALL), [1.0, 4.0])
    observation = np.zeros(2, np.float32)
    critic, law, samples = plot_critic(model, observation, n_samples=150).axes[:3]
    # rows are the second coordinate, along which Q rises by 8
    image = critic.images[0].get_array()
    assert image[-1, 0] - image[0, 0] == pytest.approx(8 * (1 - 1 / 40), rel=1e-4)
    assert law.images[0].get_array().sum() / 20**2 == pytest.approx(1.0)
    assert len(samples.lines[0].get_xdata()) == 150
    assert re.search(r"total variation 0\.\d\d \(exact draws 0\.\d\d\)", samples.get_title())

    landscape, law = plot_critic(model, observation, dimensions=[1], base_action=np.array([0.5, 0.0])).axes
    actions, q_values = (np.asarray(values) for values in landscape.lines[0].get_data())
    assert q_values == pytest.approx(0.5 + 4 * actions, abs=1e-5)
    assert "on the slice" in law.get_title()
    assert len(law.patches) == 1
    for dimensions in ([0, 0], [2], [0, 1, 1], []):
        with pytest.raises(ValueError, match="from 0 to 1"):
            plot_critic(model, observation, dimensions=dimensions)


def test_critic_picture_of_actions_with_two_axes():
    env = RandomEnv(spaces.Box(-1.0, 1.0, (2,)))
    env.action_space = spaces.Box(-1.0, 1.0, (2, 1))
    model = linear_critic(DQS("MlpPolicy", env, temperature=1.0, **SMALL), [1.0, 4.0])
    observation = np.zeros(2, np.float32)
    image = plot_critic(model, observation).axes[0].images[0].get_array()
    assert image[-1, 0] - image[0, 0] == pytest.approx(8 * (1 - 1 / 40), rel=1e-4)
    # a slice through the predicted action, which has both axes
    landscape = plot_critic(model, observation, dimensions=[1]).axes[0]
    assert np.ptp(landscape.lines[0].get_ydata()) == pytest.approx(4 * np.ptp(landscape.lines[0].get_xdata()), rel=1e-4)


def test_denoising_paths_lead_from_noise_to_the_actions_of_the_policy(settings):
    model = DQS("MlpPolicy", MultiGoalEnv(), seed=0, **settings)
    observation = np.array([1.0, 2.0], np.float32)
    th.manual_seed(7)
    paths = denoising_paths(model, observation, n_paths=5)
    n_steps = settings.get("n_diffusion_steps", 5)
    assert paths.shape == (n_steps + 1, 5, 2)
    th.manual_seed(7)
    actions, _ = model.predict(np.repeat(observation[None], 5, axis=0))
    assert paths[-1] == pytest.approx(actions, abs=1e-6)
    # recording left no trace in the model
    sampler = model.actor.diffusion
    network = sampler.score_network if "diffusion" in settings else sampler.denoiser
    assert not {"condition", "condition_on_levels"} & set(vars(network))
    (axes,) = plot_denoising_paths(model, observation, n_paths=5).axes
    assert len(axes.lines) == 5 + 2
    (axes,) = plot_denoising_paths(model, observation, n_paths=5, dimensions=[1]).axes
    assert axes.get_xlabel() == "network passes done"


def test_pictures_of_dictionary_observations():
    env = RandomEnv(spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}), action_dim=3)
    model = DQS("MultiInputPolicy", env, **SMALL)
    observation = {"a": np.zeros(2, np.float32), "b": 1}
    # three dimensions: a slice, without samples
    figure = plot_critic(model, observation)
    assert len([axes for axes in figure.axes if axes.images]) == 2
    assert len([axes for axes in figure.axes if axes.get_title()]) == 2
    assert denoising_paths(model, observation, 3).shape == (6, 3, 3)


def test_roll_outs_start_and_end_where_they_did():
    traces = [np.array([[0.0, 0.0], [1.0, 0.5], [4.5, 0.0]])]
    (axes,) = plot_roll_outs(MultiGoalEnv().arena, traces, "Test", units="m").axes
    assert [list(map(float, np.ravel(line.get_xdata()))) for line in axes.lines] == [[0.0, 1.0, 4.5], [0.0], [4.5]]
    assert len(axes.patches) == 4
    assert axes.get_xlabel() == "x (m)"
    assert axes.get_title() == "Test: 1 episodes"


def test_training_course_shows_what_was_logged():
    course = {"steps": [1, 2, 3], "train/temperature": [2.0, 4.0, 3.0], "train/effective_sample_size": [np.nan, 5.0, 7.0]}
    temperature, entropy, sample_size = plot_training_course(course).axes
    assert temperature.get_yscale() == "log"
    # the temperature is known exactly, and not smoothed
    assert [list(line.get_ydata()) for line in temperature.lines] == [[2.0, 4.0, 3.0]]
    assert not entropy.lines
    assert list(sample_size.lines[0].get_ydata())[1:] == pytest.approx([5.0, 5.0 + 2 / 3])


def trained(tmp_path, callback):
    model = DQS("MlpPolicy", "sb3_dqs/MultiGoal-v0", seed=0, tensorboard_log=str(tmp_path), **SMALL)
    return model.learn(90, callback=callback, log_interval=10**9)


def test_callback_logs_all_pictures_and_leaves_training_as_it_is(tmp_path):
    callback = FigureCallback(40, roll_out_env="sb3_dqs/MultiGoal-v0", n_episodes=2, course_every=5)
    model = trained(tmp_path / "with", callback)
    plain = trained(tmp_path / "without", None)
    for name, parameter in model.policy.state_dict().items():
        assert th.equal(parameter, plain.policy.state_dict()[name]), name
    events = event_accumulator.EventAccumulator(str(next((tmp_path / "with").iterdir())))
    events.Reload()
    for name in ("critic", "denoising", "roll_outs", "training"):
        steps = [image.step for image in events.Images(f"figures/{name}")]
        assert steps == [40, 80, 90], "each round at its step, though the logger itself dumps seldom"
    assert callback.course["steps"][-1] == 90
    assert len(callback.course["train/entropy"]) == len(callback.course["steps"])


def test_callback_refuses_what_it_cannot_draw():
    with pytest.raises(ValueError, match=r"every must be an integer >= 1, got 0"):
        FigureCallback(0)
    with pytest.raises(ValueError, match="arena"):
        FigureCallback(1, roll_out_env="Pendulum-v1", n_episodes=1)


def test_roll_outs_of_a_policy_repeat_and_end():
    model = DQS("MlpPolicy", "sb3_dqs/MultiGoal-v0", seed=0, **SMALL)
    envs = [gym.make("sb3_dqs/MultiGoal-v0") for _ in range(3)]
    first, second = (roll_out(model, envs, seed=5, deterministic=True) for _ in range(2))
    assert [episode.total_reward for episode in first] == [episode.total_reward for episode in second]
    start, _ = envs[0].reset(seed=6)
    assert first[1].observations[0].tolist() == start.tolist()
    assert all(1 <= len(episode.observations) - 1 <= 30 for episode in first)
    assert {"goal", "is_success"} <= set(first[0].info)
    started = roll_out(model, envs, seed=5, deterministic=True, options={"start": (4.5, 0.0)})
    assert all(episode.observations[0].tolist() == [4.5, 0.0] for episode in started)
    with pytest.raises(ValueError, match="at least one environment"):
        roll_out(model, [], seed=0, deterministic=True)


def test_roll_outs_normalise_observations_as_in_training():
    vec_env = VecNormalize(DummyVecEnv([lambda: gym.make("sb3_dqs/MultiGoal-v0")]), norm_reward=False)
    model = DQS("MlpPolicy", vec_env, seed=0, **SMALL)
    vec_env.obs_rms.mean, vec_env.obs_rms.var = np.array([2.0, 0.0]), np.array([9.0, 1.0])
    seen = []
    predict = model.predict
    model.predict = lambda observations, **keywords: (seen.append(observations), predict(observations, **keywords))[1]
    (episode,) = roll_out(model, [gym.make("sb3_dqs/MultiGoal-v0")], seed=0, deterministic=True)
    assert seen[0][0] == pytest.approx((episode.observations[0] - [2.0, 0.0]) / [3.0, 1.0], abs=1e-4)


def test_without_matplotlib_the_package_works_and_pictures_say_what_to_install():
    program = (
        "import sys; sys.modules['matplotlib'] = sys.modules['matplotlib.figure'] = None\n"
        "import sb3_dqs.plotting\n"
        "try:\n    sb3_dqs.plotting.plot_training_course({'steps': []})\n"
        "except ImportError as error:\n    assert 'sb3-dqs[plots]' in str(error), error\n"
        "else:\n    raise SystemExit('drawn without matplotlib')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
