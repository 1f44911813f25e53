"""Environments with known answers, registered with gymnasium on ``import sb3_dqs``."""

from gymnasium.envs.registration import register

from sb3_dqs.envs.bandit import BanditEnv, Landscape
from sb3_dqs.envs.gaussian_mixture import GaussianMixtureEnv
from sb3_dqs.envs.multi_goal import MultiGoalEnv

register(id="sb3_dqs/Bandit-v0", entry_point="sb3_dqs.envs.bandit:BanditEnv")
register(
    id="sb3_dqs/GaussianMixture-v0", entry_point="sb3_dqs.envs.gaussian_mixture:GaussianMixtureEnv", max_episode_steps=100
)
register(id="sb3_dqs/MultiGoal-v0", entry_point="sb3_dqs.envs.multi_goal:MultiGoalEnv", max_episode_steps=30)
# Needs the extra ``maze``; without it, gym.make says so
register(id="sb3_dqs/PointMaze-v0", entry_point="sb3_dqs.envs.point_maze:PointMazeEnv", max_episode_steps=600)

__all__ = ["BanditEnv", "GaussianMixtureEnv", "Landscape", "MultiGoalEnv"]
