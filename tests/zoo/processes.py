"""Real parts for the integration tests: workers in processes of their own, and a PostgreSQL server in a folder."""

import contextlib
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONUNBUFFERED": "1"}


class Worker:
    """``sb3-dqs ...`` in a process of its own, its output in a file."""

    def __init__(self, name: str, folder: Path, *arguments: object):
        self.output_path = folder / f"{name}.log"
        with self.output_path.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "sb3_dqs", *map(str, arguments)],
                cwd=folder,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**ENVIRONMENT, "PYTHONPATH": str(REPOSITORY)},
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        """SIGKILL, which no process can catch."""
        self.process.kill()
        self.process.wait(10)


def wait_until(condition: Callable[[], object], seconds: float, what: str, worker: Worker) -> None:
    """Look twice a second; fail with the worker's output when the time is over or the worker has ended early."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert worker.process.poll() is None, f"the worker ended before {what}:\n{worker.output}"
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}\n{worker.output}"
        time.sleep(0.5)


def postgres_program(name: str) -> str | None:
    """Path of a program of the PostgreSQL server; Debian keeps them outside of the search path."""
    found = [*Path("/usr/lib/postgresql").glob(f"*/bin/{name}")]
    return str(max(found)) if found else shutil.which(name)


@contextlib.contextmanager
def postgres_server() -> Iterator[str]:
    """
    A PostgreSQL server on a socket in a new folder, which listens on no network; yields the URL of its database.

    It refuses to run as root: root starts it as the user ``postgres``, or ``nobody`` where there is none.
    """
    folder = Path(tempfile.mkdtemp(prefix="sb3_dqs_postgres_"))
    user, as_user = pwd.getpwuid(os.getuid()).pw_name, {}
    if os.getuid() == 0:
        user = next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def run(program: str, *arguments: object) -> None:
        path = postgres_program(program)
        assert path is not None
        subprocess.run([path, *map(str, arguments)], check=True, cwd=folder, stdout=subprocess.DEVNULL, **as_user)

    data = folder / "data"
    try:
        run("initdb", "--pgdata", data, "--auth", "trust", "--username", "tuner", "--no-sync", "--encoding", "UTF8")
        run("pg_ctl", "--pgdata", data, "--wait", "--log", folder / "log", "-o", f"-k {folder} -h '' -F", "start")
        yield f"postgresql+psycopg://tuner@/postgres?host={folder}"
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            run("pg_ctl", "--pgdata", data, "--mode", "immediate", "stop")
        shutil.rmtree(folder)
