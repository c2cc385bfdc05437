"""The driver's flags: `--config=FILE`, overrides such as `--config.train.steps=500`, `--workdir=`."""

import functools
import os
import pathlib
import re
import reprlib
import runpy
import textwrap
import traceback
from collections.abc import Callable
from typing import Any

from absl import flags
from ml_collections.config_flags import config_flags

from tf_lottery import names
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments.config import ExperimentConfig

Study = dict[str, ExperimentConfig]
_LONGEST = 100  # letters of a flag
_NAME = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}")


class UsageError(ValueError):
    """Flags that cannot be followed."""


def parse(
    arguments: list[str], values: flags.FlagValues | None = None, prefix: str = ""
) -> tuple[Study, str]:
    """Reads the driver's flags. Of a flag that is given twice the last counts.

    Args:
        arguments: the words after the command's name.
        values: the command's flags beside these, to be read too.
        prefix: what the name of a run directory begins with that is not given.

    Returns:
        The study: name -> config, validated and frozen; an experiment that stands alone has the
        name `""`. And the run directory, in which each experiment has the folder of its name.

    Raises:
        UsageError: an unknown flag or config entry, a config file that cannot be used,
            or a value out of range.
    """
    _check_keys(arguments)
    words = ["tf-lottery", *map(_quoted, arguments)]
    values = flags.FlagValues() if values is None else values
    flags.DEFINE_string("workdir", None, "The run directory.", flag_values=values)
    stem, study = "digits", {"": ExperimentConfig()}

    def load(path: str) -> ExperimentConfig:
        nonlocal stem, study
        stem, study = pathlib.Path(path).stem, _load(path)
        return ExperimentConfig()  # knows the types of all that can be overridden

    try:
        config_flags.DEFINE_config_dataclass(
            "config", ExperimentConfig(), flag_values=values, sys_argv=words, parse_fn=load
        )
        rest = values(words)[1:]
        if rest:
            raise UsageError(f"Unexpected argument {rest[0]!r}. Flags are written --name=value.")
        if values.workdir == "":
            raise UsageError("--workdir is empty. Name a folder, such as --workdir=runs/mine.")
        changed = _override(study, config_flags.get_override_values(values["config"]))
        _validate(study)
    except config_flags.FlagOrderError as error:
        raise UsageError("--config=FILE comes before --config.ENTRY=VALUE.") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    return study, os.path.expanduser(values.workdir or _default_workdir(prefix + stem, changed))


def function_of(arguments: list[str], name: str) -> Callable[..., Any] | None:
    """Returns the function of that name in the config file; None where there is none, or no file."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "The config file.", flag_values=values)
    values(["tf-lottery", *arguments], known_only=True)
    return runpy.run_path(values.config).get(name) if values.config else None


def take_machines(arguments: list[str]) -> tuple[int, str, list[str]]:
    """Returns the values of `--jobs`, 1 by default, and of `--tpu`, and the other words.

    Raises:
        UsageError: jobs are no number of 1 or more.
    """
    values = flags.FlagValues()
    flags.DEFINE_integer("jobs", 1, "How many processes.", flag_values=values)
    flags.DEFINE_string("tpu", "", "Which TPU.", flag_values=values)
    try:
        rest = values(["tf-lottery", *arguments], known_only=True)[1:]
    except flags.Error as error:
        raise UsageError(str(error)) from error
    if values.jobs < 1:
        raise UsageError(f"--jobs must be 1 or more, a number of processes. Received {values.jobs}.")
    if values.jobs > 1 and values.tpu:
        raise UsageError("--jobs are processes on the cores of this machine: leave it out with --tpu.")
    return values.jobs, values.tpu, rest


def _override(study: Study, overrides: dict[str, Any]) -> dict[str, Any]:
    """Gives every experiment these entries; returns those that were another one in any."""
    changed = {}
    for entry in filter(overrides.__contains__, config_module.fields()):
        value = _entries(overrides[entry])
        *sections, name = entry.split(".")
        for config in study.values():
            if config_module.get(config, entry) != value:
                changed[entry] = value
            setattr(functools.reduce(getattr, sections, config), name, value)
    return changed


def _validate(study: Study) -> None:
    for name, config in study.items():
        try:
            config_module.validate(config)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}: {error}" if name else str(error)) from error
    for config in study.values():  # last, for they may have sections in common
        config.freeze()


def _default_workdir(stem: str, changed: dict[str, Any]) -> str:
    """Returns a folder named for the config file and what the flags changed in it."""
    parts = [f"-{entry}={value}" for entry, value in changed.items() if entry not in config_module.EXTENDABLE]
    name = re.sub(r"[^\w.=-]+", "_", stem + "".join(parts), flags=re.ASCII)[:200]
    return os.path.join("runs", name.lstrip(".") or "run")


def help_text() -> str:
    """Returns the flags and every config entry with its default and meaning."""
    lines = [
        "  --workdir=DIR         the run directory, such as runs/mine or gs://bucket/run; a run that was",
        "                        stopped goes on there (runs/digits, or what the config and the other flags",
        "                        make of it)",
        "  --jobs=J              train replicates in J processes at once, which divide the cores among them.",
        "                        The same command started again, also on another machine that sees the",
        "                        workdir, takes the replicates that nobody works on. On one GPU processes",
        "                        take turns: more of them pay where a small network leaves it idle",
        "  --tpu=NAME            the TPU to train on, by name or address; local on the TPU's own machine",
        "  --config=FILE         a Python file whose get_config() returns an ExperimentConfig, such as",
        "                        configs/mnist_lenet.py (without it: the handwritten digits); or a study,",
        "                        a dict name -> ExperimentConfig, such as configs/initializers.py",
        "  --config.ENTRY=VALUE  another value for one entry, in a study of all, after --config=FILE:",
        "",
    ]
    default = ExperimentConfig()
    for name, field in config_module.fields().items():
        value = config_module.get(default, name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        first, *more = textwrap.wrap(field.metadata["help"], 70)
        lines += [f"    {f'{name}={shown}':<33}  {first}", *(f"{'':39}{line}" for line in more)]
    return "\n".join(lines)


def _quoted(word: str) -> str:
    """Puts the value of `--config.controls=noise:0.5` in quotes, for absl would read it as Python."""
    name, given, value = word.partition("=")
    field = config_module.fields().get(name.lstrip("-").removeprefix("config."))
    is_names = field is not None and field.type == tuple[str, ...]
    return f"{name}={value!r}" if given and is_names and value[:1] not in "(['\"" else word


def _check_keys(arguments: list[str]) -> None:
    known = config_module.fields()
    for word in arguments:
        name = word.lstrip("-").partition("=")[0]
        if word.startswith("-") and len(name) > _LONGEST:  # absl looks for alike ones, letter by letter
            raise UsageError(f"Unknown flag {reprlib.repr(name)}.")
        entry = name.removeprefix("config.")
        if word.startswith("-") and entry != name and entry not in known:
            raise UsageError(names.unknown(entry, known, "config entry"))


def _load(path: str) -> Study:
    """Runs a config file. absl puts the flag before what is wrong with it."""
    if not os.path.isfile(path):
        raise UsageError("there is no such file.")
    try:
        get_config = runpy.run_path(path).get("get_config")
        config = get_config() if get_config else None
    except Exception as error:  # The file is the user's program.
        raise UsageError(in_file(error, path)) from error
    if get_config is None:
        raise UsageError("the file has no function get_config().")
    return _study(config)


def in_file(error: Exception, path: str) -> str:
    """Returns what went wrong in a user's file, and in which line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    where = f"line {lines[-1]}: " if lines else ""
    return f"{where}{type(error).__name__}: {error}"


def _study(returned: object) -> Study:
    """Returns what get_config() returned as a study, if it is one."""
    study = returned if isinstance(returned, dict) else {"": returned}
    others = [type(config).__name__ for config in study.values() if not isinstance(config, ExperimentConfig)]
    if others or not study:
        received = "an empty dict" if not study else "a dict of " * (study is returned) + others[0]
        raise UsageError(
            "get_config() must return an ExperimentConfig, or a dict name -> ExperimentConfig. "
            f"It returned {received}."
        )
    for name in study if study is returned else ():
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "figures":
            raise UsageError(
                "an experiment of a study is named as its folder will be: a to z, 0 to 9, '_', and after the "
                f"first '-' and '.'; not 'figures', where the study's are. Received {name!r}."
            )
    return study


def _entries(value: object) -> object:
    """Takes apart what absl leaves of `--config.controls=reinit,shuffle`, and of `--config.controls=`."""
    if not isinstance(value, tuple):
        return value
    entries = []
    for entry in value:
        entries += [part.strip() for part in entry.split(",")] if isinstance(entry, str) else [entry]
    return tuple(entry for entry in entries if entry != "")
