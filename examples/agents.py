"""
Train agents of four tasks: each is saved without its optimisers, with a card of its returns and its command.

    python examples/agents.py [--env Pendulum-v1 ...] [--steps 10000] [--seed 0] [--output agents]

Folders are those of rl-zoo3, so that ``sb3-dqs enjoy --algo dqs --env Pendulum-v1 -f agents`` shows one.
"""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import sb3_dqs
from sb3_dqs import DQS
from sb3_dqs.extras import require


@dataclass(frozen=True)
class Plan:
    """
    :param steps: environment steps of training
    :param settings: of DQS that differ from its defaults
    """

    steps: int
    settings: dict[str, Any] = field(default_factory=dict)


PLANS = {
    "Pendulum-v1": Plan(10_000),
    "sb3_dqs/MultiGoal-v0": Plan(20_000),
    "MountainCarContinuous-v0": Plan(50_000, {"cooling_updates": 20_000}),  # as in hyperparams/dqs.yml
    "HalfCheetah-v5": Plan(100_000, {"learning_starts": 10_000}),
}

CARD = """---
library_name: stable-baselines3
tags: [{env_id}, reinforcement-learning, deep-reinforcement-learning, stable-baselines3, sb3-dqs]
model-index:
- name: DQS
  results:
  - task: {{type: reinforcement-learning, name: reinforcement-learning}}
    dataset: {{name: {env_id}, type: {env_id}}}
    metrics: [{{type: mean_reward, name: mean_reward, value: {deterministic}}}]
---
# DQS on {env_id}

Diffusion Q-Sampling, `sb3-dqs` {version}, after {steps} environment steps with seed {seed}. Settings that differ from the
defaults: {settings}.

| actions | mean return of {episodes} episodes +- standard deviation |
|---|---|
| deterministic | {deterministic} |
| sampled | {sampled} |

```python
import gymnasium as gym
from sb3_dqs import DQS
from stable_baselines3.common.evaluation import evaluate_policy

model = DQS.load("{file}", buffer_size=1)
evaluate_policy(model, gym.make("{env_id}", render_mode="human"), n_eval_episodes=3, warn=False)
```

Made by

```bash
{command}
```

Saved without the state of the optimisers: it acts, and training would go on with fresh ones.
"""


def forget_optimizers(model: DQS) -> None:
    """
    Clear the running moments of the optimisers, twice as many numbers as the weights; the model still loads.

    :param model: that shall only act from now on
    """
    for optimizer in (model.actor.optimizer, model.critic.optimizer):
        optimizer.state.clear()


def returns(model: DQS, env_id: str, episodes: int, seed: int, deterministic: bool) -> str:
    """
    :param model: to evaluate
    :param env_id: its environment
    :param episodes: how many, >= 1
    :param seed: of the environment
    :param deterministic: take the best of the candidates, or sample
    :return: mean and standard deviation over the episodes, as text
    """
    from tqdm import tqdm

    th.manual_seed(seed)
    with tqdm(total=episodes, desc="deterministic episodes" if deterministic else "sampled episodes") as bar:
        returned, _ = evaluate_policy(
            model,
            make_vec_env(env_id, seed=seed),
            episodes,
            deterministic=deterministic,
            return_episode_rewards=True,
            callback=lambda inside, _: bar.update(int(inside["done"])),
        )
    return f"{np.mean(returned):.2f} +- {np.std(returned):.2f}"


def make_agent(env_id: str, plan: Plan, seed: int, episodes: int, output: Path) -> Path:
    """
    Train, evaluate and save an agent with its card.

    :param env_id: environment
    :param plan: steps and settings
    :param seed: of the run; the evaluation takes another
    :param episodes: of each of the two evaluations
    :param output: folder of all agents
    :return: folder of this one, with the model and ``README.md``
    """
    model = DQS("MlpPolicy", env_id, seed=seed, **plan.settings).learn(plan.steps, progress_bar=True)
    forget_optimizers(model)
    name = env_id.replace("/", "-")
    folder = output / "dqs" / f"{name}_1"
    folder.mkdir(parents=True, exist_ok=True)
    model.save(folder / name)
    card = CARD.format(
        env_id=env_id,
        version=sb3_dqs.__version__,
        steps=plan.steps,
        seed=seed,
        settings=", ".join(f"`{key}={value!r}`" for key, value in plan.settings.items()) or "none",
        episodes=episodes,
        deterministic=returns(model, env_id, episodes, seed + 1, deterministic=True),
        sampled=returns(model, env_id, episodes, seed + 1, deterministic=False),
        file=(folder / f"{name}.zip").as_posix(),
        command=f"python examples/agents.py --env {env_id} --steps {plan.steps} --seed {seed} --episodes {episodes}",
    )
    (folder / "README.md").write_text(card)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", nargs="+", choices=PLANS, default=list(PLANS), help="which agents; all of them by default")
    parser.add_argument("--steps", type=int, help="environment steps of training in place of those planned")
    parser.add_argument("--episodes", type=int, default=20, help="episodes of each evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of torch; small networks rarely gain from more than one")
    parser.add_argument("--output", type=Path, default=Path("agents"), help="folder of all agents")
    arguments = parser.parse_args()
    require("tqdm", "rich", *["mujoco"] * ("HalfCheetah-v5" in arguments.env))
    th.set_num_threads(arguments.threads)
    for env_id in arguments.env:
        plan = PLANS[env_id]
        plan = Plan(arguments.steps or plan.steps, plan.settings)
        print(f"{env_id}: {plan.steps} steps")
        print(make_agent(env_id, plan, arguments.seed, arguments.episodes, arguments.output))


if __name__ == "__main__":
    main()
