"""How do many machines share one study, and what happens to the trial of a machine that dies?"""

import functools
import time
import warnings
from collections.abc import Callable

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from sqlalchemy.exc import IntegrityError, ProgrammingError

HEARTBEAT_INTERVAL = 60
MAX_RETRIES = 3

# How often, and after how many seconds each, to look again at a database whose tables another worker is creating
TABLE_CREATION_ATTEMPTS = 5
TABLE_CREATION_PAUSE = 1.0


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
    """
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
        # Workers that start together on an empty database all create Optuna's tables, and all but one are refused
        for _ in range(TABLE_CREATION_ATTEMPTS - 1):
            try:
                return open_storage()
            except (IntegrityError, ProgrammingError):
                time.sleep(TABLE_CREATION_PAUSE)
        return open_storage()


def create_study_with_heartbeat(create_study: Callable, open_database: Callable[[str], RDBStorage]) -> Callable:
    """
    The zoo hands the URL of a database on to ``optuna.create_study`` as a string, which has no heartbeat.

    :param create_study: ``optuna.create_study``
    :param open_database: what to make of a URL, for instance :func:`heartbeat_storage`
    :return: the same function, for which a URL means a database with heartbeat
    """

    @functools.wraps(create_study)
    def create(*args: object, storage: object = None, **kwargs: object) -> optuna.Study:
        if isinstance(storage, str):
            storage = open_database(storage)
        return create_study(*args, storage=storage, **kwargs)

    return create
