"""Does a Ray cluster finish every run exactly once, even if a node dies at work?"""

import os
import threading
import time

# Ray reads this when it is imported: the cluster of the test uses the loopback address alone
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"

import pytest
import yaml

from benchmarks.plan import load_tier
from benchmarks.run import run_on_ray
from benchmarks.store import Store
from benchmarks.train import train
from tests.benchmarks.test_run import TIER

ray = pytest.importorskip("ray")


@pytest.fixture
def two_nodes(monkeypatch):
    """A cluster of two nodes with one core each; the second one can be killed."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    resources = {"num_cpus": 1, "object_store_memory": 100 * 1024**2}
    cluster = Cluster(initialize_head=True, head_node_args={**resources, "include_dashboard": False})
    second_node = cluster.add_node(**resources)
    yield cluster, second_node
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.integration
def test_every_run_is_finished_exactly_once_though_a_node_dies(two_nodes, tmp_path):
    cluster, second_node = two_nodes
    path = tmp_path / "tiny.yml"
    environments = {"MultiGoal": {**TIER["environments"]["MultiGoal"], "steps": 200}}
    path.write_text(yaml.safe_dump({**TIER, "environments": environments}))
    runs = load_tier(str(path)).select()
    assert len(runs) == 4
    log = tmp_path / "log"
    log.touch()

    def logged_training(run, device, commit):
        node = ray.get_runtime_context().get_node_id()
        with log.open("a") as file:
            file.write(f"start {run.key} {node}\n")
        result = train(run, None, device, commit)
        with log.open("a") as file:
            file.write(f"end {run.key} {node}\n")
        return result

    def entries(what):
        lines = [line.split() for line in log.read_text().splitlines()]
        return [(key, node) for kind, key, node in lines if kind == what]

    killed = []

    def kill_second_node_at_work():
        while not killed:
            at_work = [entry for entry in entries("start") if entry[1] == second_node.node_id]
            if at_work:
                killed.append(at_work[0])
                cluster.remove_node(second_node, allow_graceful=False)
            time.sleep(0.1)

    killer = threading.Thread(target=kill_second_node_at_work, daemon=True)
    killer.start()
    store = Store(tmp_path / "results")
    outcomes = list(run_on_ray(runs, store, cluster.address, logged_training, "cpu"))
    killer.join(timeout=60)

    # one run was cut off, and started again on the node that was left
    (cut_off,) = killed
    assert cut_off not in entries("end")
    assert [key for key, _ in entries("start")].count(cut_off[0]) == 2
    # each run ended once, came back once and is one file
    assert sorted(key for key, _ in entries("end")) == sorted(run.key for run in runs)
    assert sorted(run.key for run, _ in outcomes) == sorted(run.key for run in runs)
    assert [error for _, error in outcomes] == [None] * 4
    assert len(list(store.folder.glob("*.json"))) == 4
    for run in runs:
        assert [record["steps"] for record in store.load(run)["records"]] == [40, 80, 120, 160, 200]
