"""The driver's flags: `--config=FILE`, overrides such as `--config.train.steps=500`, `--workdir=`."""

import os
import pathlib
import re
import runpy
import traceback

from absl import flags
from ml_collections.config_flags import config_flags

from tf_lottery import names
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments.config import ExperimentConfig


class UsageError(ValueError):
    """Flags that cannot be followed."""


def parse(arguments: list[str]) -> tuple[ExperimentConfig, str]:
    """Reads the driver's flags. Of a flag that is given twice the last counts.

    Args:
        arguments: the words after the command's name.

    Returns:
        The config, validated and frozen, and the run directory.

    Raises:
        UsageError: an unknown flag or config entry, a config file that cannot be used,
            or a value out of range.
    """
    _check_keys(arguments)
    words = ["tf-lottery", *arguments]
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "The run directory.", flag_values=values)
    files: list[str] = []

    def load(path: str) -> ExperimentConfig:
        files.append(path)
        return _load(path)

    try:
        holder = config_flags.DEFINE_config_dataclass(
            "config", ExperimentConfig(), flag_values=values, sys_argv=words, parse_fn=load
        )
        rest = values(words)[1:]
        if rest:
            raise UsageError(f"Unexpected argument {rest[0]!r}. Flags are written --name=value.")
        if values.workdir == "":
            raise UsageError("--workdir is empty. Name a folder, such as --workdir=runs/mine.")
        config = holder.value
        config.controls = _entries(config.controls)
        config.control_levels = _entries(config.control_levels)
        config.train.decay_steps = _entries(config.train.decay_steps)
        config_module.validate(config)
    except config_flags.FlagOrderError as error:
        raise UsageError("--config=FILE comes before --config.ENTRY=VALUE.") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise UsageError(str(error)) from error
    config.freeze()
    workdir = values.workdir or _default_workdir(config, files[-1] if files else None)
    return config, os.path.expanduser(workdir)


def _default_workdir(config: ExperimentConfig, file: str | None) -> str:
    """Returns a folder named for the config file and what the flags changed in it."""
    name, before = ("digits", ExperimentConfig()) if file is None else (pathlib.Path(file).stem, _load(file))
    changed = [
        f"-{entry}={config_module.get(config, entry)}"
        for entry in config_module.fields()
        if entry not in config_module.EXTENDABLE
        and config_module.get(config, entry) != config_module.get(before, entry)
    ]
    return os.path.join("runs", re.sub(r"[^\w.=-]+", "_", name + "".join(changed))[:200])


def help_text() -> str:
    """Returns the flags and every config entry with its default and meaning."""
    lines = [
        "  --workdir=DIR         the run directory; a run that was stopped goes on there (runs/digits, or",
        "                        what the config and the other flags make of it)",
        "  --config=FILE         a Python file whose get_config() returns an ExperimentConfig, such as",
        "                        configs/mnist_lenet.py (without it: the handwritten digits)",
        "  --config.ENTRY=VALUE  another value for one entry, after --config=FILE:",
        "",
    ]
    default = ExperimentConfig()
    for name, field in config_module.fields().items():
        value = config_module.get(default, name)
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        lines.append(f"    {f'{name}={shown}':<33}  {field.metadata['help']}")
    return "\n".join(lines)


def _check_keys(arguments: list[str]) -> None:
    known = config_module.fields()
    for word in arguments:
        name = word.lstrip("-").partition("=")[0]
        entry = name.removeprefix("config.")
        if word.startswith("-") and entry != name and entry not in known:
            raise UsageError(names.unknown(entry, known, "config entry"))


def _load(path: str) -> ExperimentConfig:
    """Runs a config file. absl puts the flag before what is wrong with it."""
    if not os.path.isfile(path):
        raise UsageError("there is no such file.")
    try:
        get_config = runpy.run_path(path).get("get_config")
        config = get_config() if get_config else None
    except Exception as error:  # The file is the user's program.
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path
        ]
        where = f"line {lines[-1]}: " if lines else ""
        raise UsageError(f"{where}{type(error).__name__}: {error}") from error
    if get_config is None:
        raise UsageError("the file has no function get_config().")
    if not isinstance(config, ExperimentConfig):
        raise UsageError(
            f"get_config() must return an ExperimentConfig. It returned {type(config).__name__}."
        )
    return config


def _entries(value: object) -> object:
    """Takes apart what absl leaves of `--config.controls=reinit,shuffle`, and of `--config.controls=`."""
    if not isinstance(value, tuple):
        return value
    entries = []
    for entry in value:
        entries += [part.strip() for part in entry.split(",")] if isinstance(entry, str) else [entry]
    return tuple(entry for entry in entries if entry != "")
