"""How do many machines share one study, and what happens to the trial of a machine that dies?"""

import contextlib
import functools
import time
import warnings
from collections.abc import Iterator
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from sb3_dqs.checks import InputError, as_integer

HEARTBEAT_INTERVAL = 60
MAX_RETRIES = 3

# How often, and after how many seconds each, to look again at a database whose tables another worker is creating
TABLE_CREATION_ATTEMPTS = 5
TABLE_CREATION_PAUSE = 1.0


def check_heartbeat(
    heartbeat_interval: int = HEARTBEAT_INTERVAL, grace_period: int | None = None, max_retries: int = MAX_RETRIES
) -> None:
    """
    Arguments are those of :func:`heartbeat_storage`.

    :raises ValueError: if a number is out of range, or a trial that is alive would be stale between two heartbeats
    """
    as_integer("heartbeat_interval", heartbeat_interval, 1, f"{HEARTBEAT_INTERVAL} seconds is the default")
    as_integer("max_retries", max_retries, 0, "0 never runs a stale trial again")
    if grace_period is not None:
        as_integer("grace_period", grace_period, 1, "twice the heartbeat interval is the default")
        if grace_period <= heartbeat_interval:
            raise InputError(
                f"grace_period must be longer than heartbeat_interval, {heartbeat_interval} seconds, got {grace_period}: "
                "trials that are alive would be failed between two heartbeats; twice the interval is the default"
            )


def heartbeat_storage(
    url: str, heartbeat_interval: int = HEARTBEAT_INTERVAL, grace_period: int | None = None, max_retries: int = MAX_RETRIES
) -> RDBStorage:
    """
    A database that knows which trials are alive: a running trial without a heartbeat is failed and queued again.

    Stale trials are looked for whenever a worker asks for its next trial, so a worker that is alive must still have one
    to ask for.

    :param url: of the database, as SQLAlchemy reads it, for instance ``postgresql+psycopg://user@host/database``
    :param heartbeat_interval: seconds between two heartbeats of a running trial, >= 1
    :param grace_period: seconds without a heartbeat after which a trial is stale; ``None``: twice the interval
    :param max_retries: how many times a stale trial is queued again, >= 0
    :return: storage for ``optuna.create_study`` and ``optuna.load_study``
    :raises ValueError: if a number is out of range, or a trial that is alive would be stale between two heartbeats
    """
    check_heartbeat(heartbeat_interval, grace_period, max_retries)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        open_storage = functools.partial(
            RDBStorage,
            url,
            # Between two reports of a long trial, a firewall or a restart of the server may have cut the connection
            engine_kwargs={"pool_pre_ping": True},
            heartbeat_interval=heartbeat_interval,
            grace_period=grace_period,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(max_retry=max_retries),
        )
        # Workers that start together on an empty database all create Optuna's tables, and all but one are refused, by SQLite
        # as if the database did not work
        for _ in range(TABLE_CREATION_ATTEMPTS - 1):
            try:
                return open_storage()
            except (IntegrityError, OperationalError, ProgrammingError):
                time.sleep(TABLE_CREATION_PAUSE)
        return open_storage()


@contextlib.contextmanager
def databases_with_heartbeat(**settings: int | None) -> Iterator[None]:
    """
    While this is open, a URL that is handed to ``optuna.create_study`` means a database with heartbeat.

    The zoo hands the URL on as a string, and offers no place for a storage object.

    :param settings: arguments of :func:`heartbeat_storage`
    """
    create_study = optuna.create_study

    @functools.wraps(create_study)
    def create(*args: Any, storage: Any = None, **kwargs: Any) -> optuna.Study:
        if isinstance(storage, str):
            storage = heartbeat_storage(storage, **settings)  # type: ignore[arg-type]
        return create_study(*args, storage=storage, **kwargs)

    optuna.create_study = create
    try:
        yield
    finally:
        optuna.create_study = create_study
