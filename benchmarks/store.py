"""Where does a result live? One JSON per run, written whole or not at all, and the state to continue an unfinished run."""

import contextlib
import fcntl
import glob
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.plan import Run

RESULTS = Path(__file__).parent / "results"


class Store:
    """
    :param folder: of the results of a tier; made where missing
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.state = folder / ".state"

    def path(self, run: Run) -> Path:
        return self.folder / f"{run.name}.json"

    def load(self, run: Run) -> dict[str, Any] | None:
        """
        :param run: finished or not
        :return: its result, or None
        :raises ValueError: if the file holds the result of another run
        """
        path = self.path(run)
        if not path.exists():
            return None
        result = json.loads(path.read_text())
        if result["key"] != run.key:
            raise ValueError(f"{path.name} holds key {result['key']!r}, expected {run.key!r}; a file was renamed or edited")
        return result

    def of_pair(self, algorithm: str, environment: str) -> list[dict[str, Any]]:
        """
        :param algorithm: name in the tier
        :param environment: name in the tier
        :return: all results of the two, of any seed and of any settings, former ones too
        """
        pattern = glob.escape(f"{environment}_{algorithm}_") + "*.json"
        results = [json.loads(path.read_text()) for path in sorted(self.folder.glob(pattern))]
        return [result for result in results if result["run"]["algorithm"] == algorithm]

    def save(self, run: Run, result: dict[str, Any]) -> None:
        """Write the result and give up what was kept to continue the run."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.path(run), json.dumps(result, indent=1))
        for state in (self.checkpoints(run), aside_of(self.checkpoints(run))):
            shutil.rmtree(state, ignore_errors=True)

    def checkpoints(self, run: Run) -> Path:
        return self.state / run.key

    @contextlib.contextmanager
    def locked(self, run: Run) -> Iterator[bool]:
        """
        Hold the run, so that no other process on this machine trains it too; the lock ends with the process, however it ends.

        :return: whether the run is ours; False where another process holds it
        """
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / f"{run.key}.lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True


def aside_of(state: Path) -> Path:
    """Where the state of a run goes that other code has left."""
    return state.with_name(f"{state.name}.other-code")


def write_whole(path: Path, text: str) -> None:
    """
    Write a file so that at any moment it is either absent (or old) or complete.

    :param path: of the file
    :param text: its content
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
