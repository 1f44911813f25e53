"""Runs the scripts of the zoo in this process, in a folder of the test's own."""

import pytest

from sb3_dqs.command_line import main

TINY = ["--device", "cpu", "--num-threads", "1", "--eval-episodes", "1"]


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """``zoo("train", ...)`` is ``sb3-dqs train ...`` in an empty folder; returns the exit status."""
    monkeypatch.chdir(tmp_path)

    def run(script, *arguments):
        return main([script, *(TINY if script == "train" else []), *map(str, arguments)])

    run.folder = tmp_path
    return run
