"""The commands that look at runs: what each is for, its flags, and what happens with its findings.

To add one, write a module with `analyze(folder, **options) -> Findings`, for a run by itself, and where
runs can be held against each other `compare(runs, **options) -> Findings`; and name it in `COMMANDS`.
"""

import contextlib
import dataclasses
import importlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from absl import flags

from tf_lottery import names, paths
from tf_lottery.training import locks, recorded

_ANALYSES = "tf_lottery.experiments.analyses."


class UsageError(ValueError):
    """Words that cannot be followed."""


@dataclasses.dataclass(frozen=True)
class Option:
    """A flag of a command: its default, whose type is that of all its values, and its meaning."""

    default: Any
    help: str


@dataclasses.dataclass(frozen=True)
class Command:
    """A command: what it is for, in one line, and its flags by name."""

    purpose: str
    options: Mapping[str, Option] = dataclasses.field(default_factory=dict)


COMMANDS = {
    "report": Command(
        "table and verdict of a run, finished or not; several runs side by side",
        {"verify": Option(False, "read every file, name those that are damaged; draws no figures")},
    ),
    "plot": Command(
        "all figures of a run, finished or not; several runs side by side",
        {
            "figures": Option(
                ("search", "curves", "weights", "movement", "connections", "layers"), "which ones"
            )
        },
    ),
    "overlap": Command("is it the same ticket each time? overlap of masks, and what there is by chance"),
    "connectivity": Command(
        "error on the straight line between two trainings from one start (1912.05671)",
        {
            "levels": Option((), "levels to look at; empty for all"),
            "rewind_steps": Option((), "steps from which copies are trained; empty for the run's own"),
            "arms": Option(("ticket",), "ticket, of which level 0 is the dense network, and controls"),
            "orders": Option(2, "copies of each network, each trained in a data order of its own"),
            "points": Option(30, "on each line, the two ends among them"),
        },
    ),
    "structure": Command(
        "tickets beside random masks: dead units, paths, degrees, spectral gap, signs, ranks, gradients",
        {
            "levels": Option((), "levels to print; without it, the one that the verdict is on"),
            "examples": Option(1000, "training examples that the gradient norm is of"),
        },
    ),
    "infoplane": Command(
        "what each layer tells about inputs and labels, through training, for tickets and controls",
        {
            "levels": Option((), "which to look at; by default the dense network and the verdict's level"),
            "arms": Option(("ticket", "reinit", "random_ticket"), "those of them that the run has"),
            "examples": Option(4096, "how many examples X has at most; fewer for convolutions"),
            "points": Option(60, "about how many steps of the training are looked at"),
        },
    ),
    "export": Command(
        "a trained ticket as a file for other programs, held against dense: size, latency, accuracy",
        {
            "level": Option(-1, "which level; -1 for the one that the verdict is on"),
            "arm": Option("ticket", "ticket, or a control"),
            "replicate": Option(1, "which replicate"),
            "format": Option("keras", "keras, savedmodel, tflite, or safetensors, which has weights alone"),
            "compact": Option(False, "without the inputs and units that do nothing"),
            "quantize": Option(False, "to 8 bits, by TF-MOT, with its zeros kept; tflite of tf_keras"),
            "quantize_steps": Option(1000, "of training that --quantize takes"),
            "output": Option("", "the folder of the file; empty for export in the run directory"),
        },
    ),
}


def parse(name: str, words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Reads what follows a command's name.

    Args:
        name: of the command, in `COMMANDS`.
        words: run directories, and flags written `--name=value`.

    Returns:
        The run directories, and name -> value of every flag.

    Raises:
        UsageError: there is no run directory, or an unknown flag or wrong value.
    """
    workdirs, given = read_flags(name, COMMANDS[name].options, words)
    if not workdirs:
        raise UsageError(f"Name a run directory: tf-lottery {name} runs/digits")
    return workdirs, given


def read_flags(
    name: str, options: Mapping[str, Option], words: Sequence[str]
) -> tuple[list[str], dict[str, Any]]:
    """Returns the words that are no flags of a command called `name`, and name -> value of every flag.

    Raises:
        UsageError: an unknown flag or wrong value.
    """
    for word in words:
        flag = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and flag not in options:
            known = (
                names.unknown(flag, options, "flag") if options else f"'tf-lottery {name}' takes no flags."
            )
            raise UsageError(f"{known} See: tf-lottery {name} --help")
    values = flags.FlagValues()
    for flag, option in options.items():
        _define(flag, option, values)
    try:
        rest = values(["tf-lottery", *words])[1:]
        return rest, {flag: _value(flag, options[flag].default, values[flag].value) for flag in options}
    except (flags.Error, ValueError) as error:
        raise UsageError(str(error)) from error


def look(
    name: str, workdirs: Sequence[str], options: Mapping[str, Any]
) -> Iterator[tuple[str, list[paths.Path]]]:
    """Carries out a command on each run, and on all together where it compares.

    Args:
        name: of the command.
        workdirs: run directories, or those of studies, which stand for their experiments.
        options: its flags.

    Yields:
        What to print, and the files that were written: for each run, then for all.

    Raises:
        RunDirectoryError: a workdir holds no run, or a damaged one.
    """
    from tf_lottery.experiments import outputs

    module, runs = importlib.import_module(_ANALYSES + name), _named(workdirs)
    for title, folder in runs.items():
        findings = module.analyze(folder, **options)
        head = f"{title}\n\n" if len(runs) > 1 else ""
        with contextlib.nullcontext() if findings.is_text_alone else locks.alone(folder):
            written = outputs.write(folder, name, findings)
        yield head + findings.text, written
    if len(runs) > 1 and hasattr(module, "compare"):
        findings = module.compare(runs, **options)
        yield findings.text, outputs.write(paths.common(workdirs), name, findings)


def help_text(name: str) -> str:
    """Returns how a command is called."""
    command = COMMANDS[name]
    flagged = " [--FLAG=VALUE ...]" if command.options else ""
    lines = [f"  tf-lottery {name} WORKDIR ...{flagged}", "", f"{command.purpose}.", ""]
    return "\n".join([*lines, *flag_lines(command.options)]).rstrip()


def flag_lines(options: Mapping[str, Option]) -> list[str]:
    """Returns what help says of flags."""
    lines = []
    for flag, option in options.items():
        shown = ",".join(map(str, option.default)) if isinstance(option.default, tuple) else option.default
        first, *more = textwrap.wrap(option.help, 76)
        lines += [f"  {f'--{flag}={shown}':<24}  {first}", *(f"{'':28}{line}" for line in more)]
    return lines


def _named(workdirs: Sequence[str]) -> dict[str, paths.Path]:
    """Returns name -> run directory; a name tells apart what the workdirs have not in common."""
    runs, common = {}, paths.common(workdirs)
    for workdir in workdirs:
        folders = recorded.runs_in(workdir)
        runs |= {paths.relative(folder, common): folder for folder in folders.values()}
    return runs


def _define(name: str, option: Option, values: flags.FlagValues) -> None:
    kinds = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    if isinstance(option.default, tuple):
        flags.DEFINE_list(name, list(map(str, option.default)), option.help, flag_values=values)
    else:
        kinds.get(type(option.default), flags.DEFINE_string)(
            name, option.default, option.help, flag_values=values
        )


def _value(flag: str, default: Any, value: Any) -> Any:
    """Returns a list of words as a tuple: of numbers, unless the default has words."""
    if not isinstance(default, tuple):
        return value
    if default and isinstance(default[0], str):
        return tuple(value)
    try:
        return tuple(map(int, value))
    except ValueError:
        received = ",".join(value)
        raise UsageError(
            f"{flag} is a list of integers, such as --{flag}=1,2. Received: {received}."
        ) from None
