"""Do the environments follow their rules, and are their known answers right?"""

import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env as check_gymnasium_env
from stable_baselines3.common.env_checker import check_env as check_sb3_env

import sb3_dqs.envs
from sb3_dqs.envs import BanditEnv, GaussianMixtureEnv, MultiGoalEnv
from sb3_dqs.envs.arena import Arena
from sb3_dqs.envs.bandit import LANDSCAPES, Landscape
from sb3_dqs.envs.gaussian_mixture import load_means

GRID = np.linspace(-1.0, 1.0, 201)


def test_arena_is_registered_and_passes_both_checkers():
    env = gym.make("sb3_dqs/MultiGoal-v0", render_mode="rgb_array")
    assert isinstance(env.unwrapped, sb3_dqs.envs.MultiGoalEnv)
    assert env.spec.max_episode_steps == 30
    check_gymnasium_env(env.unwrapped, skip_render_check=False)
    check_sb3_env(env, warn=True)


def test_start_is_near_the_centre_or_where_asked():
    env = MultiGoalEnv()
    starts = np.array([env.reset(seed=seed)[0] for seed in range(500)])
    assert np.abs(starts.mean(axis=0)).max() < 4 * 0.1 / np.sqrt(500)
    assert np.abs(starts.std(axis=0) - 0.1).max() < 4 * 0.1 / np.sqrt(1_000)
    observation, _ = env.reset(options={"start": (3.0, -9.0)})
    assert observation.tolist() == [3.0, -7.0]


def test_reward_is_distance_action_and_goal():
    env = MultiGoalEnv(action_cost=2.0, goal_reward=10.0, reward_scale=0.1)
    env.reset(options={"start": (3.0, 0.0)})
    # to (3.5, 0.5): squared distance 1.5^2 + 0.5^2 = 2.5 to (5, 0), action cost 2 * (0.25 + 0.25)
    _, reward, terminated, truncated, info = env.step(np.array([0.5, 0.5]))
    assert reward == pytest.approx(0.1 * (-2.5 - 1.0))
    assert (terminated, truncated, info) == (False, False, {"goal": -1, "is_success": False})
    # to (4.5, 0.5): squared distance 0.5 < 1, action clipped to length 1 along x
    _, reward, terminated, _, info = env.step(np.array([4.0, 0.0]))
    assert reward == pytest.approx(0.1 * (-0.5 - 2.0 + 10.0))
    assert terminated
    assert info == {"goal": 0, "is_success": True}


def test_walls_stop_the_point():
    env = MultiGoalEnv()
    env.reset(options={"start": (6.8, 6.8)})
    observation, *_ = env.step(np.array([1.0, 1.0]))
    assert observation.tolist() == [7.0, 7.0]


def test_goals_may_be_of_unequal_worth():
    env = MultiGoalEnv(action_cost=0.0, goal_reward=[10.0, 20.0, 30.0, 40.0], reward_scale=1.0)
    for goal, (x, y) in enumerate(env.goals):
        env.reset(options={"start": (0.7 * x, 0.7 * y)})
        # a tenth of the way: 0.2 * 5 = 1 is left, on the rim, and then half of it
        env.step(0.1 * np.array([x, y]))
        _, reward, terminated, _, info = env.step(0.1 * np.array([x, y]))
        assert (terminated, info["goal"]) == (True, goal)
        assert reward == pytest.approx(10.0 * (goal + 1) - 0.5**2)


def test_a_moved_goal_is_elsewhere_from_the_next_episode_on():
    env = MultiGoalEnv(start_noise=0)
    env.reset(options={"start": (4.5, 0.0)})
    env.move_goal(0, (3.5, 3.5))
    assert env.step(np.zeros(2))[4]["goal"] == 0, "the episode under way knows the former goal"
    env.reset(options={"start": (4.5, 0.0)})
    assert env.step(np.zeros(2))[4]["goal"] == -1
    env.reset(options={"start": (3.5, 3.0)})
    assert env.step(np.zeros(2))[4]["goal"] == 0
    for goal, position, message in (
        (4, (0.0, 0.0), "goal must be one of 0 to 3, got 4"),
        (-1, (0.0, 0.0), "goal must be"),
        (0, (8.0, 0.0), "goals must be 4 positions"),
        (0, (0.0,), "position must be"),
    ):
        with pytest.raises(ValueError, match=message):
            env.move_goal(goal, position)


def test_a_closed_goal_is_as_if_it_were_not_there():
    env = MultiGoalEnv(closed=[0])
    env.reset(options={"start": (4.5, 0.0)})
    _, reward, terminated, _, info = env.step(np.array([0.5, 0.0]))
    # at (5, 0): squared distance 50 to the goals (0, +-5), action cost 0.25
    assert (terminated, info) == (False, {"goal": -1, "is_success": False})
    assert reward == pytest.approx(0.1 * (-50.0 - 0.25))
    # for one episode, the options have the last word
    env.reset(options={"start": (4.5, 0.0), "closed": [3]})
    assert env.step(np.array([0.5, 0.0]))[4]["goal"] == 0
    env.reset(options={"start": (4.5, 0.0)})
    assert env.step(np.array([0.5, 0.0]))[4]["goal"] == -1


def test_goals_may_be_moved():
    moved = [(3.0, 3.0), *MultiGoalEnv().goals[1:]]
    for env, options in ((MultiGoalEnv(goals=moved), {}), (MultiGoalEnv(), {"goals": moved})):
        env.reset(options={"start": (3.0, 2.5), **options})
        _, reward, terminated, _, info = env.step(np.array([0.0, 0.5]))
        assert (terminated, info["goal"]) == (True, 0)
        assert reward == pytest.approx(0.1 * (10.0 - 0.25))
        assert env.arena.goals[0].tolist() == [3.0, 3.0], "pictures show them where they are"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"closed": [0, 1, 2, 3]}, "closed must hold some, not all, of the goals 0 to 3"),
        ({"closed": [4]}, r"closed must hold some.* got \[4\]"),
        ({"closed": [0.5]}, "each number in closed must be an integer >= 0, got 0.5"),
        ({"goals": [(0.0, 5.0)]}, "goals must be 4 positions with coordinates of at most 7.0"),
        ({"goals": [(0.0, 5.0)] * 3 + [(0.0, 9.0)]}, "goals must be 4 positions with coordinates of at most 7.0"),
        ({"goal_reward": [10.0, 9.0]}, "goal_reward must be 4 finite numbers"),
    ],
)
def test_goals_that_cannot_be_used_name_themselves(settings, message):
    with pytest.raises(ValueError, match=message):
        MultiGoalEnv(**settings)
    if "goal_reward" not in settings:
        with pytest.raises(ValueError, match=message):
            MultiGoalEnv().reset(options=settings)


@pytest.mark.parametrize(
    ("env_class", "option", "known"),
    [
        (MultiGoalEnv, {"close": [0]}, "closed"),
        (GaussianMixtureEnv, {"strat": (0.0, 0.0)}, "start"),
        (BanditEnv, {"contxt": 0.0}, "context"),
    ],
)
def test_an_unknown_option_of_reset_is_an_error(env_class, option, known):
    with pytest.raises(ValueError, match=f"each option of reset.*did you mean '{known}'"):
        env_class().reset(options=option)


def test_render_shows_goals_trace_and_position():
    env = MultiGoalEnv(render_mode="rgb_array")
    env.reset(options={"start": (0.0, 0.0)})
    env.step(np.array([1.0, 0.0]))
    image = env.render()
    assert image.shape == (280, 280, 3)

    def colour_at(x, y):
        return image[round((7 - y) * 20), round((x + 7) * 20)].tolist()

    assert colour_at(1.0, 0.0) == [220, 60, 60]
    assert colour_at(0.0, 0.0) == [150, 150, 150]
    assert colour_at(0.0, 5.0) == [120, 200, 120]
    assert MultiGoalEnv().render() is None


def test_a_picture_shows_each_pixel_as_what_lies_there():
    goals, walls = np.array([[2.0, -1.0], [-3.9, 3.9]]), np.array([[0.0, 2.0]])
    trace = [np.array([-1.0, 0.0]), np.array([3.9, 0.0])]
    image = Arena(4.0, goals, 0.6, walls).picture(trace, size=81)
    for row in range(81):
        for column in range(81):
            place = np.array([(column + 0.5) / 81 * 8 - 4, 4 - (row + 0.5) / 81 * 8])
            colour = (255, 255, 255)
            if np.abs(place - walls[0]).max() <= 0.5:
                colour = (120, 120, 120)
            if min(np.linalg.norm(place - goal) for goal in goals) < 0.6:
                colour = (120, 200, 120)
            if min(np.linalg.norm(place - point) for point in trace) < 0.12 * 4 / 7:
                colour = (150, 150, 150)
            if np.linalg.norm(place - trace[-1]) < 0.25 * 4 / 7:
                colour = (220, 60, 60)
            assert tuple(image[row, column]) == colour, place


@pytest.mark.parametrize("landscape", sorted(LANDSCAPES))
def test_bandit_passes_both_checkers(landscape):
    env = gym.make("sb3_dqs/Bandit-v0", landscape=landscape, render_mode="rgb_array")
    check_gymnasium_env(env.unwrapped, skip_render_check=False)
    check_sb3_env(env, warn=True)


@pytest.mark.parametrize("context", [-1.0, 0.3])
@pytest.mark.parametrize("landscape", sorted(LANDSCAPES))
def test_density_of_a_bandit_is_the_boltzmann_law_of_its_reward(landscape, context):
    env = BanditEnv(landscape, temperature=0.7)
    actions = np.stack(np.meshgrid(*[GRID] * env.action_dim, indexing="ij"), axis=-1)

    def integral(values):
        for _ in range(env.action_dim):
            values = np.trapezoid(values, GRID)
        return values

    density = env.density(actions, context)
    assert integral(density) == pytest.approx(1.0, abs=1e-4)
    unnormalised = np.exp(env.reward(actions, context) / 0.7)
    assert density == pytest.approx(unnormalised / integral(unnormalised), rel=1e-4)
    # draws have the mean of the law, within 4 standard errors
    draws = env.draw(20_000, context, np.random.default_rng(0))
    assert np.abs(draws).max() <= 1.0
    mean = np.array([integral(density * actions[..., j]) for j in range(env.action_dim)])
    assert np.abs(draws.mean(axis=0) - mean).max() < 4 * draws.std() / np.sqrt(20_000)


def test_peaks_of_a_bandit_have_their_weights():
    # 95 % in two peaks of standard deviation 0.15, each 3.3 sigma from the wall and from the middle
    env = BanditEnv("two_peaks")
    density = env.density(GRID[:, None], 0.0)
    right = np.trapezoid(density[100:], GRID[100:])
    assert right == pytest.approx(0.95 * 0.7 + 0.05 / 2, abs=2e-3)
    # the context moves the right peak from 0.5 to 0.7
    assert GRID[env.density(GRID[:, None], 1.0).argmax()] == pytest.approx(0.7)


def test_bandit_pays_the_reward_of_the_context_that_it_shows():
    env = BanditEnv("four_peaks")
    observation, _ = env.reset(options={"context": 0.1})
    _, reward, terminated, truncated, _ = env.step(np.array([0.3, 2.0]))
    assert reward == pytest.approx(env.reward(np.array([0.3, 1.0]), float(observation[0])))
    assert (terminated, truncated) == (True, False)


def test_contexts_are_independent_of_the_actions_drawn_with_the_same_seed():
    env = BanditEnv()
    contexts, actions = [], []
    env.action_space.seed(3)
    observation, _ = env.reset(seed=3)
    for _ in range(400):
        contexts.append(observation[0])
        actions.append(env.action_space.sample()[0])
        observation, _ = env.reset()
    assert abs(np.corrcoef(contexts, actions)[0, 1]) < 4 / np.sqrt(400)
    assert len(set(contexts)) == 400
    repeated = [env.reset(seed=3)[0][0], env.reset()[0][0]]
    assert repeated == contexts[:2]


def test_bandit_names_unknown_landscapes_and_bad_temperatures():
    with pytest.raises(ValueError, match=r"landscape .* 'five_peaks'; did you mean"):
        BanditEnv("five_peaks")
    with pytest.raises(ValueError, match="temperature"):
        BanditEnv(temperature=0.0)


@pytest.mark.parametrize(
    ("centres", "weights", "settings", "message"),
    [
        ([(5.0,)], [1.0], {"width": 0.1}, r"centres must lie in the box, .*got \[\(5.0,\)\] of width 0.1"),
        # in one context 0.2 outside
        ([(1.0,)], [1.0], {"width": 0.02}, "centres must lie in the box"),
        ([(-0.5,), (0.5,)], [1.0, 1.0], {"width": 0.1}, "weights must be 2 numbers >= 0 that sum to 1"),
        ([(-0.5,), (0.5,)], [1.0], {"width": 0.1}, "weights must be 2 numbers"),
        ([(-0.5,), (0.5,)], [1.5, -0.5], {"width": 0.1}, "weights must be 2 numbers"),
        ([(-0.5,), (0.5, 0.5)], [0.5, 0.5], {"width": 0.1}, "centres must be points of one number of dimensions"),
        ([], [], {"width": 0.1}, "centres must be points"),
        ([(0.0,)], [1.0], {"width": 0.0}, "width must be a finite number > 0"),
        ([(0.0,)], [1.0], {"width": 0.1, "background": 1.0}, r"background must be a number in \(0, 1\)"),
    ],
)
def test_what_is_no_law_is_named(centres, weights, settings, message):
    with pytest.raises(ValueError, match=message):
        Landscape(centres, weights, **settings)


def test_a_bandit_of_three_dimensions_has_no_picture():
    law = Landscape([(0.0, 0.0, 0.0)], [1.0], width=0.2)
    with pytest.raises(ValueError, match="render_mode must be None with 3 action dimensions"):
        BanditEnv(law, render_mode="rgb_array")
    assert BanditEnv(law).reset(seed=0)[0].shape == (1,)


def test_bandit_renders_law_and_action():
    for landscape, empty in (("two_peaks", (10, 140)), ("four_peaks", (140, 10))):
        env = BanditEnv(landscape, render_mode="rgb_array")
        env.reset(options={"context": 0.0})
        assert env.render()[empty].min() > 235
        env.step(np.full(env.action_dim, 0.5))
        # column of 0.5; in 2-D also the row of 0.5
        assert env.render()[70, 210].tolist() == [220, 60, 60]
    assert BanditEnv().render() is None


def test_gaussian_mixture_is_registered_and_passes_both_checkers():
    env = gym.make("sb3_dqs/GaussianMixture-v0", render_mode="rgb_array")
    assert env.spec.max_episode_steps == 100
    check_gymnasium_env(env.unwrapped, skip_render_check=False)
    check_sb3_env(env, warn=True)
    assert gym.make("sb3_dqs/GaussianMixture-v0", max_episode_steps=7).spec.max_episode_steps == 7


def test_gaussian_mixture_has_forty_means_and_their_density():
    means = load_means()
    assert means.shape == (40, 2)
    assert np.abs(means).max() <= 40.0
    # the mixture of FAB, arXiv:2208.01893: first and last mean, and the sum of all
    assert means[[0, -1]] == pytest.approx(np.array([[-0.2995, 21.4577], [3.6797, -25.0242]]), abs=1e-3)
    assert means.sum(axis=0) == pytest.approx([-85.620, 49.602], abs=1e-2)
    env = GaussianMixtureEnv()
    # far from all others, only one component counts: -ln 40 - ln(2 pi) - distance^2 / 2
    gaps = np.linalg.norm(means[:, None] - means, axis=-1) + 1e9 * np.eye(40)
    loneliest = gaps.min(axis=1).argmax()
    position = means[loneliest] + np.array([0.6, 0.8])
    assert env.log_density(position) == pytest.approx(-np.log(40) - np.log(2 * np.pi) - 0.5, abs=1e-6)
    draws = env.draw(4_000, np.random.default_rng(0))
    assert np.abs(draws.mean(axis=0) - means.mean(axis=0)).max() < 4 * draws.std() / np.sqrt(4_000)


def test_moves_on_the_mixture_have_length_one_and_rewards_are_as_chosen():
    env = GaussianMixtureEnv()
    env.reset(options={"start": (3.0, 4.0)})
    observation, reward, *_ = env.step(np.array([0.3, 0.4]))
    assert observation.tolist() == pytest.approx([3.6, 4.8])
    assert reward == pytest.approx(env.log_density(np.array([3.6, 4.8])))
    observation, *_ = env.step(np.zeros(2))
    assert observation.tolist() == pytest.approx([3.6, 4.8])
    gain = GaussianMixtureEnv(reward="gain", reward_scale=0.5, unit_moves=False)
    gain.reset(options={"start": (3.0, 4.0)})
    rewards = [gain.step(np.array([0.3, 0.4]))[1] for _ in range(3)]
    difference = env.log_density(np.array([3.9, 5.2])) - env.log_density(np.array([3.0, 4.0]))
    assert sum(rewards) == pytest.approx(0.5 * difference)
    with pytest.raises(ValueError, match="reward must be one of"):
        GaussianMixtureEnv(reward="dense")


def test_mixture_names_the_mode_that_was_reached():
    env = GaussianMixtureEnv(render_mode="rgb_array")
    env.reset(options={"start": env.means[7]})
    assert env.step(np.zeros(2))[-1] == {"mode": 7}
    env.reset(options={"start": (50.0, 50.0)})
    observation, *_, info = env.step(np.ones(2))
    assert observation.tolist() == [50.0, 50.0]
    assert info == {"mode": -1}
    assert env.render()[2, 277].tolist() == [220, 60, 60]


def test_point_maze_ends_at_either_goal():
    pytest.importorskip("gymnasium_robotics")
    env = gym.make("sb3_dqs/PointMaze-v0", render_mode="rgb_array")
    assert env.spec.max_episode_steps == 600
    check_gymnasium_env(env.unwrapped, skip_render_check=False)
    check_sb3_env(env, warn=True)
    # beside a goal of row 1 and of row 7, and pushed to it
    for cell, push in (((1, 2), (-1.0, 0.0)), ((6, 7), (0.0, -1.0))):
        env.reset(seed=0, options={"reset_cell": cell})
        for _ in range(100):
            observation, reward, terminated, _, info = env.step(np.array(push, np.float32))
            if terminated:
                break
        assert (reward, info["is_success"]) == (1.0, True)
        goal = env.unwrapped.arena.goals[info["goal"]]
        assert np.linalg.norm(observation[:2] - goal) <= 0.45
    # the last run ended at the lower right goal, (3, -3); blocks stand around the map
    assert goal.tolist() == [3.0, -3.0]
    assert env.render()[1, 1].tolist() == [120, 120, 120]
    env.close()


@pytest.mark.parametrize("make", [BanditEnv, MultiGoalEnv, GaussianMixtureEnv])
def test_actions_and_starts_that_are_not_finite_are_named(make):
    env = make()
    env.reset()
    n = env.action_space.shape[0]
    for action in (np.full(n, np.nan), np.full(n, np.inf), np.zeros(n + 1)):
        with pytest.raises(ValueError, match=f"action must be {n} finite numbers"):
            env.step(action)
    option, value = ("context", np.nan) if make is BanditEnv else ("start", (0.0, np.inf))
    with pytest.raises(ValueError, match=f"{option} must be"):
        env.reset(options={option: value})


@pytest.mark.parametrize("setting", ["action_cost", "goal_reward", "reward_scale", "start_noise"])
def test_settings_of_the_arena_are_finite(setting):
    with pytest.raises(ValueError, match=f"{setting} must be (a|4) finite number.* got .*nan"):
        MultiGoalEnv(**{setting: float("nan")})
    with pytest.raises(ValueError, match="start_noise must be >= 0"):
        MultiGoalEnv(start_noise=-1.0)


def test_point_maze_without_its_package_says_what_to_install():
    program = (
        "import sys; sys.modules['gymnasium_robotics'] = None\n"
        "import gymnasium as gym, sb3_dqs\n"
        "try:\n    gym.make('sb3_dqs/PointMaze-v0')\n"
        "except gym.error.DependencyNotInstalled as error:\n    assert 'sb3-dqs[maze]' in str(error), error\n"
        "else:\n    raise SystemExit('made without its package')\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
