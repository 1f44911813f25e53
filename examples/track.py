"""
Send the log of a run to a tracker: Weights & Biases copies what SB3 writes for TensorBoard.

    python examples/track.py [--env Pendulum-v1] [--steps 10000] [--mode online]

Without ``--mode online`` the run stays in a folder, and ``wandb sync FOLDER`` sends it later. ``tensorboard --logdir
runs/track`` shows the same log without an account.
"""

import argparse
from pathlib import Path

from sb3_dqs import DQS
from sb3_dqs.extras import require


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="Pendulum-v1", help="id of an environment with bounded continuous actions")
    parser.add_argument("--steps", type=int, default=10_000, help="environment steps of training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--project", default="sb3-dqs", help="name of the project in the tracker")
    parser.add_argument("--mode", choices=["offline", "online"], default="offline", help="online needs an account")
    parser.add_argument("--output", type=Path, default=Path("runs/track"), help="folder of the logs")
    arguments = parser.parse_args()
    require("wandb", "tensorboard", "tqdm", "rich")
    import wandb

    arguments.output.mkdir(parents=True, exist_ok=True)
    settings = {"temperature": "auto", "cooling_updates": 5_000}
    config = {"env": arguments.env, "seed": arguments.seed, **settings}
    # before the model makes its logger: wandb watches for the writer of TensorBoard
    with wandb.init(
        project=arguments.project, config=config, sync_tensorboard=True, mode=arguments.mode, dir=arguments.output
    ) as run:
        model = DQS(
            "MlpPolicy", arguments.env, tensorboard_log=str(arguments.output / run.id), seed=arguments.seed, **settings
        )
        model.learn(arguments.steps, progress_bar=True)
        folder = run.dir
    print(f"The run is in {Path(folder).parent}")


if __name__ == "__main__":
    main()
