"""The command `tf-lottery`.

What it imports here is quick: wrong flags are answered at once, and Ctrl-C is heard from
the start. TensorFlow comes last.
"""

import contextlib
import errno
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tf_lottery.experiments import noise

if TYPE_CHECKING:
    from tf_lottery.experiments.config import ExperimentConfig
    from tf_lottery.training.claims import Claims

_HELP = """\
tf-lottery finds lottery tickets: small subnetworks that train as well as the whole (1803.03635).

  tf-lottery run [--config=FILE] [--config.ENTRY=VALUE ...] [--workdir=DIR] [--jobs=J]

trains a network, prunes its smallest weights, resets the others, and again; and beside each
ticket its controls. Without flags the data are handwritten digits. A config file may name
several experiments, a study: these are compared at the end. Stop it at any time: the same
command goes on from what is done. What it has made is looked at by
"""
_STOPPED = "\ntf-lottery: stopped. What is done is kept, and the same command goes on from there.\n"


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
    from tf_lottery.experiments import commands, jobs

    asks_help = not words or any(word in ("-h", "--help") for word in words) or words[0] == "help"
    topics = [word for word in words if word in ("run", *commands.COMMANDS)][:1]
    if asks_help:
        print(_help(*topics), flush=True)
    elif words[0] == "run":
        return _run(words[1:])
    elif words[0] == jobs.WORK:
        _work(*words[1:])
    elif words[0] in commands.COMMANDS:
        _look(words[0], words[1:])
    else:
        raise ValueError(names.unknown(words[0], ["run", *commands.COMMANDS, "help"], "command"))
    return 0


def _help(topic: str = "run") -> str:
    from tf_lottery.experiments import commands, flags

    if topic != "run":
        return commands.help_text(topic)
    lines = [f"  tf-lottery {f'{name} WORKDIR ...':<24} {c.purpose}" for name, c in commands.COMMANDS.items()]
    return "\n".join([_HELP, *lines, "", "Flags of run:", "", flags.help_text()])


def _look(name: str, words: list[str]) -> None:
    from tf_lottery import paths
    from tf_lottery.experiments import commands

    workdirs, options = commands.parse(name, words)
    with noise.dropped():
        import tensorflow  # noqa: F401
    for text, written in commands.look(name, workdirs, options):
        print(f"{text}\n", flush=True)
        for path in written:
            print(f"  {paths.relative(path)}")


def _run(words: list[str]) -> int:
    """Returns the exit status."""
    from tf_lottery.experiments import config as config_module
    from tf_lottery.experiments import flags, workdirs
    from tf_lottery.training import recorded
    from tf_lottery.training.runs import InUseError

    count, words = flags.take_jobs(words)
    study, workdir = flags.parse(words)
    folders = workdirs.folders(study, workdir)
    with noise.dropped():  # TensorFlow looks at a folder that is not local
        claims = {name: workdirs.claims(config, folders[name]) for name, config in study.items()}
        for shared in claims.values():
            shared.directory.check()
    alone, in_use = "" in study, 0
    if alone:
        claims[""].free()
    else:
        networks = sum(map(sum, map(config_module.count_networks, study.values())))
        print(f"A study of {len(study)} experiments, {networks} networks: {', '.join(study)}.\n")
    for name, folder in folders.items():
        done = len(recorded.results(folder))
        print(f"{name}: " * (not alone) + _announcement(study[name], folder, done), flush=True)
        try:
            status = _train(study[name], claims[name], count, [name, *words])
        except InUseError as error:
            in_use += 1
            print(f"\n{error}\n", flush=True)
            continue
        if status:
            return status
        print(f"\n{_report(folder)}\n", flush=True)
        if others := claims[name].told():
            print(f"Others are still at work: {others}.\n", flush=True)
    _conclude(workdir, {} if alone else folders)
    return int(in_use == len(study))


def _train(config: "ExperimentConfig", claims: "Claims", count: int, words: list[str]) -> int:
    """Trains what is left in as many processes as are of use; returns the exit status."""
    from tf_lottery.experiments import jobs

    free = claims.free()
    useful = min(count, len(free))
    if useful < 2:
        if useful < count and free:
            print(f"--jobs={count}: one replicate is left, which this process trains.", flush=True)
        _train_here(config, str(claims.directory.path))
        return 0
    left = "" if useful == count else ", one for each replicate that is left"
    print(f"In {useful} processes{left}; cores of each: {len(jobs.cores_of(useful)[0])}.", flush=True)
    numbers = ",".join(map(str, claims.unfinished()))
    return jobs.run([numbers, *words], useful, len(free) * len(claims.networks))


def _work(numbers: str, name: str, *words: str) -> None:
    """Trains replicates as one of the processes that `--jobs` starts."""
    from tf_lottery.experiments import flags, jobs, workdirs
    from tf_lottery.training.runs import InUseError

    jobs.end_with_parent()
    study, workdir = flags.parse(list(words))
    with contextlib.suppress(InUseError):  # the other processes were faster
        folder = workdirs.folders(study, workdir)[name]
        _train_here(study[name], folder, [int(number) for number in numbers.split(",")])


def _train_here(config: "ExperimentConfig", folder: str, replicates: list[int] | None = None) -> None:
    with noise.dropped():
        import tensorflow as tf

        from tf_lottery.experiments import driver
    try:
        driver.run(config, folder, replicates)
    except (MemoryError, tf.errors.ResourceExhaustedError) as error:
        raise ValueError(
            "Out of memory: lower config.train.batch_size, or take a smaller network."
        ) from error


def _report(folder: str) -> str:
    """Returns the report, which is written as figures and for TensorBoard too."""
    with noise.dropped():
        from tf_lottery.experiments import outputs
        from tf_lottery.experiments.analyses import plot, report
        from tf_lottery.training import locks

    with locks.alone(folder):  # so that the report that is written last is of all
        findings = report.analyze(folder)
        outputs.write(folder, "report", findings)
        outputs.write(folder, "plot", plot.analyze(folder, ("curves",)))
    return findings.text


def _conclude(workdir: str, study: dict[str, str]) -> None:
    """Compares the experiments of a study, name -> folder, and says where everything is."""
    if study:
        from tf_lottery.experiments import outputs
        from tf_lottery.experiments.analyses import report

        findings = report.compare(study)
        outputs.write(workdir, "report", findings)
        print(f"{findings.text}\n")
    logs = workdir if study else os.path.join(workdir, "tensorboard")
    print(f"Results, figures and tickets are in {workdir}. More figures, and what 'tf-lottery help' names:\n")
    print(f"  tf-lottery plot {workdir}\n\nTo look at it in TensorBoard:\n")
    print(f"  {_tensorboard()} --logdir {logs}", flush=True)


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
