"""Does a database get a heartbeat, and only while the zoo runs?"""

import optuna
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from sb3_dqs.zoo import storage


@pytest.mark.parametrize("refusal", [IntegrityError, OperationalError, ProgrammingError])
def test_workers_that_create_the_tables_of_a_database_at_once_try_again(refusal, tmp_path, monkeypatch):
    attempts = []

    class Refused(storage.RDBStorage):
        def __init__(self, *args, **kwargs):
            attempts.append(1)
            if len(attempts) < 3:
                raise refusal("CREATE TABLE", {}, Exception("already exists"))
            super().__init__(*args, **kwargs)

    monkeypatch.setattr(storage, "RDBStorage", Refused)
    monkeypatch.setattr(storage, "TABLE_CREATION_PAUSE", 0)
    database = storage.heartbeat_storage(f"sqlite:///{tmp_path}/study.db", heartbeat_interval=7, max_retries=0)
    assert len(attempts) == 3
    assert database.get_heartbeat_interval() == 7

    attempts.clear()
    monkeypatch.setattr(storage, "TABLE_CREATION_ATTEMPTS", 2)
    with pytest.raises(refusal):
        storage.heartbeat_storage(f"sqlite:///{tmp_path}/study.db")


def test_database_gets_a_heartbeat_and_other_storages_stay_as_they_are(zoo, monkeypatch):
    given = []

    def create_study(*args, storage=None, **kwargs):
        given.append(storage)
        raise KeyboardInterrupt

    monkeypatch.setattr(optuna, "create_study", create_study)
    for url, own in (("sqlite:///study.db", ("--grace-period", 90)), ("study.log", ())):
        study = ("-optimize", "--storage", url, *own, "--study-name", "x")
        with pytest.raises(KeyboardInterrupt):
            zoo("train", "--algo", "dqs", "--env", "Pendulum-v1", "-n", 10, *study)
        # put back, although the run ended by an exception
        assert optuna.create_study is create_study
    database, journal = given
    assert database.get_heartbeat_interval() == 60
    assert database.grace_period == 90
    assert isinstance(journal, optuna.storages.JournalStorage)
