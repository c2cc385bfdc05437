"""The driver's flags: `--config=FILE`, overrides such as `--config.train.steps=500`, `--workdir=`."""

import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from tf_lottery import names
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments.config import ExperimentConfig


class UsageError(ValueError):
    """Flags that cannot be followed."""


def parse(arguments: list[str]) -> tuple[ExperimentConfig, str]:
    """Reads the driver's flags.

    Args:
        arguments: the words after the command's name.

    Returns:
        The config, validated and frozen, and the run directory.

    Raises:
        UsageError: an unknown flag, config entry or file, or a value out of range.
    """
    _check_keys(arguments)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "runs/digits", "The run directory.", flag_values=values)
    try:
        holder = _define_config(arguments, values)
        rest = values(["tf-lottery", *arguments])[1:]
        config = holder.value
        if not isinstance(config, ExperimentConfig):
            raise UsageError(_unusable(arguments, config))
        if rest:
            raise UsageError(f"Unexpected argument {rest[0]!r}. Flags are written --name=value.")
        config.controls = _words(config.controls)
        config_module.validate(config)
    except (flags.Error, TypeError, ValueError, AttributeError) as error:
        raise UsageError(str(error)) from error
    config.freeze()
    return config, values.workdir


def help_text() -> str:
    """Returns the flags and every config entry with its default."""
    lines = [
        "  --workdir=DIR         the run directory (default: runs/digits)",
        "  --config=FILE         an experiment, such as configs/mnist_lenet.py (default: the digits)",
        "  --config.ENTRY=VALUE  another value for one entry:",
    ]
    default = ExperimentConfig()
    lines += [f"    --config.{name}={config_module.get(default, name)}" for name in config_module.keys()]
    return "\n".join(lines)


def _define_config(arguments: list[str], values: flags.FlagValues) -> Any:
    # config_flags finds the overrides in sys.argv when the flag is defined.
    before, sys.argv = sys.argv, ["tf-lottery", *arguments]
    try:
        if any(word.lstrip("-").split("=")[0] == "config" for word in arguments):
            return config_flags.DEFINE_config_file("config", flag_values=values)
        return config_flags.DEFINE_config_dataclass("config", ExperimentConfig(), flag_values=values)
    finally:
        sys.argv = before


def _check_keys(arguments: list[str]) -> None:
    known = config_module.keys()
    for word in arguments:
        name = word.lstrip("-").split("=")[0]
        if name.startswith("config.") and name.removeprefix("config.") not in known:
            raise UsageError(names.unknown(name.removeprefix("config."), known, "config entry"))


def _unusable(arguments: list[str], config: Any) -> str:
    try:
        config.seed  # what stands in for a file that failed to load raises its error at any use
    except Exception as error:
        return f"Cannot use the config file: {error}"
    return f"get_config() must return an ExperimentConfig. It returned {type(config).__name__}."


def _words(entries: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(word for entry in entries for word in entry.split(",") if word)
