"""The command `tf-lottery`.

What it imports here is quick: wrong flags are answered at once, and Ctrl-C is heard from
the start. TensorFlow comes last.
"""

import errno
import os
import sys

from tf_lottery.experiments import noise, stopping

_HELP = """\
tf-lottery finds lottery tickets: small subnetworks that train as well as the whole (1803.03635).

  tf-lottery run [--config=FILE] [--config.ENTRY=VALUE ...] [--workdir=DIR] [--jobs=J]

trains a network, prunes its smallest weights, resets the others, and again; and beside each
ticket its controls. Without flags the data are handwritten digits. A config file may name
several experiments, a study: these are compared at the end. Stop it at any time: the same
command goes on from what is done.

  tf-lottery tune [--config=FILE] [--config.ENTRY=VALUE ...] [--workdir=DIR] [--FLAG=VALUE ...]

searches learning rate, pruning and whatever else you name with KerasTuner: tf-lottery help tune.
What either has made is looked at by
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    with stopping.once_tidied_up() if words[:1] == ["import-data"] else stopping.once_saved():
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
    from tf_lottery.experiments import commands, import_data, jobs, running

    known = ["run", "tune", import_data.COMMAND, *commands.COMMANDS]
    asks_help = not words or any(word in ("-h", "--help") for word in words) or words[0] == "help"
    topics = [word for word in words if word in known][:1]
    if asks_help:
        print(_help(*topics), flush=True)
    elif words[0] == "run":
        return running.run(words[1:])
    elif words[0] == jobs.WORK:
        running.work(*words[1:])
    elif words[0] == "tune":
        _tune(words[1:])
    elif words[0] == import_data.COMMAND:
        _import(words[1:])
    elif words[0] in commands.COMMANDS:
        _look(words[0], words[1:])
    else:
        raise ValueError(names.unknown(words[0], [*known, "help"], "command"))
    return 0


def _help(topic: str = "run") -> str:
    from tf_lottery.experiments import commands, flags, import_data, tuning

    if topic == "tune":
        return tuning.HELP.rstrip()
    if topic == import_data.COMMAND:
        return import_data.help_text()
    if topic != "run":
        return commands.help_text(topic)
    lines = [f"  tf-lottery {f'{name} WORKDIR ...':<24} {c.purpose}" for name, c in commands.COMMANDS.items()]
    lines += ["", "Data sets are stored for it by 'tf-lottery import-data': see its --help."]
    return "\n".join([_HELP, *lines, "", "Flags of run:", "", flags.help_text()])


def _import(words: list[str]) -> None:
    from tf_lottery.experiments import import_data

    source, name, data_dir = import_data.parse(words)
    with noise.dropped():
        import tensorflow as tf

        tf.config.list_logical_devices()
    print(import_data.store(source, name, data_dir), flush=True)


def _look(name: str, words: list[str]) -> None:
    from tf_lottery import paths
    from tf_lottery.experiments import commands

    workdirs, options = commands.parse(name, words)
    with noise.dropped():
        import tensorflow as tf

        tf.config.list_logical_devices()
    for text, written in commands.look(name, workdirs, options):
        print(f"{text}\n", flush=True)
        for path in written:
            print(f"  {paths.relative(path)}")


def _tune(words: list[str]) -> None:
    from tf_lottery.experiments import running, tuning

    request = tuning.parse(words)
    with noise.dropped():
        import tensorflow as tf

        tuner = request.tuner()
        tf.config.list_logical_devices()
    print(tuning.announcement(request), flush=True)
    tuner.search()
    print(f"\n{tuning.summary(request, tuner, words)}\n")
    print(f"All trials side by side:\n\n  tf-lottery report {request.workdir}\n")
    print(
        f"In TensorBoard, a row of HParams for each:\n\n  {running.tensorboard()} --logdir {request.workdir}",
        flush=True,
    )


def _message(error: Exception) -> str:
    if not isinstance(error, OSError) or error.errno is None:
        return str(error)
    file = "" if error.filename is None else f"{error.filename!r}: "
    remedy = _REMEDIES.get(error.errno)
    goes_on = f". {remedy}, and the same command goes on from what is done." if remedy else ""
    return f"{file}{error.strerror}{goes_on}"


_REMEDIES = {
    errno.ENOSPC: "Make room",
    errno.EDQUOT: "Make room, or have the quota raised",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f)",
    errno.EROFS: "Make it writable",
    errno.EACCES: "Mend its permissions",
    errno.EPERM: "Mend its permissions",
    errno.EIO: "See to the disk",
    errno.ESTALE: "See to the disk",
}
