"""Do several workers share a study, and does nothing finished get lost when one of them is killed?"""

import os
import signal

import optuna
import pytest
from optuna.trial import TrialState

from sb3_dqs import DQS
from tests.zoo.processes import Worker, postgres_program, postgres_server, wait_until

pytestmark = pytest.mark.integration

# Real trials of DQS on an environment of short episodes, a few seconds each
TRIALS = (
    *("train", "--algo", "dqs", "--env", "sb3_dqs/MultiGoal-v0", "-optimize", "--study-name", "shared", "--device", "cpu"),
    *("--num-threads", "1", "--n-evaluations", "2", "--eval-episodes", "1", "--pruner", "none", "--no-optim-plots"),
)


@pytest.fixture
def database():
    if postgres_program("initdb") is None:
        assert "CI" not in os.environ, ".ci/run installs PostgreSQL"
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    with postgres_server() as url:
        yield url


def load(storage):
    return optuna.load_study(study_name="shared", storage=storage)


def overlap(first, second):
    return first.datetime_start < second.datetime_complete and second.datetime_start < first.datetime_complete


@pytest.fixture
def start(tmp_path):
    """``start("name", "train", ...)`` is ``sb3-dqs train ...`` in a process of its own, which never outlives the test."""
    workers = []

    def run(name, *arguments):
        workers.append(Worker(name, tmp_path, *arguments))
        return workers[-1]

    yield run
    for worker in workers:
        worker.kill()


def test_two_workers_on_one_journal(start, tmp_path):
    workers = [start(name, *TRIALS, "-n", 250, "--n-trials", 2, "-uuid") for name in ("first", "second")]
    for worker in workers:
        assert worker.wait(150) == 0, worker.output
        assert worker.output.count("finished with value") == 2
    journal = optuna.storages.journal.JournalFileBackend(str(tmp_path / "logs/dqs/studies.log"))
    trials = load(optuna.storages.JournalStorage(journal)).trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 4
    # each saw the trials of the other: numbers were given once, and both worked at the same time
    assert [trial.number for trial in trials] == [0, 1, 2, 3]
    of_first = [trial for trial in trials if f"Trial {trial.number} finished" in workers[0].output]
    of_second = [trial for trial in trials if trial not in of_first]
    assert len(of_first) == 2
    assert any(overlap(first, second) for first in of_first for second in of_second)


def test_two_workers_create_one_study_in_an_empty_database_at_once(database, start):
    workers = [
        start(name, *TRIALS, "-n", 101, "--n-trials", 1, "--storage", database, "-uuid") for name in ("first", "second")
    ]
    for worker in workers:
        assert worker.wait(120) == 0, worker.output
    assert [trial.state for trial in load(database).trials] == [TrialState.COMPLETE] * 2


def test_killed_worker_costs_no_finished_trial_and_its_trial_is_run_again(database, start):
    heartbeat = ("--storage", database, "--heartbeat-interval", 1, "--grace-period", 3, "-n", 250, "-uuid")
    doomed = start("doomed", *TRIALS, *heartbeat, "--n-trials", 50)
    wait_until(lambda: "A new study created" in doomed.output, 60, "the study was created", doomed)
    survivor = start("survivor", *TRIALS, *heartbeat, "--n-trials", 6)

    def both_are_in_mid_trial():
        trials = load(database).trials
        running = [trial for trial in trials if trial.state == TrialState.RUNNING and "policy_delay" in trial.params]
        return len(running) == 2 and TrialState.COMPLETE in [trial.state for trial in trials]

    # Looked at again while the doomed worker is stopped, so that it cannot finish between the look and the kill
    while True:
        wait_until(both_are_in_mid_trial, 120, "both were in mid-trial, after a finished one", survivor)
        doomed.process.send_signal(signal.SIGSTOP)
        if both_are_in_mid_trial():
            break
        doomed.process.send_signal(signal.SIGCONT)
    doomed.kill()
    before = load(database).trials
    finished_before = {trial.number: trial.value for trial in before if trial.state == TrialState.COMPLETE}
    running_before = [trial.number for trial in before if trial.state == TrialState.RUNNING]

    assert survivor.wait(200) == 0, survivor.output
    study = load(database)
    assert finished_before
    assert {number: study.trials[number].value for number in finished_before} == finished_before
    assert not study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])

    failed = study.get_trials(states=[TrialState.FAIL])
    assert len(failed) == 1
    assert failed[0].number in running_before
    again = [trial for trial in study.trials if trial.system_attrs.get("failed_trial") == failed[0].number]
    assert len(again) == 1
    assert again[0].state == TrialState.COMPLETE
    assert again[0].params == failed[0].params
    assert f"Trial {again[0].number} finished" in survivor.output


def test_killed_training_loses_no_more_than_one_checkpoint_interval(start, tmp_path):
    interval = 150
    run = tmp_path / "logs/dqs/Pendulum-v1_1"
    arguments = ("train", "--algo", "dqs", "--env", "Pendulum-v1", "--eval-freq", -1, "--device", "cpu", "--num-threads", 1)
    worker = start("doomed", *arguments, "-n", 100_000, "--save-freq", interval, "--save-replay-buffer")
    wait_until((run / f"rl_model_{2 * interval}_steps.zip").is_file, 120, "the second checkpoint", worker)
    worker.kill()

    # the newest checkpoint may have been cut in the middle of its writing, the one before may not
    checkpoints = sorted(int(path.stem.split("_")[2]) for path in run.glob("rl_model_*_steps.zip"))
    n_steps = checkpoints[-2]
    assert checkpoints[-1] - n_steps == interval
    model = DQS.load(run / f"rl_model_{n_steps}_steps.zip", device="cpu")
    model.load_replay_buffer(run / "replay_buffer.pkl")
    assert model.num_timesteps == n_steps
    # the checkpoint of a step is written before its update, and before its transition is stored
    assert model._n_updates == n_steps - model.learning_starts - 1
    assert model.replay_buffer.size() in (n_steps - 1, n_steps + interval - 1)

    continued = start("continued", *arguments, "-n", 101, "-i", run / f"rl_model_{n_steps}_steps.zip")
    assert continued.wait(60) == 0, continued.output
    assert "Loading replay buffer" in continued.output
