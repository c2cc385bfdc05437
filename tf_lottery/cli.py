"""The command `tf-lottery`."""

import os
import sys

_HELP = """\
tf-lottery finds lottery tickets: small subnetworks that train as well as the whole (1803.03635).

  tf-lottery run [flags]    train, prune, rewind, again; the default is the handwritten digits

Flags of `run`:
"""


def main(arguments: list[str] | None = None) -> int:
    """Runs a command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        from tf_lottery.experiments import flags

        print(_HELP + flags.help_text())
        return 0
    if words[0] != "run":
        from tf_lottery import names

        return _fail(names.unknown(words[0], ["run", "help"], "command"))
    return _run(words[1:])


def _run(words: list[str]) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from tf_lottery.experiments import flags

    if any(word in ("-h", "--help") for word in words):
        print(_HELP + flags.help_text())
        return 0
    workdir = None
    try:
        config, workdir = flags.parse(words)
        from tf_lottery.experiments import driver

        driver.run(config, workdir)
        print(driver.report(workdir))
    except KeyboardInterrupt:
        return _interrupted(workdir)
    except (ValueError, TypeError, OSError) as error:
        return _fail(str(error))
    print(f"\nResults, figure and tickets are in {workdir}. To look at it in TensorBoard:\n")
    print(f"  tensorboard --logdir {os.path.join(workdir, 'tensorboard')}")
    return 0


def _fail(message: str) -> int:
    print(f"tf-lottery: {message}", file=sys.stderr)
    return 1


def _interrupted(workdir: str | None) -> int:
    kept = f" What is done is kept in {workdir}; the same command goes on from there." if workdir else ""
    print(f"\ntf-lottery: interrupted.{kept}", file=sys.stderr)
    return 130
