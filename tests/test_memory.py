"""A long search holds no more memory than a short one, and leaves nothing behind in its process."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

GROWTH = pathlib.Path(__file__).with_name("growth.py")


@pytest.mark.parametrize("kind, name", [("stored", "keras"), ("held", "tf_keras"), ("driver", "tf_keras")])
def test_two_hundred_networks_hold_what_ten_hold(kind, name, tmp_path):
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "tmp")}
    command = [sys.executable, GROWTH, kind, name, tmp_path / "run"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    first, last = found["seen"]
    assert found["networks"] == 201
    assert abs(last["resident"] / first["resident"] - 1) < 0.05, (first, last)
    assert last["device"] == first["device"] > 0
    assert last["traces"] == first["traces"] > 0
    assert found["after"] == found["before"]
    assert list((tmp_path / "tmp").iterdir()) == []  # what TensorFlow has written there, it has removed
