"""Progress in a real terminal, and where the output is none."""

import os
import pty
import re
import subprocess
import sys
import termios

COMMAND = [
    sys.executable,
    "-m",
    "tf_lottery",
    "run",
    "--config.network.name=mlp:16",
    "--config.train.steps=3000",
    "--config.train.eval_every_steps=100",
    "--config.prune.levels=1",
]
LINE = re.compile(
    r"level  1  reinit  81\.\d\d%  step +([\d,]+) \|.{20}\| +(\d+) %, +[\d.]+ steps/s, [\d:]+ left"
)


def test_one_live_line_with_arm_level_density_step_speed_and_time_left(tmp_path):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    process = subprocess.Popen([*COMMAND, f"--workdir={tmp_path}"], stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    shown = b""
    try:
        while received := os.read(ours, 4096):
            shown += received
    except OSError:  # how a terminal ends
        pass
    assert process.wait() == 0, process.stderr.read()
    live = LINE.findall(shown.decode())
    steps, percents = ([int(pair[n].replace(",", "")) for pair in live] for n in (0, 1))
    assert len(live) > 1 and steps == sorted(steps) and percents == sorted(percents)
    assert steps[-1] <= 3000 and 66 <= percents[0] <= percents[-1] <= 100
    # The line is gone at the end, and each network that is done has one of its own.
    done = re.findall(r"level +(\d)  (\w+) +[\d.]+%  early stop at step", shown.decode())
    assert done == [("0", "ticket"), ("1", "ticket"), ("1", "reinit")]
    assert "|" not in shown.decode().rpartition("early stop at step")[2].replace("\x1b", "")


def test_a_pipe_gets_no_live_line(tmp_path):
    done = subprocess.run([*COMMAND, f"--workdir={tmp_path}"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\r" not in done.stdout and "|" not in done.stdout and "steps/s" not in done.stdout
    assert done.stdout.count("early stop at step") == 4  # three networks and the verdict
