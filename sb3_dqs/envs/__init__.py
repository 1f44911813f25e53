"""Environments with known answers, registered with gymnasium on ``import sb3_dqs``."""

from gymnasium.envs.registration import register

from sb3_dqs.envs.multi_goal import MultiGoalEnv

register(id="sb3_dqs/MultiGoal-v0", entry_point="sb3_dqs.envs.multi_goal:MultiGoalEnv", max_episode_steps=30)

__all__ = ["MultiGoalEnv"]
