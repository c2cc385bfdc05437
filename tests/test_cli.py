"""The command: what it says, how it ends, and what it leaves alone."""

import errno
import functools
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from tf_lottery import cli
from tf_lottery.analysis.findings import Findings
from tf_lottery.experiments import commands, driver, running, stored, workdirs
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments.analyses import report
from tf_lottery.training import recorded, runs

ROOT = pathlib.Path(__file__).parent.parent
TINY = [
    "--config.network.name=mlp:16",
    "--config.train.steps=40",
    "--config.train.eval_every_steps=10",
    "--config.prune.levels=2",
]
# As deaf to a KeyboardInterrupt as a long call into TensorFlow.
DEAF = "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()"


def refused(capsys, *words):
    """The one line that `tf-lottery run` ends with."""
    assert cli.main(["run", *words]) == 1
    err = capsys.readouterr().err
    assert err.startswith("tf-lottery: ") and err.count("\n") == 1 and err.endswith("\n")
    return err.removeprefix("tf-lottery: ").strip()


def environment(*paths):
    """As a newcomer has it, with these folders to import from."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    return {**mine, "PYTHONPATH": os.pathsep.join(map(str, [*paths, ROOT]))}


def python(*words, **options):
    return subprocess.run(
        [sys.executable, *map(str, words)], capture_output=True, text=True, env=environment(), **options
    )


@pytest.fixture
def workdir(tmp_path):
    return tmp_path / "run"


@pytest.mark.parametrize("words", [[], ["help"], ["-h"], ["--help"], ["run", "--help"], ["run", "-h", "--x"]])
def test_help(capsys, words):
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    assert err == "" and "tf-lottery run [--config=FILE] [--config.ENTRY=VALUE ...] [--workdir=DIR]" in out
    assert all(f" {name}=" in out for name in config_module.fields())


def test_unknown_command(capsys):
    assert cli.main(["runn"]) == 1
    assert capsys.readouterr().err == (
        "tf-lottery: Unknown command 'runn'. Did you mean 'run'? "
        f"There are: run, tune, import-data, {', '.join(commands.COMMANDS)}, help.\n"
    )


def test_wrong_flags_are_one_line_and_leave_nothing(capsys, workdir):
    message = refused(capsys, f"--workdir={workdir}", "--config.train.stepz=3")
    assert message.startswith("Unknown config entry 'train.stepz'. Did you mean 'train.steps'?")
    assert refused(capsys, f"--workdir={workdir}", "--config.train.steps=0").endswith("Received 0.")
    assert not workdir.exists()


def test_what_is_wrong_early_is_told_without_tensorflow(workdir):
    program = (
        "import sys, tf_lottery\n"
        "assert not {'tensorflow', 'keras', 'numpy'} & set(sys.modules)\n"
        "from tf_lottery import cli\n"
        "assert cli.main(['run', '--config.train.step=3']) == 1\n"
        "assert cli.main(['run', '--workdir=' + sys.argv[1]]) == 1\n"
        "assert cli.main(['--help']) == 0\n"
        "assert not {'tensorflow', 'keras', 'tf_keras'} & set(sys.modules)\n"
    )
    workdir.touch()
    done = python("-c", program, workdir)
    assert done.returncode == 0, done.stderr
    assert f"tf-lottery: '{workdir}' is a file. Choose another workdir.\n" in done.stderr


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.name=digit", "Unknown data set 'digit'. Did you mean 'digits'?"),
        ("data.name=idx:gone", "There is no folder 'gone'"),
        ("data.name=idx:.", "'.' lacks train-images-idx3-ubyte"),
        ("data.validation_size=1201", "validation_size must be in 1..1200"),
        ("train.optimizer=adm", "Unknown optimizer 'adm'. Did you mean 'adam'?"),
        ("network.initializer=glorot", "Unknown initializer 'glorot'. Did you mean 'glorot_normal'?"),
        ("network.name=mlp:", "Network 'mlp:' lacks the widths of its hidden layers"),
        ("network.name=lenet_300_100:5", "Network 'lenet_300_100' takes no argument, but got '5'"),
    ],
)
def test_a_start_that_fails_leaves_no_workdir(capsys, workdir, tmp_path, monkeypatch, word, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, f"--workdir={workdir}", f"--config.{word}")
    assert list(tmp_path.iterdir()) == []


def test_data_that_cannot_be_had(capsys, workdir, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "_answers", lambda url: False)
    words = ["--config.data.name=mnist", f"--config.data.data_dir={tmp_path}", f"--workdir={workdir}"]
    message = refused(capsys, *words)
    assert f"'mnist' is not prepared in '{tmp_path}'" in message and "cannot be reached" in message
    assert "'idx:DIR'" in message and "'digits'" in message
    assert not workdir.exists()


def test_a_truncated_idx_file(capsys, workdir, tmp_path):
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (tmp_path / f"{name}-ubyte").write_bytes(bytes([0, 0, 8, int(name[-1])]))
    message = refused(capsys, f"--config.data.name=idx:{tmp_path}", f"--workdir={workdir}")
    assert message == f"{tmp_path}/train-images-idx3-ubyte is cut short within its header; get it again."
    assert not workdir.exists()


def test_a_batch_larger_than_the_data(capsys, workdir):
    message = refused(capsys, f"--workdir={workdir}", "--config.train.batch_size=902")
    assert "batch_size must be 1 to 901, the training examples. Received 902." in message
    assert not workdir.exists()


def test_a_loss_that_is_not_finite(capsys, workdir):
    words = [*TINY, f"--workdir={workdir}", "--config.train.learning_rate=1e30", "--config.flavour=keras"]
    message = refused(capsys, *words, "--config.train.on_nan=stop")
    assert message.startswith("The loss is nan at step 10 of level 0, arm 'ticket'")
    assert "Lower the learning rate" in message
    assert recorded.results(workdir) == []


@pytest.fixture
def driven(monkeypatch):
    """Puts a function in the driver's place."""
    return functools.partial(monkeypatch.setattr, driver, "run")


def test_a_workdir_of_another_config_is_refused_before_anything_is_done(capsys, workdir, driven):
    config = config_module.ExperimentConfig()
    runs.RunDirectory(workdir, {"train": {"steps": 9}}).open()
    before = {path: path.read_bytes() for path in workdir.iterdir()}
    driven(pytest.fail)
    assert cli.main(["run", f"--workdir={workdir}"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == f"tf-lottery: '{workdir}' belongs to a run with another config:"
    assert lines[1] == f"  train.steps: 9 there, {config.train.steps} now"
    assert lines[-1] == "Choose another workdir, or the config of that run."
    assert {path: path.read_bytes() for path in workdir.iterdir()} == before


def test_a_workdir_in_use_is_refused(capsys, workdir, driven):
    driven(pytest.fail)
    directory = workdirs.directory(config_module.ExperimentConfig(), workdir).open()
    with directory.replicate(1).claimed():
        message = refused(capsys, f"--workdir={workdir}")
    assert message.startswith(f"'{workdir}' is in use by another run (process {os.getpid()} on ")


DENIED = (
    "'some/file': Permission denied. Mend its permissions, and the same command goes on from what is done."
)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("wrong."), "wrong."),
        (PermissionError(errno.EACCES, "Permission denied", "some/file"), DENIED),
        (FileNotFoundError("There is no folder 'x'."), "There is no folder 'x'."),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "No space left on device. Make room, and the same command goes on from what is done.",
        ),
        (MemoryError(), "Out of memory: lower config.train.batch_size, or take a smaller network."),
    ],
)
def test_an_error_is_one_line(capsys, workdir, driven, error, message):
    def run(*_):
        raise error

    driven(run)
    assert refused(capsys, f"--workdir={workdir}") == message


def test_memory_that_tensorflow_lacks(capsys, workdir, driven):
    import tensorflow as tf

    def run(*_):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating\n a tensor")

    driven(run)
    assert refused(capsys, f"--workdir={workdir}").startswith("Out of memory: lower config.train.batch_size")


def test_a_fault_of_the_program_is_not_hidden(workdir, driven):
    def run(*_):
        raise ZeroDivisionError

    driven(run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", f"--workdir={workdir}"])


def test_a_run_says_what_it_does(capsys, workdir):
    words = ["run", *TINY, f"--workdir={workdir}", "--config.flavour=keras"]
    assert cli.main([*words, "--config.controls="]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(
        "mlp:16 on digits, 3 networks: tickets 3 x 40 steps.\n"
        f"Results go to {workdir}.\n"
        "level  0  ticket 100.00%  "
    )
    assert out.endswith(f"tensorboard --logdir {workdir}/tensorboard\n")
    assert "test acc %" in out and "icket" in out and (workdir / "figures/search.png").exists()

    assert cli.main([*words, "--config.controls=reinit", "--config.control_levels=1"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(
        "mlp:16 on digits, 4 networks: tickets 3 x 40 steps, controls 1 x 40 steps.\n"
        f"Goes on in {workdir}; networks done already: 3.\n"
    )
    progress = [line.split("%")[0] for line in out.splitlines() if line.startswith("level ")][:4]
    names = [("0", "ticket"), ("1", "ticket"), ("1", "reinit"), ("2", "ticket")]
    assert [tuple(line.split()[1:3]) for line in progress] == names
    assert [(str(result.level), result.arm) for result in recorded.results(workdir)] == names


@pytest.mark.parametrize(
    ("words", "flavour"), [(["-m", "tf_lottery", "run"], "tf_keras"), ([ROOT / "tools/lottery.py"], "keras")]
)
def test_nothing_but_the_run_is_printed(workdir, words, flavour):
    done = python(*words, *TINY, f"--workdir={workdir}", f"--config.flavour={flavour}")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("mlp:16 on digits") and done.stdout.count("level ") == 5 + 1 + 1
    assert len(recorded.results(workdir)) == 5


def started(tmp_path, program, ignored=signal.SIG_DFL):
    """A process whose `tensorflow` is that program; returns it once this has printed a line."""
    (tmp_path / "tensorflow.py").write_text(f"print('importing', flush=True)\n{program}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "tf_lottery", "run", f"--workdir={tmp_path / 'run'}"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(tmp_path),
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, ignored),
    )
    while "importing" not in (line := process.stdout.readline()):
        assert line, process.communicate()
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_ends_it_at_once_and_says_how_to_go_on(tmp_path, number, status):
    process = started(tmp_path, DEAF)
    process.send_signal(number)
    _, err = process.communicate()
    message = "tf-lottery: stopped. What is done is kept, and the same command goes on from there."
    assert (process.returncode, err.strip()) == (status, message)
    assert not (tmp_path / "run").exists()


def test_a_command_in_the_background_ignores_ctrl_c(tmp_path):
    process = started(tmp_path, DEAF, ignored=signal.SIG_IGN)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == 75


SLOW = """
import os, signal, sys, time
from tf_lottery.experiments import stopping

stopping._PATIENCE = float(sys.argv[1])
with stopping.once_saved(), stopping.saving():
    for name in sys.argv[2:]:
        os.kill(os.getpid(), getattr(signal, name))
        while not stopping.told():
            time.sleep(0.01)
        time.sleep(0.2)
    print("saved", flush=True)
    if len(sys.argv) == 3:  # what is saved takes longer than there is time
        time.sleep(60)
    raise KeyboardInterrupt
"""


@pytest.mark.parametrize(
    ("words", "saved", "status"),
    [
        (["60", "SIGTERM", "SIGTERM", "SIGTERM"], True, 75),  # `timeout`, and a group, have it sent twice
        (["60", "SIGINT", "SIGTERM"], True, 130),
        (["60", "SIGTERM", "SIGINT"], False, 75),
        (["60", "SIGINT", "SIGINT"], False, 130),
        (["0.5", "SIGTERM"], True, 75),
    ],
)
def test_a_second_ctrl_c_ends_it_at_once_and_time_does_in_any_case(words, saved, status):
    done = subprocess.run([sys.executable, "-c", SLOW, *words], capture_output=True, text=True, timeout=30)
    assert (done.stdout == "saved\n", done.returncode) == (saved, status)
    assert done.stderr.endswith("and the same command goes on from there.\n")


def test_signals_are_as_they_were_afterwards():
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    cli.main(["help"])
    assert [signal.getsignal(number) for number in numbers] == before
    assert signal.set_wakeup_fd(-1) == -1


NOISE = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795544692.011182   24642 cudart_stub.cc:31] Could not find cuda drivers on your machine.
E0000 00:00:1795544702.056184   24642 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error: \
Failed call to cuInit: UNKNOWN ERROR (303)
E0000 00:00:1795544702.056184   24642 cuda_dnn.cc:8310] Unable to register cuDNN factory
"""
ERROR = (
    "E0000 00:00:1795544702.056184   24642 cuda_platform.cc:52] failed call to cuInit: UNKNOWN ERROR (999)\n"
)


@pytest.mark.parametrize(
    ("end", "status", "last"),
    [("", 1, "tf-lottery: nothing more"), ("import os; os.abort()", -signal.SIGABRT, "")],
)
def test_noise_is_dropped_and_errors_pass(tmp_path, end, status, last):
    lines = ["F0000 This CPU lacks what it needs\n", NOISE, ERROR, "Warning of Python\n"]
    program = f"import os\nos.write(2, {''.join(lines)!r}.encode())\n{end}\nraise ValueError('nothing more')"
    process = started(tmp_path, program)
    _, err = process.communicate()
    assert process.returncode == status
    assert err.strip() == "".join([lines[0], ERROR, lines[3], last]).strip()


def test_nobody_reads_what_is_printed():
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "tf_lottery", "--help"]
    done = subprocess.run(words, stdout=writer, stderr=subprocess.PIPE, text=True, env=environment())
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, "")


def test_what_is_announced_is_what_is_trained(workdir, monkeypatch):
    announced, trained = [], []

    def announcement(config, *_):
        announced.append(config_module.count_networks(config))
        return ""

    monkeypatch.setattr(running, "_announcement", announcement)

    monkeypatch.setattr(runs.ReplicateStore, "save", lambda self, network: trained.append(network.start.arm))
    words = ["--config.replicates=2", "--config.controls=reinit,shuffle", "--config.control_levels=0,2"]
    monkeypatch.setattr(report, "analyze", lambda folder: Findings(""))
    assert cli.main(["run", *TINY, *words, f"--workdir={workdir}", "--config.train.steps=10"]) == 0
    tickets = trained.count("ticket")
    assert announced == [(tickets, len(trained) - tickets)] == [(6, 8)]
    assert set(trained) == {"ticket", "reinit", "shuffle"}
