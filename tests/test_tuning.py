"""`tf-lottery tune`: trials that are runs of the driver, on both flavours and in several processes."""

import contextlib
import csv
import functools
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys

import keras_tuner
import pytest
from board import Board

from tf_lottery import cli, paths
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import flags, tuning, workdirs
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.experiments.experiment import copy_of
from tf_lottery.experiments.experiment_tuner import ExperimentTuner
from tf_lottery.training import recorded

pytestmark = pytest.mark.usefixtures("no_xla", "alone")
FILE = """
from tf_lottery.experiments.config import ExperimentConfig


def get_config():
    config = ExperimentConfig()
    config.network.name = "mlp:8"
    config.train.steps, config.train.eval_every_steps = 12, 4
    return config


def tune(config, hp):
    config.train.learning_rate = hp.Choice("rate", [0.01, 1e38])
    config.prune.fraction = hp.Choice("fraction", [0.5, 0.6, 0.7])
"""
WORDS = ["--trials=4", "--target_density=0.4"]


@pytest.fixture
def alone(monkeypatch):
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        monkeypatch.delenv(f"KERASTUNER_{name}", raising=False)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "small.py"
    path.write_text(FILE)
    return path


def tune(file, workdir, *words):
    return cli.main(["tune", f"--config={file}", f"--workdir={workdir}", *WORDS, *words])


@pytest.fixture(scope="module")
def tuned(file, tmp_path_factory):
    """The workdir of a tuning in this process: what others are compared with."""
    workdir = tmp_path_factory.mktemp("tuning") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        assert tune(file, workdir) == 0
    return workdir


def rows(workdir):
    with open(workdir / "trials.csv", newline="") as file:
        return list(csv.DictReader(file))


def results(workdir):
    return {path.parent.name: recorded.results(path.parent) for path in workdir.glob("*/config.json")}


def test_each_trial_is_a_run_without_controls_that_prunes_to_the_target(tuned):
    runs = results(tuned)
    assert sorted(runs) == ["reference", "trial_0", "trial_1", "trial_2", "trial_3"]
    assert [result.level for result in runs["reference"]] == [0]
    for row in rows(tuned):
        if not row["failure"]:
            assert runs[row["trial"]][-1].density <= 0.4 < runs[row["trial"]][-2].density
            assert {result.arm for result in runs[row["trial"]]} == {"ticket"}
            assert list((tuned / row["trial"]).rglob("level_01/ticket/ticket.safetensors"))
    assert [row["trial"] for row in rows(tuned) if row["failure"]]  # a rate of 1e38
    assert {name for name in Board(tuned).rows()} == {f"tensorboard/trial_{n}" for n in range(4)}


def test_the_end_of_a_tuning_says_which_is_best_and_how_to_run_it(tuned, file, capsys):
    assert tune(file, tuned) == 0  # which has ended: nothing is trained
    out = capsys.readouterr().out
    assert "for the lowest density that matches, down to 40 %" in out and "ticket 100.00%" not in out
    best = rows(tuned)[0]
    table = out[out.index("trial ") :].splitlines()
    assert table[0].split() == "trial density % val acc % early stop level rate fraction".split()
    assert table[1].split()[0] == best["trial"]
    assert "failed: The loss is" in out and f"tensorboard --logdir {tuned}" in out
    [command] = [line for line in out.splitlines() if line.startswith("  tf-lottery run")]
    study, workdir = flags.parse(shlex.split(command)[2:])
    config = study[""]
    assert config.train.learning_rate == float(best["rate"])
    assert config.prune.fraction == float(best["fraction"])
    assert config.prune.levels == len(results(tuned)[best["trial"]]) - 1
    assert config.controls == ("reinit",) and workdir == f"{tuned}_best"
    assert cli.main(["report", str(tuned)]) == 0
    assert best["trial"] in capsys.readouterr().out


def test_accuracy_as_the_objective_with_keras_3(file, tmp_path, capsys):
    words = ["--objective=accuracy", "--config.flavour=keras", "--trials=2"]
    assert tune(file, tmp_path / "w", *words) == 0
    found = [row for row in rows(tmp_path / "w") if not row["failure"]]
    for row in found:
        last = results(tmp_path / "w")[row["trial"]][-1]
        assert float(row["accuracy"]) == pytest.approx(last.final_validation_accuracy, rel=1e-5)
    assert "for the best validation accuracy at 40 % density" in capsys.readouterr().out
    assert tune(file, tmp_path / "w", *words[:2], "--trials=1") == 1
    assert "belongs to another tuning:\n  trials: 2 there, 1 now\n" in capsys.readouterr().err
    assert tune(file, tmp_path / "w", *words, "--config.train.steps=16") == 1
    assert "  config.train.steps: 12 there, 16 now\n" in capsys.readouterr().err


# What a process runs: the command, without XLA, from line to line as a test has it.
PROGRAM = """
import os, pathlib, signal, sys, time
from tf_lottery import cli
from tf_lottery.search import chief
from tf_lottery.training import loop
from tf_lottery.training.runs import ReplicateStore
loop.prefers_xla = lambda model: False
chief.SILENCE, chief.BEAT = 10, 0.5
workdir = pathlib.Path(sys.argv[1])
def wait_for(name):
    while not (workdir / name).exists():
        time.sleep(0.1)
{}
sys.exit(cli.main(["tune", *sys.argv[2:]]))
"""
# Kills the process when it would write down its n-th network.
KILLED = """
save, calls = ReplicateStore.save, iter(range({}))
def killed(self, trained):
    if next(calls, None) is None:
        {}
        os.kill(os.getpid(), signal.SIGKILL)
    save(self, trained)
ReplicateStore.save = killed
"""


def started(file, workdir, lines, **variables):
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **variables}
    words = [f"--config={file}", f"--workdir={workdir}", *WORDS]
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(lines), str(workdir), *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_tuning_that_is_killed_in_a_trial_goes_on_inside_it(file, tuned, tmp_path):
    process = started(file, tmp_path / "w", KILLED.format(2, "pass"))
    process.communicate(timeout=200)
    assert process.returncode == -signal.SIGKILL
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "w").rglob("result.json")}
    assert len(times) == 2
    assert tune(file, tmp_path / "w") == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times  # trained once
    assert (tmp_path / "w/trials.csv").read_bytes() == (tuned / "trials.csv").read_bytes()
    assert results(tmp_path / "w") == results(tuned)


def test_a_chief_and_two_workers_of_which_one_dies(file, tuned, tmp_path):
    workdir, port = tmp_path / "w", str(20_000 + os.getpid() % 20_000)
    address = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": port}
    # The one dies in its second trial, with the reference, a trial and a network done, while the other is at
    # its own.
    dies = KILLED.format(2 + len(results(tuned)["trial_0"]), "wait_for('trial_2/config.json')")
    lines = {"chief": "", "first": dies, "second": "wait_for('trial_1/config.json')"}
    processes = {
        name: started(file, workdir, text, KERASTUNER_TUNER_ID=name, **address)
        for name, text in lines.items()
    }
    try:
        told = {name: process.communicate(timeout=250) for name, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    status = {name: process.returncode for name, process in processes.items()}
    assert status == {"chief": 0, "first": -signal.SIGKILL, "second": 0}, told
    out, _ = told["chief"]
    assert f"The chief hands out trials at 127.0.0.1:{port}." in out
    assert "Worker 'first' is silent: trial 1 goes to another." in out
    assert [f"trial_{n}: " in told["first"][0] for n in range(4)] == [True, True, False, False]
    assert [f"trial_{n}: " in told["second"][0] for n in range(4)] == [False, True, True, True]
    assert (workdir / "trials.csv").read_bytes() == (tuned / "trials.csv").read_bytes()
    assert results(workdir) == results(tuned)
    assert {name for name in Board(workdir).rows()} == {f"tensorboard/trial_{n}" for n in range(4)}


def test_a_worker_that_takes_over_waits_for_one_that_lives_after_all(file, tmp_path, monkeypatch):
    """The chief has given the other up, which is still in the trial's run directory."""
    monkeypatch.setattr("tf_lottery.search.chief.BEAT", 0.1)
    config = ExperimentConfig()
    tuner = ExperimentTuner(
        config, tuning.default_space, workdir=str(tmp_path), oracle="random", objective="density",
        target_density=0.5, trials=1,
    )  # fmt: skip
    monkeypatch.setattr(tuner, "_is_worker", lambda: True)
    store = workdirs.directory(config, tmp_path / "run").replicate(1)
    claims, stack = workdirs.claims(config, tmp_path / "run"), contextlib.ExitStack()
    stack.enter_context(store.claimed())
    said = []

    def say(text):
        said.append(text)
        stack.close()

    monkeypatch.setattr(tuner, "say", say)
    assert tuner._once_free(tmp_path / "run", lambda: claims.check() or "trained") == "trained"
    assert len(said) == 1 and "is in use by another run (process " in said[0]


def test_a_tuning_in_tensorflows_memory(file, tuned, tmp_path, capsys):
    remote = f"ram:/{tmp_path}/w"
    assert tune(file, remote, "--trials=1") == 0
    assert tune(file, remote) == 0
    read = paths.path(remote) / "trials.csv"
    assert read.read_bytes() == (tuned / "trials.csv").read_bytes()
    assert remote in capsys.readouterr().out
    assert not (tmp_path / "w").exists()


def refused(capsys, *words):
    assert cli.main(["tune", *words]) == 1
    return capsys.readouterr().err.removeprefix("tf-lottery: ").strip()


def test_a_worker_without_a_chief_and_a_chief_without_workers(file, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tf_lottery.search.chief.PATIENCE", 1)
    port = str(20_000 + os.getpid() % 20_000)
    for name, value in {"TUNER_ID": "w1", "ORACLE_IP": "127.0.0.1", "ORACLE_PORT": port}.items():
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    words = [f"--config={file}", f"--workdir={tmp_path / 'w'}", *WORDS]
    assert refused(capsys, *words).startswith(f"No chief answers at 127.0.0.1:{port}. Start one, by the same")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    assert refused(capsys, *words).startswith("No worker has been heard of for 1 seconds.")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(port)))
        taken.listen()
        message = refused(capsys, *words)
    assert message.startswith(f"The chief cannot serve at 127.0.0.1:{port}: is it in use?")


def test_strategies_that_tune_has_not(file, tmp_path, capsys, monkeypatch):
    words = [f"--config={file}", f"--workdir={tmp_path / 'w'}"]
    assert refused(capsys, *words, "--config.strategy=tpu").startswith("tune trains on CPUs and GPUs: leave")
    assert "Unknown command line flag 'tpu'" in refused(capsys, *words, "--tpu=mine")
    cluster = {"worker": ["localhost:1", "localhost:2"]}
    task = {"type": "worker", "index": 0}
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    assert refused(capsys, *words).startswith("TF_CONFIG is for workers that train each network together")
    assert not (tmp_path / "w").exists()


def test_wrong_words_are_told_without_tensorflow_and_leave_nothing(file, tmp_path):
    program = (
        "import sys\n"
        "from tf_lottery import cli\n"
        "for word in ('--oracle=', '--trials=x', '--trial=3', '--objective=dens', '--config.train.step=3',\n"
        "    '--trials=0', '--target_density=5'):\n"
        "    cli.main(['tune', '--workdir=' + sys.argv[1], word])\n"
        "cli.main(['tune', '--config=configs/initializers.py', '--workdir=' + sys.argv[1]])\n"
        "cli.main(['tune', '--help'])\n"
        "assert not {'tensorflow', 'keras', 'keras_tuner'} & set(sys.modules)\n"
    )
    root = pathlib.Path(__file__).parent.parent
    words = [sys.executable, "-c", program, str(tmp_path / "w")]
    done = subprocess.run(words, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[0] == "tf-lottery: Unknown oracle ''. There are: random, bayesian, hyperband."
    assert "invalid literal for int() with base 10: 'x'" in lines[1]
    assert "Unknown command line flag 'trial'. Did you mean: trials" in lines[2]
    assert "Unknown objective 'dens'. Did you mean 'density'?" in lines[3]
    assert "Unknown config entry 'train.step'. Did you mean 'train.steps'?" in lines[4]
    assert lines[5:7] == [
        "tf-lottery: --trials must be 1 or more. Received 0.",
        "tf-lottery: --target_density must be in (0, 1). Received 5.0.",
    ]
    assert "tune takes one experiment, and the file has several: glorot_normal, " in lines[7]
    assert "def tune(config, hp):" in done.stdout
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "config.train.learning_rat = 1",
            "line 13: AttributeError: Unknown config entry 'learning_rat'. Did",
        ),
        ("hp.Itn('n', 1, 2)", "line 13: AttributeError: 'HyperParameters' object has no attribute 'Itn'"),
        (
            "hp.Choice('rate', [1.5]); config.prune.fraction = 1.5",
            "config.prune.fraction must be in [0, 1). Re",
        ),
        ("pass", "There is nothing to search: ask hp for a value, such as hp.Float('rate', 0, 1)."),
    ],
)
def test_a_space_that_is_wrong(line, message, tmp_path, capsys):
    path = tmp_path / "wrong.py"
    path.write_text(FILE[: FILE.index("    config.train.learning_rate =")] + f"    {line}\n")
    assert message in refused(capsys, f"--config={path}", f"--workdir={tmp_path / 'w'}")
    assert not (tmp_path / "w").exists()


def test_a_target_that_cannot_be_known_says_what_to_set(tmp_path, capsys):
    path = tmp_path / "pooled.py"
    path.write_text(FILE + "    config.prune.scope = 'global'\n")
    message = refused(capsys, f"--config={path}", f"--workdir={tmp_path / 'w'}")
    assert "needs one fraction for all kernels" in message
    assert message.endswith("prune.output_fraction as prune.fraction, or 0; prune.conv_fraction -1.")
    message = refused(capsys, "--config.data.name=digit", f"--workdir={tmp_path / 'w'}")
    assert message.startswith("Unknown data set 'digit'. Did you mean 'digits'?")
    assert not (tmp_path / "w").exists()


def test_the_default_workdir_is_not_that_of_a_run():
    assert tuning.parse([]).workdir == os.path.join("runs", "tune_digits")
    assert tuning.parse(["--workdir=x"]).workdir == "x"


@pytest.mark.parametrize("path", sorted((pathlib.Path(__file__).parent.parent / "configs").glob("*.py")))
def test_the_default_space_is_around_every_config_and_valid_all_over(path):
    try:
        request = tuning.parse([f"--config={path}"])
    except flags.UsageError as error:
        assert "tune takes one experiment" in str(error)
        return
    config = copy_of(request.config)
    tuning.default_space(config, keras_tuner.HyperParameters())
    assert config == request.config
    for seed in range(20):
        hp = keras_tuner.HyperParameters()
        tuning.default_space(copy_of(request.config), hp)
        hp.values = {h.name: h.random_sample(seed + n) for n, h in enumerate(hp.space)}
        config = copy_of(request.config)
        tuning.default_space(config, hp)
        config_module.validate(config)
        assert config.prune.rewind_step < config.train.steps / 9  # Hyperband's shortest
        assert config.train.learning_rate == hp.values["train.learning_rate"]


def test_a_space_need_not_be_a_plain_function(tmp_path):
    def space(config, hp, rate):
        config.train.learning_rate = rate / hp.Choice("divisor", [0, 1])

    chosen = {"workdir": str(tmp_path), "oracle": "random", "objective": "density", "target_density": 0.5}
    with pytest.raises(flags.UsageError, match=r"test_tuning.py: line \d+: ZeroDivisionError"):
        ExperimentTuner(ExperimentConfig(), functools.partial(space, rate=0.1), trials=1, **chosen)
    with pytest.raises(flags.UsageError, match=r"^tune\(config, hp\): TypeError: .*rate"):
        ExperimentTuner(ExperimentConfig(), space, trials=1, **chosen)


def test_what_is_wrong_with_the_data_shows_before_the_workdir_is_touched(file, tmp_path, capsys):
    words = [f"--config={file}", f"--workdir={tmp_path / 'w'}", "--config.train.batch_size=100000"]
    assert refused(capsys, *words).startswith("batch_size must be 1 to ")
    assert not (tmp_path / "w").exists()
    assert refused(capsys, f"--config={file}", "--workdir=ram://bucket") == (
        "'ram://bucket' is a bucket. Name a folder in it."
    )


def test_a_space_may_veto_a_trial(tmp_path):
    def space(config, hp):
        if hp.Choice("network", ["mlp:4", "mlp:8"]) == "mlp:8":
            raise keras_tuner.errors.FailedTrialError("Too large.")

    tuner = ExperimentTuner(
        copy_of(ExperimentConfig()), space, workdir=str(tmp_path / "w"), oracle="random",
        objective="density", target_density=0.5, trials=2,
    )  # fmt: skip
    hp = keras_tuner.HyperParameters()
    hp.values = {"network": "mlp:8"}
    with pytest.raises(keras_tuner.errors.FailedTrialError):
        tuner.config_of(hp)
