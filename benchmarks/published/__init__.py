"""
What have others published? Learning curves of methods that are not run here, read from their authors' files.

``curves.csv`` holds means over seeds, computed from the files that its column ``source`` names (repository, commit, path);
``value`` says whether a point was recorded at that step or lies between two that were. They are of other machines and of
version 4 of MuJoCo's tasks, those of the control suite with an action repeat of 2.
"""

import csv
import functools
from pathlib import Path

FILE = Path(__file__).parent / "curves.csv"

# task -> method -> environment steps -> mean return
Curves = dict[str, dict[str, dict[int, float]]]


@functools.cache
def published_curves() -> Curves:
    """
    :return: task -> method -> environment steps -> mean return over seeds
    """
    curves: Curves = {}
    with FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            curves.setdefault(row["env"], {}).setdefault(row["method"], {})[int(row["env_steps"])] = float(row["mean"])
    return curves
