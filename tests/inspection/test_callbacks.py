"""Do callbacks log what they say, the same in equal runs, and leave the course of training as it is?"""

import contextlib
import csv
import random

import gymnasium as gym
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.envs.registration import register
from stable_baselines3 import SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dqs import DQS
from sb3_dqs.envs import MultiGoalEnv
from sb3_dqs.envs.arena import Arena
from sb3_dqs.inspection import FigureCallback, MultimodalityCallback, callbacks
from sb3_dqs.inspection.callbacks import drawing_aside, first_observation
from tests.conftest import RandomEnv
from tests.inspection.models import small

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


class Careless(MultiGoalEnv):
    """Draws from the generators that the whole process shares, as SB3's replay buffer does."""

    def step(self, action):
        observation, reward, *rest = super().step(action + 0.1 * np.random.randn(2))
        return observation, reward + random.random(), *rest


DISTANCES = {"total_variation", "total_variation_of_exact_draws", "mmd", "sliced_w2"}

register(id="tests/Careless-v0", entry_point=Careless, max_episode_steps=30)


class OneGoal(MultiGoalEnv):
    """Nothing to choose among."""

    def __init__(self):
        super().__init__()
        self.arena = Arena(self.ARENA_HALF_WIDTH, self.goals[:1], self.GOAL_RADIUS)


class DictArena(MultiGoalEnv):
    """An arena whose observation has a name."""

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Dict({"position": self.observation_space})


register(id="tests/OneGoal-v0", entry_point=OneGoal, disable_env_checker=True)
register(id="tests/DictArena-v0", entry_point=DictArena, disable_env_checker=True)


class Notes(MultimodalityCallback):
    """Keeps what was measured."""

    def _measures(self):
        measures = super()._measures()
        self.notes = [*getattr(self, "notes", []), measures]
        return measures


def measuring(**settings):
    return Notes(40, n_episodes=4, n_observations=3, n_actions=200, **settings)


def trained(algorithm, callbacks, env="sb3_dqs/MultiGoal-v0"):
    model = algorithm("MlpPolicy", env, **small())
    model.set_logger(configure(None, []))
    return model.learn(90, callback=CallbackList(callbacks), log_interval=10**9)


def assert_same_parameters(model, other):
    for name, parameter in model.policy.state_dict().items():
        assert th.equal(parameter, other.policy.state_dict()[name]), name


@pytest.mark.parametrize("algorithm", [DQS, SAC])
def test_measures_leave_training_as_it_is_and_are_equal_in_equal_runs(algorithm):
    env = "tests/Careless-v0"
    first, second = measuring(roll_out_env=env), measuring(roll_out_env=env)
    measured, again = trained(algorithm, [first], env), trained(algorithm, [second], env)
    plain = trained(algorithm, [], env)
    assert_same_parameters(measured, plain)
    assert_same_parameters(again, plain)
    # at 40 and 80 steps, and at the end
    assert len(first.notes) == 3
    assert set(first.notes[-1]) == DISTANCES | {"success", "goals_reached", "goal_entropy"}
    assert 0 <= first.notes[-1]["total_variation"] <= 1
    assert len(first.observations) == 3
    assert first.notes == second.notes
    for env, same in zip(first.envs, second.envs, strict=True):
        np.testing.assert_array_equal(env.unwrapped.trace, same.unwrapped.trace)


def test_episodes_start_where_the_seed_says():
    def first_positions(seed):
        callback = measuring(roll_out_env="sb3_dqs/MultiGoal-v0", seed=seed)
        trained(DQS, [callback])
        return [env.unwrapped.trace[0].tolist() for env in callback.envs]

    def expected(seed):
        env = MultiGoalEnv()
        return [env.reset(seed=seed + i)[0].tolist() for i in range(4)]

    for seed in (0, 5):
        np.testing.assert_allclose(first_positions(seed), expected(seed), rtol=1e-6)


def test_generators_go_on_as_if_nothing_had_been_drawn_aside():
    def draws():
        return [random.random(), np.random.rand(), th.rand(()).item()]

    th.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    undisturbed = draws()
    th.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    asides = []
    for _ in range(2):
        with drawing_aside(th.device("cpu"), seed=3):
            asides.append(draws())
    with contextlib.suppress(KeyError), drawing_aside(th.device("cpu"), seed=3):
        draws()
        raise KeyError
    assert asides[0] == asides[1] != undisturbed
    assert draws() == undisturbed


def test_what_is_not_defined_is_left_out():
    callback = Notes(50, roll_out_env="sb3_dqs/MultiGoal-v0", n_episodes=2)
    TD3("MlpPolicy", "sb3_dqs/MultiGoal-v0", **small()).learn(60, callback=callback)
    # after 50 steps and, though no observation was noted by then, at the end
    assert [set(note) for note in callback.notes] == 2 * [{"success", "goals_reached", "goal_entropy"}]


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [(TD3, {}), (SAC, {"ent_coef": 0.0})],  # without an entropy bonus, there is no law to be far from
)
def test_a_callback_that_can_measure_nothing_says_so_before_training(algorithm, settings):
    model = algorithm("MlpPolicy", "Pendulum-v1", **settings, **small())
    with pytest.raises(ValueError, match=f"roll_out_env must be given for {algorithm.__name__} with actions Box"):
        model.learn(60, callback=MultimodalityCallback(30))
    assert model.num_timesteps == 0


@pytest.mark.parametrize("algorithm", [DQS, TD3])
def test_a_run_without_an_observation_that_was_noted_has_its_roll_outs_measured_at_its_end(algorithm):
    callback = Notes(5_000, roll_out_env="sb3_dqs/MultiGoal-v0", n_episodes=2)
    algorithm("MlpPolicy", "sb3_dqs/MultiGoal-v0", **small()).learn(30, callback=callback)
    assert [set(note) for note in callback.notes] == [{"success", "goals_reached", "goal_entropy"}]


def test_observations_may_be_dictionaries():
    env = RandomEnv(spaces.Dict({"a": spaces.Box(-1, 1, (2,)), "b": spaces.Discrete(3)}), action_dim=1)
    callback = Notes(20, n_actions=50)
    DQS("MultiInputPolicy", env, **small()).learn(30, callback=callback)
    assert set(callback.notes[-1]) == DISTANCES


def test_environments_may_write_the_next_observation_in_the_place_of_the_last():
    array = np.zeros((2, 3))
    kept = first_observation(array), first_observation({"a": array})["a"]
    array[:] = 7
    assert [values.tolist() for values in kept] == [[0, 0, 0], [0, 0, 0]]


def test_the_last_measure_is_logged_and_a_second_training_is_measured_too(tmp_path):
    callback = Notes(30, n_actions=100)
    model = DQS("MlpPolicy", "Pendulum-v1", **small())
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(60, callback=callback, log_interval=10**9)
    with (tmp_path / "progress.csv").open() as file:
        logged = [float(row["policy/total_variation"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx([note["total_variation"] for note in callback.notes], rel=1e-3), "each round, none replaced"
    model.learn(60, callback=callback, log_interval=10**9)
    assert len(callback.notes) == 4


def logged_pictures(tmp_path, callback, env):
    model = DQS("MlpPolicy", env, tensorboard_log=str(tmp_path), **small())
    model.learn(90, callback=callback, log_interval=10**9)
    events = event_accumulator.EventAccumulator(str(next(tmp_path.iterdir())))
    events.Reload()
    return model, {tag: events.Images(tag) for tag in events.Tags()["images"]}


def test_pictures_leave_training_as_it_is_and_are_equal_in_equal_runs(tmp_path):
    env = "tests/Careless-v0"
    callbacks = [FigureCallback(60, roll_out_env=env, n_episodes=2, course_every=5) for _ in range(2)]
    runs = [logged_pictures(tmp_path / str(number), callback, env) for number, callback in enumerate(callbacks)]
    (model, pictures), (_, same_pictures) = runs
    assert_same_parameters(model, trained(DQS, [], env))
    assert set(pictures) == {"figures/critic", "figures/denoising", "figures/roll_outs", "figures/training"}
    for tag, images in pictures.items():
        assert [image.step for image in images] == [60, 90], "each round at its step, though the logger itself dumps seldom"
        for image, same in zip(images, same_pictures[tag], strict=True):
            assert image.encoded_image_string == same.encoded_image_string, tag
    assert callbacks[0].course["steps"][-1] == 90
    assert len(callbacks[0].course["train/entropy"]) == len(callbacks[0].course["steps"])
    assert np.isfinite(callbacks[0].course["train/entropy"]).any()


def test_a_callback_may_go_on_with_another_model(tmp_path):
    """Its observations are of that one's environment: of three numbers first, then of two."""
    figures, measures = FigureCallback(40, course_every=5), MultimodalityCallback(40, n_actions=20)
    for env, size in (("Pendulum-v1", 3), ("sb3_dqs/MultiGoal-v0", 2)):
        model = DQS("MlpPolicy", env, tensorboard_log=str(tmp_path), **small())
        model.learn(45, callback=[figures, measures])
        assert figures.observation.shape == (size,)
        assert {observation.shape[-1] for observation in measures.observations} == {size}
        assert figures.course["steps"][0] <= 45
    observation = figures.observation
    model.learn(45, callback=[figures, measures])
    assert figures.observation is observation, "pictures of one model show one observation"


def test_callbacks_may_follow_each_new_best_model(tmp_path):
    """SB3's EvalCallback does not tell them when training starts."""
    figures, measures = FigureCallback(1_000), MultimodalityCallback(1_000, n_actions=20)
    at_best = CallbackList([figures, measures])
    at_best = EvalCallback(Monitor(gym.make("Pendulum-v1")), at_best, eval_freq=20, n_eval_episodes=1)
    model = DQS("MlpPolicy", "Pendulum-v1", tensorboard_log=str(tmp_path), **small()).learn(25, callback=at_best)
    assert figures.last_figure_step == measures.last_measured_step == 20, "the first evaluation is the best so far"
    logged = event_accumulator.EventAccumulator(model.logger.dir).Reload().Tags()
    assert {"figures/critic/image/0", "figures/critic"} & {*logged["images"], *logged["tensors"]}
    assert "policy/total_variation" in logged["scalars"]


class Watcher(BaseCallback):
    """Keeps what the environment has shown before each step, and what the log holds then."""

    def __init__(self):
        super().__init__()
        self.raw, self.temperatures = {}, {}

    def _on_step(self):
        env = self.model.get_vec_normalize_env()
        self.raw[self.num_timesteps] = (self.model._last_obs if env is None else env.get_original_obs())[0].copy()
        if "train/temperature" in self.logger.name_to_value:
            self.temperatures[self.num_timesteps] = self.logger.name_to_value["train/temperature"]
        return True


def test_the_course_is_that_of_what_was_logged_every_so_many_steps(tmp_path):
    callback, watcher = FigureCallback(1_000, course_every=7), Watcher()
    model = DQS("MlpPolicy", "Pendulum-v1", tensorboard_log=str(tmp_path), **small())
    model.learn(60, callback=CallbackList([watcher, callback]), log_interval=10**9)
    # the first update is behind step 21, when a point is due
    assert callback.course["steps"] == [22, 28, 35, 42, 49, 56]
    assert callback.course["train/temperature"] == [watcher.temperatures[step] for step in callback.course["steps"]]
    assert len(set(callback.course["train/temperature"])) > 1
    model.learn(30, callback=callback, log_interval=10**9)
    assert callback.course["steps"] == [22, 28], "another run has a course of its own"


def test_the_course_goes_on_beside_a_callback_that_empties_the_log(tmp_path):
    callback = FigureCallback(1_000, course_every=10)
    model = DQS("MlpPolicy", "Pendulum-v1", tensorboard_log=str(tmp_path), **small())
    model.learn(60, callback=CallbackList([Notes(10, n_actions=10), callback]), log_interval=10**9)
    assert callback.course["steps"] == [22, 31, 41, 51]


def test_observations_are_spaced_over_the_steps_between_two_rounds():
    callback, watcher = Notes(40, n_observations=4, n_actions=10), Watcher()
    DQS("MlpPolicy", "Pendulum-v1", **small()).learn(40, callback=CallbackList([watcher, callback]))
    np.testing.assert_array_equal(callback.observations, [watcher.raw[step] for step in (10, 20, 30, 40)])


def normalising():
    return VecNormalize(make_vec_env("Pendulum-v1", n_envs=1, seed=0))


def test_observations_are_shown_and_measured_as_the_policy_sees_them_then(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(callbacks, "plot_critic", lambda model, observation, *rest: shown.append(observation) or plt.figure())
    env, watcher = normalising(), Watcher()
    model = DQS("MlpPolicy", env, tensorboard_log=str(tmp_path), **small())
    figures = FigureCallback(1_000)
    model.learn(60, callback=CallbackList([watcher, figures]), log_interval=10**9)
    first, statistics = figures.observation, env.obs_rms
    assert np.linalg.norm(first[:2]) == pytest.approx(1, abs=1e-6), "cosine and sine of one angle: not normalised"
    truth = (first - statistics.mean) / np.sqrt(statistics.var + env.epsilon)
    np.testing.assert_allclose(shown, [truth], rtol=1e-5)

    measured = []
    monkeypatch.setattr(callbacks, "distances_to_critic", lambda model, observations, n: measured.append(observations) or {})
    notes = MultimodalityCallback(20, n_observations=2)
    model.learn(20, callback=CallbackList([watcher, notes]), log_interval=10**9)
    raw = np.stack([watcher.raw[step] for step in (10, 20)])
    np.testing.assert_allclose(measured[0], (raw - statistics.mean) / np.sqrt(statistics.var + env.epsilon), rtol=1e-5)


def test_settings_that_cannot_be_used_are_named_before_training():
    with pytest.raises(ValueError, match="every must be an integer >= 1, got 0"):
        FigureCallback(0)
    with pytest.raises(ValueError, match="n_episodes must be an integer >= 1, got 0"):
        MultimodalityCallback(100, n_episodes=0)
    for callback in (FigureCallback, MultimodalityCallback):
        with pytest.raises(ValueError, match="arena"):
            callback(100, roll_out_env="Pendulum-v1", n_episodes=1)
        with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
            callback(100, seed=-1)
    with pytest.raises(ValueError, match="draws DQS, got SAC"):
        SAC("MlpPolicy", "Pendulum-v1", **small()).learn(1, callback=FigureCallback(100))
    with pytest.raises(ValueError, match="dimensions must be"):
        DQS("MlpPolicy", "Pendulum-v1", **small()).learn(1, callback=FigureCallback(100, dimensions=(0, 1)))
    with pytest.raises(ValueError, match="roll_out_env must have several goals"):
        MultimodalityCallback(100, roll_out_env="tests/OneGoal-v0", n_episodes=1)
    with pytest.raises(ValueError, match="roll_out_env must have observations that are arrays, got Dict"):
        DQS("MlpPolicy", "Pendulum-v1", **small()).learn(
            1, callback=MultimodalityCallback(100, roll_out_env="tests/DictArena-v0", n_episodes=1)
        )


@pytest.mark.parametrize("observation", [np.zeros(7), {"a": np.zeros(3)}, "here"])
def test_an_observation_of_another_environment_is_refused_before_training(tmp_path, observation):
    for env in (make_vec_env("Pendulum-v1"), normalising()):
        model = DQS("MlpPolicy", env, tensorboard_log=str(tmp_path), **small())
        with pytest.raises(ValueError, match="observation must be one of Box"):
            model.learn(60, callback=FigureCallback(30, observation=observation))
        assert model.num_timesteps == 0


def test_a_policy_that_draws_one_noise_for_many_actions_is_refused_before_training():
    model = SAC("MlpPolicy", "Pendulum-v1", use_sde=True, **small())
    with pytest.raises(ValueError, match="model must not have use_sde=True, got SAC"):
        model.learn(60, callback=MultimodalityCallback(30))
    assert model.num_timesteps == 0


def test_pictures_that_nothing_would_keep_are_refused_before_training():
    model = DQS("MlpPolicy", "tests/Careless-v0", **small())
    with pytest.raises(ValueError, match=r"FigureCallback needs TensorBoard.*pass tensorboard_log='runs' to DQS, or -tb runs"):
        model.learn(60, callback=FigureCallback(30))


@pytest.mark.parametrize("callback", [FigureCallback, MultimodalityCallback])
def test_environments_of_roll_outs_that_the_model_cannot_act_in_are_refused_before_training(tmp_path, callback):
    model = DQS("MlpPolicy", "Pendulum-v1", tensorboard_log=str(tmp_path), **small())
    with pytest.raises(ValueError, match=r"roll_out_env has observations Box.*\(2,\).*the model Box.*\(3,\)"):
        model.learn(60, callback=callback(30, roll_out_env="sb3_dqs/MultiGoal-v0"))
    assert model.num_timesteps == 0


class Picture(MultiGoalEnv):
    """Shows how far to the right it is."""

    def __init__(self):
        super().__init__()
        self.observation_space = spaces.Box(0, 255, (36, 36, 3), np.uint8)

    def _picture(self, position):
        return np.full((36, 36, 3), np.clip(100 + 10 * position[0], 0, 255), np.uint8)

    def reset(self, **kwargs):
        position, info = super().reset(**kwargs)
        return self._picture(position), info

    def step(self, action):
        position, *rest = super().step(action)
        return self._picture(position), *rest


register(id="tests/Picture-v0", entry_point=Picture, max_episode_steps=3)


def test_roll_outs_of_pictures_are_measured():
    callback = Notes(40, roll_out_env="tests/Picture-v0", n_episodes=2, n_actions=20)
    DQS("CnnPolicy", "tests/Picture-v0", **{**small(), "buffer_size": 100}).learn(41, callback=callback)
    assert {"success", "goals_reached"} <= set(callback.notes[0])
