"""The command `tf-lottery`.

What it imports here is quick: wrong flags are answered at once, and Ctrl-C is heard from
the start. TensorFlow comes last.
"""

import contextlib
import errno
import os
import re
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tf_lottery.experiments.config import ExperimentConfig

_HELP = """\
tf-lottery finds lottery tickets: small subnetworks that train as well as the whole (1803.03635).

  tf-lottery run [--config=FILE] [--config.ENTRY=VALUE ...] [--workdir=DIR]

trains a network, prunes its smallest weights, resets the others, and again; and beside each
ticket its controls. Without flags the data are handwritten digits. A config file may name
several experiments, a study: these are compared at the end. Stop it at any time: the same
command goes on from what is done.

  tf-lottery tune [--config=FILE] [--config.ENTRY=VALUE ...] [--workdir=DIR] [--FLAG=VALUE ...]

searches learning rate, pruning and whatever else you name with KerasTuner: tf-lottery help tune.
What either has made is looked at by
"""
_STOPPED = "\ntf-lottery: stopped. What is done is kept, and the same command goes on from there.\n"

# What TensorFlow's C++ prints on every machine, or on every one without a GPU.
_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|I0000 |"
    rb"[EW]0000 .*(Unable to register cu|computation placer already registered|"
    rb"failed call to cuInit: .*(\(303\)|CUDA_ERROR_NO_DEVICE))"
)


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    with _stopping_at_once():
        try:
            return _run_command(words)
        except BrokenPipeError:
            # Nobody reads what is printed. Python would stumble over it once more at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        except (ValueError, TypeError, OSError) as error:
            print(f"tf-lottery: {_message(error)}", file=sys.stderr)
            return 1


def _run_command(words: list[str]) -> int:
    from tf_lottery import names
    from tf_lottery.experiments import commands

    known = ["run", "tune", *commands.COMMANDS]
    asks_help = not words or any(word in ("-h", "--help") for word in words) or words[0] == "help"
    topics = [word for word in words if word in known][:1]
    if asks_help:
        print(_help(*topics), flush=True)
    elif words[0] == "run":
        _run(words[1:])
    elif words[0] == "tune":
        _tune(words[1:])
    elif words[0] in commands.COMMANDS:
        _look(words[0], words[1:])
    else:
        raise ValueError(names.unknown(words[0], [*known, "help"], "command"))
    return 0


def _help(topic: str = "run") -> str:
    from tf_lottery.experiments import commands, flags, tuning

    if topic == "tune":
        return tuning.HELP.rstrip()
    if topic != "run":
        return commands.help_text(topic)
    lines = [f"  tf-lottery {f'{name} WORKDIR ...':<24} {c.purpose}" for name, c in commands.COMMANDS.items()]
    return "\n".join([_HELP, *lines, "", "Flags of run:", "", flags.help_text()])


def _look(name: str, words: list[str]) -> None:
    from tf_lottery.experiments import commands

    workdirs, options = commands.parse(name, words)
    with _without_noise():
        import tensorflow as tf

        tf.config.list_logical_devices()
    for text, written in commands.look(name, workdirs, options):
        print(f"{text}\n", flush=True)
        for path in written:
            print(f"  {os.path.relpath(path)}")


def _run(words: list[str]) -> None:
    from tf_lottery.experiments import config as config_module
    from tf_lottery.experiments import flags
    from tf_lottery.training import recorded, runs

    study, workdir = flags.parse(words)
    alone = "" in study
    folders = {name: workdir if alone else os.path.join(workdir, name) for name in study}
    for name, folder in folders.items():
        entries = config_module.entries_of(study[name])
        runs.RunDirectory(folder, entries, extendable=config_module.EXTENDABLE).check()
    if not alone:
        networks = sum(map(sum, map(config_module.count_networks, study.values())))
        print(f"A study of {len(study)} experiments, {networks} networks: {', '.join(study)}.\n")
    for name, folder in folders.items():
        done = len(recorded.results(folder))
        print(f"{name}: " * (not alone) + _announcement(study[name], folder, done), flush=True)
        print(f"\n{_run_experiment(study[name], folder)}\n", flush=True)
    logs = os.path.join(workdir, "tensorboard")
    if not alone:
        from tf_lottery.experiments import outputs
        from tf_lottery.experiments.analyses import report

        findings = report.compare(folders)
        outputs.write(workdir, "report", findings)
        print(f"{findings.text}\n")
        logs = workdir
    print(f"Results, figures and tickets are in {workdir}. More figures, and what 'tf-lottery help' names:\n")
    print(f"  tf-lottery plot {workdir}\n\nTo look at it in TensorBoard:\n")
    print(f"  {_tensorboard()} --logdir {logs}", flush=True)


def _tune(words: list[str]) -> None:
    from tf_lottery.experiments import tuning

    request = tuning.parse(words)
    with _without_noise():
        import tensorflow as tf

        tuner = request.tuner()
        tf.config.list_logical_devices()
    print(tuning.announcement(request), flush=True)
    tuner.search()
    print(f"\n{tuning.summary(request, tuner, words)}\n")
    print(f"All trials side by side:\n\n  tf-lottery report {request.workdir}\n")
    print(
        f"In TensorBoard, a row of HParams for each:\n\n  {_tensorboard()} --logdir {request.workdir}",
        flush=True,
    )


def _run_experiment(config: "ExperimentConfig", folder: str) -> str:
    """Returns the report."""
    with _without_noise():
        import tensorflow as tf

        from tf_lottery.experiments import driver, outputs
        from tf_lottery.experiments.analyses import plot, report

        tf.config.list_logical_devices()
    try:
        driver.run(config, folder)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ValueError(
            "Out of memory: lower config.train.batch_size, or take a smaller network."
        ) from error
    findings = report.analyze(folder)
    outputs.write(folder, "report", findings)
    outputs.write(folder, "plot", plot.analyze(folder, ("curves",)))
    return findings.text


def _tensorboard() -> str:
    """Returns what a shell finds TensorBoard by, in an environment that is not activated too."""
    if shutil.which("tensorboard"):
        return "tensorboard"
    return os.path.relpath(os.path.join(os.path.dirname(sys.executable), "tensorboard"))


def _announcement(config: "ExperimentConfig", workdir: str, done: int) -> str:
    from tf_lottery.experiments import config as config_module

    tickets, controls = config_module.count_networks(config)
    parts = [f"tickets {tickets} x {config.train.steps} steps"]
    if controls:
        parts.append(f"controls {controls} x {config.train.control_steps or config.train.steps} steps")
    where = f"Goes on in {workdir}; networks done already: {done}." if done else f"Results go to {workdir}."
    return (
        f"{config.network.name} on {config.data.name}, {tickets + controls} networks: {', '.join(parts)}.\n"
        f"{where}"
    )


def _message(error: Exception) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    file = "" if error.filename is None else f"{error.filename!r}: "
    space = (
        ". Make room, and the same command goes on from what is done." if error.errno == errno.ENOSPC else ""
    )
    return f"{file}{error.strerror}{space}"


@contextlib.contextmanager
def _stopping_at_once() -> Iterator[None]:
    """Ends the process at SIGINT or SIGTERM.

    A KeyboardInterrupt would wait until TensorFlow returns to Python, which may take minutes,
    and could be caught on its way. A run directory bears an end at any moment.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as received:
            while number := received.read(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    os.write(2, _STOPPED.encode())
                    os._exit(128 + number[0])

    # A shell has commands in the background ignore Ctrl-C.
    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, lambda *_: None) for s in heard}
    wakeup_before = signal.set_wakeup_fd(writer)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)


@contextlib.contextmanager
def _without_noise() -> Iterator[None]:
    """Drops what TensorFlow prints on every machine while it is imported and looks for devices.

    A child process reads standard error meanwhile and passes on everything else, at once:
    also the last words of a TensorFlow that brings this process down.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    stderr = os.dup(2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _pass_on(reader, writer, stderr)
    os.close(reader)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.waitpid(child, 0)


def _pass_on(reader: int, writer: int, stderr: int) -> None:
    try:
        os.close(writer)
        with open(reader, "rb") as lines:
            for line in lines:
                if not _NOISE.match(line):
                    os.write(stderr, line)
    finally:
        os._exit(0)
