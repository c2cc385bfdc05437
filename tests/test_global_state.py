"""What is global to a process is after a call as it was before."""

import json
import os
import pathlib
import subprocess
import sys

CALLS = pathlib.Path(__file__).with_name("own_state.py")


def test_a_call_changes_nothing_of_the_process(tmp_path):
    # The command sets the level of TensorFlow's words where the user does not.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    command = [sys.executable, CALLS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["ran"] == ["run", *["keras"] * 5, *["tf_keras"] * 5, "wrap"]
    assert len(found["changed"]) == 15
    assert not any(found["changed"].values()), found["changed"]
