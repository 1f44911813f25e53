"""Do several workers share a study, and does nothing finished get lost when one of them is killed?"""

import os

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


def spans(trials):
    return [(trial.datetime_start, trial.datetime_complete) for trial in trials]


def test_two_workers_on_one_journal(tmp_path):
    workers = [Worker(name, tmp_path, *TRIALS, "-n", 400, "--n-trials", 2, "-uuid") for name in ("first", "second")]
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
    assert any(
        start < other_end and other_start < end
        for start, end in spans(of_first)
        for other_start, other_end in spans(of_second)
    )


def test_two_workers_create_one_study_in_an_empty_database_at_once(database, tmp_path):
    workers = [
        Worker(name, tmp_path, *TRIALS, "-n", 101, "--n-trials", 1, "--storage", database, "-uuid")
        for name in ("first", "second")
    ]
    for worker in workers:
        assert worker.wait(120) == 0, worker.output
    assert [trial.state for trial in load(database).trials] == [TrialState.COMPLETE] * 2


def test_killed_worker_costs_no_finished_trial_and_its_trial_is_run_again(database, tmp_path):
    heartbeat = ("--storage", database, "--heartbeat-interval", 1, "--grace-period", 3, "-n", 500, "-uuid")
    doomed = Worker("doomed", tmp_path, *TRIALS, *heartbeat, "--n-trials", 50)

    def in_mid_trial_after_a_finished_one():
        names = optuna.get_all_study_names(database) if "A new study created" in doomed.output else []
        trials = load(database).trials if "shared" in names else []
        states = [trial.state for trial in trials]
        return TrialState.COMPLETE in states and states[-1] == TrialState.RUNNING and "policy_delay" in trials[-1].params

    wait_until(in_mid_trial_after_a_finished_one, 120, "a trial was finished and another was running", doomed)
    survivor = Worker("survivor", tmp_path, *TRIALS, *heartbeat, "--n-trials", 4)
    wait_until(lambda: "Optimizing hyperparameters" in survivor.output, 60, "the survivor had begun", survivor)
    doomed.kill()
    before = load(database).trials
    finished_before = {trial.number: trial.value for trial in before if trial.state == TrialState.COMPLETE}
    stale = [
        trial for trial in before if trial.state == TrialState.RUNNING and f"Trial {trial.number} " not in survivor.output
    ]

    assert survivor.wait(150) == 0, survivor.output
    study = load(database)
    assert finished_before
    assert {number: study.trials[number].value for number in finished_before} == finished_before
    assert not study.get_trials(states=[TrialState.RUNNING, TrialState.WAITING])

    failed = study.get_trials(states=[TrialState.FAIL])
    assert len(failed) == 1
    assert failed[0].number in [trial.number for trial in stale]
    again = [trial for trial in study.trials if trial.system_attrs.get("failed_trial") == failed[0].number]
    assert len(again) == 1
    assert again[0].state == TrialState.COMPLETE
    assert again[0].params == failed[0].params
    assert f"Trial {again[0].number} finished" in survivor.output


def test_killed_training_loses_no_more_than_one_checkpoint_interval(tmp_path):
    interval = 150
    run = tmp_path / "logs/dqs/Pendulum-v1_1"
    arguments = ("train", "--algo", "dqs", "--env", "Pendulum-v1", "--eval-freq", -1, "--device", "cpu", "--num-threads", 1)
    worker = Worker("doomed", tmp_path, *arguments, "-n", 100_000, "--save-freq", interval, "--save-replay-buffer")
    wait_until((run / f"rl_model_{2 * interval}_steps.zip").is_file, 120, "the second checkpoint", worker)
    worker.kill()

    # the newest checkpoint may have been cut in the middle of its writing, the one before may not
    checkpoints = sorted(int(path.stem.split("_")[2]) for path in run.glob("rl_model_*_steps.zip"))
    n_steps = checkpoints[-2]
    assert checkpoints[-1] - n_steps == interval
    model = DQS.load(run / f"rl_model_{n_steps}_steps.zip", device="cpu")
    model.load_replay_buffer(run / "replay_buffer.pkl")
    assert model.num_timesteps == n_steps
    assert model._n_updates == n_steps - model.learning_starts
    assert model.replay_buffer.size() in (n_steps, n_steps + interval)

    continued = Worker("continued", tmp_path, *arguments, "-n", 101, "-i", run / f"rl_model_{n_steps}_steps.zip")
    assert continued.wait(60) == 0, continued.output
    assert "Loading replay buffer" in continued.output
