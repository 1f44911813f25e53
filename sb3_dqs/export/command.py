"""How does ``sb3-dqs export`` find what it writes? From a saved model, or a run of the zoo with its statistics."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_dqs.checks import InputError
from sb3_dqs.dqs import DQS
from sb3_dqs.export.onnx import Comparison, compare_with_predict, export_onnx
from sb3_dqs.paper import PaperDQS, PaperPolicy
from sb3_dqs.policies import DiffusionPolicy

# Observations at which the file is compared with predict()
N_COMPARED = 1_000

# Actions of the file that are nearer than this to those of predict(), in units of half the range of the action, are the same
TOLERANCE = 1e-5

# Candidates whose Q differs by less than this, over its size, are equally good but for rounding
Q_TOLERANCE = 1e-4


def main(argv: Sequence[str]) -> int:
    """
    Export a saved model, and compare the file with ``predict()``.

    :param argv: arguments of the command line
    :return: exit status, 1 where the extra ``export`` is not installed, 2 where an argument was wrong, 3 where the file does
        not do what ``predict()`` does
    """
    parser = argparse.ArgumentParser("sb3-dqs export", description="Write the policy of a trained model as one ONNX file.")
    parser.add_argument("model", type=Path, help="a saved model (.zip), or the folder of a run of rl-zoo3")
    parser.add_argument("-o", "--output", type=Path, help="the file to write (default: beside the model)")
    parser.add_argument("--vec-normalize", type=Path, help="what VecNormalize.save() wrote (default: that of the zoo's run)")
    parser.add_argument("--batch-size", type=int, help="observations at once (default: any number)")
    parser.add_argument("--channels", choices=["first", "last"], help="where images from the environment have their channels")
    arguments = parser.parse_args(argv)
    channels_last = None if arguments.channels is None else arguments.channels == "last"
    try:
        model_path = find_model(arguments.model)
        model = load_model(model_path)
        # what lies beside a model that was trained without is another one's
        vec_normalize = arguments.vec_normalize or (statistics_beside(model_path) if model.lacks_statistics else None)
        output = arguments.output or model_path.with_suffix(".onnx")
        print(f"Exporting {model_path}" + (f" with {vec_normalize}" if vec_normalize else ""), flush=True)
        export_onnx(model, output, vec_normalize, arguments.batch_size, channels_last)
        rows_at_once = arguments.batch_size or 1
        n_observations = rows_at_once * max(1, N_COMPARED // rows_at_once)
        comparison = compare_with_predict(model, output, vec_normalize, n_observations)
    except (InputError, ImportError, OSError) as error:
        print(f"sb3-dqs export: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, ImportError) else 2
    print(f"{output}: {described(comparison)}")
    return 0 if is_equivalent(comparison).all() else 3


def described(comparison: Comparison) -> str:
    """
    :param comparison: of a file with ``predict()``
    :return: in words
    """
    is_same = comparison.differences < TOLERANCE
    words = f"{is_same.sum():,} of {len(is_same):,} actions are those of predict() to {TOLERANCE:.0e}"
    if is_same.all():
        return words
    q_difference = comparison.q_differences[~is_same].max()
    if not is_equivalent(comparison).all():
        return (
            f"{words}; THE OTHERS ARE NOT: they differ by up to {comparison.differences.max():.0e} of half their range, and "
            f"their Q by {q_difference:.0e} of its size. Do not use the file, and tell us of it"
        )
    return f"{words}; the others are other candidates, whose Q differs by {q_difference:.0e} of its size"


def is_equivalent(comparison: Comparison) -> np.ndarray:
    """
    :param comparison: of a file with ``predict()``
    :return: (n_observations,), whether the action is that of ``predict()``, or another candidate that is as good
    """
    is_other_candidate = comparison.n_candidates > 1 and comparison.q_differences < Q_TOLERANCE
    return (comparison.differences < TOLERANCE) | is_other_candidate


def find_model(path: Path) -> Path:
    """
    :param path: of a saved model, its ``.zip`` left out or not, or of the folder of a run of rl-zoo3
    :return: path of the saved model, the last one of a run
    :raises ValueError: if there is none
    """
    if not path.name:  # of the working directory, "."
        path = path.resolve()
    zip_path = path.with_name(path.name.removesuffix(".zip") + ".zip")
    # beside the model of a run lies a folder of the same name
    if path.is_dir() and not is_zipfile(zip_path):
        zip_path = path / f"{_settings_folder(path).name}.zip"
    if is_zipfile(zip_path):
        return zip_path
    others = ", ".join(sorted(map(str, path.glob("*.zip")))) if path.is_dir() else ""
    raise InputError(
        f"model must be a saved model or the folder of a finished run, and there is no {zip_path}"
        + (f"; name one of {others}" if others else "")
    )


def statistics_beside(model_path: Path) -> Path | None:
    """
    :param model_path: of a saved model
    :return: path of the statistics of ``VecNormalize`` where rl-zoo3 keeps those of its run, if it has any
    """
    path = _settings_folder(model_path.parent) / "vecnormalize.pkl"
    return path if path.is_file() else None


def load_model(path: Path) -> DQS:
    """
    Load a model that shall only act: on the CPU, with room for one transition.

    :param path: of a saved model
    :return: DQS, or PaperDQS where that is what was saved
    :raises ValueError: if it is the model of another algorithm
    """
    data, _, _ = load_from_zip_file(path, device="cpu")
    policy_class = (data or {}).get("policy_class")
    if not (isinstance(policy_class, type) and issubclass(policy_class, DiffusionPolicy)):
        raise InputError(
            f"model must be saved by DQS or PaperDQS, and {path} has the policy {policy_class}; SB3's documentation tells how "
            "to export those of its own algorithms"
        )
    algorithm = PaperDQS if issubclass(policy_class, PaperPolicy) else DQS
    # a replay buffer of its own may need the environment
    buffer: dict[str, Any] = {"buffer_size": 1, "replay_buffer_class": None, "replay_buffer_kwargs": {}}
    return algorithm.load(path, device="cpu", optimize_memory_usage=False, **buffer)


def _settings_folder(run: Path) -> Path:
    """Where rl-zoo3 keeps settings and statistics of a run: in a folder that has the name of the environment, as the model."""
    found = [path.parent for path in run.glob("*/config.yml")]
    return found[0] if found else run / run.resolve().name.rpartition("_")[0]
