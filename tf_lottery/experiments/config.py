"""The config of an experiment: typed, checked, and by default the handwritten digits."""

import dataclasses
from typing import Any

from tf_lottery import names
from tf_lottery.keras_api.flavour import FLAVOURS
from tf_lottery.tickets.controls import CONTROLS
from tf_lottery.tickets.pruning import SCOPES
from tf_lottery.tickets.scores import CRITERIA


class _Section:
    """A part of the config: knows its entries, and can be frozen."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self.__dataclass_fields__:
            raise AttributeError(names.unknown(name, self.__dataclass_fields__, "config entry"))
        if self.__dict__.get("_frozen"):
            raise AttributeError(f"The config is frozen once a run has begun; cannot set {name!r}.")
        object.__setattr__(self, name, value)

    def freeze(self) -> None:
        """Refuses all further changes, in the sections below too."""
        self.__dict__["_frozen"] = True
        for value in vars(self).values():
            if isinstance(value, _Section):
                value.freeze()


@dataclasses.dataclass
class DataConfig(_Section):
    """Which data. `validation_size` examples are held out of the training part at random."""

    name: str = "digits"  # "digits", "idx:DIR" or a data set of tensorflow_datasets
    data_dir: str = ""  # where tensorflow_datasets keeps its data; "" for its own default
    input_scaling: str = "unit"  # "unit", "standardize", "l2" or "none"
    validation_size: int = 300


@dataclasses.dataclass
class NetworkConfig(_Section):
    """Which network, and how its kernels are initialized (by Keras's name)."""

    name: str = "lenet_300_100"  # "lenet_300_100" or "mlp:W1,W2,..."
    initializer: str = "glorot_normal"


@dataclasses.dataclass
class TrainConfig(_Section):
    """How each network is trained."""

    optimizer: str = "adam"  # by Keras's name
    learning_rate: float = 1.2e-3
    batch_size: int = 60
    steps: int = 1500
    control_steps: int = 0  # the same for controls, which are slower; 0 for as many as the tickets'
    eval_every_steps: int = 20


@dataclasses.dataclass
class PruneConfig(_Section):
    """How tickets are found."""

    levels: int = 15
    fraction: float = 0.2  # of a layer's remaining weights, per level
    output_fraction: float = 0.1  # the same of the last layer
    scope: str = "layer"  # "layer" or "global"
    criterion: str = "magnitude"
    rewind_step: int = 0


@dataclasses.dataclass
class ExperimentConfig(_Section):
    """An experiment, whole. Two equal configs give the same bytes."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    prune: PruneConfig = dataclasses.field(default_factory=PruneConfig)
    controls: tuple[str, ...] = ("reinit",)
    control_levels: tuple[int, ...] = ()  # the levels with controls; () for all but level 0
    replicates: int = 1
    seed: int = 0
    flavour: str = "tf_keras"  # "tf_keras" (TF-MOT's wrappers) or "keras" (Keras 3)


# Entries that only add networks to a finished run.
EXTENDABLE = ("prune.levels", "controls", "control_levels", "replicates")


def get_config() -> ExperimentConfig:
    """Returns the default experiment, as a config file does."""
    return ExperimentConfig()


def validate(config: ExperimentConfig) -> None:
    """Checks every entry that can be checked without the data.

    Raises:
        TypeError: an entry is of another type than its default.
        ValueError: an entry is out of range, or names nothing known.
    """
    entries = {name: get(config, name) for name in keys()}
    for name, value in entries.items():
        _check_type(name, value, get(ExperimentConfig(), name))
    for name, low in _AT_LEAST.items():
        if entries[name] < low:
            raise ValueError(f"config.{name} must be {low} or more. Received {entries[name]}.")
    for name in _FRACTIONS:
        if not 0 <= entries[name] < 1:
            raise ValueError(f"config.{name} must be in [0, 1). Received {entries[name]}.")
    if not config.train.learning_rate > 0:
        raise ValueError(
            f"config.train.learning_rate must be above 0. Received {config.train.learning_rate}."
        )
    if config.prune.rewind_step >= config.train.steps:
        raise ValueError(
            f"config.prune.rewind_step must be below config.train.steps, {config.train.steps}. "
            f"Received {config.prune.rewind_step}."
        )
    for level in config.control_levels:
        if not 0 <= level <= config.prune.levels:
            raise ValueError(f"config.control_levels must be in 0..{config.prune.levels}. Received {level}.")
    for name, known, kind in _NAMES:
        names.find(entries[name], dict.fromkeys(known), kind)
    for control in config.controls:
        names.find(control, CONTROLS, "control")


_AT_LEAST = {
    "data.validation_size": 1,
    "train.batch_size": 1,
    "train.steps": 1,
    "train.control_steps": 0,
    "train.eval_every_steps": 1,
    "prune.levels": 0,
    "prune.rewind_step": 0,
    "replicates": 1,
}
_FRACTIONS = ("prune.fraction", "prune.output_fraction")
_NAMES = (
    ("prune.scope", SCOPES, "scope"),
    ("prune.criterion", CRITERIA, "criterion"),
    ("flavour", FLAVOURS, "flavour"),
)


def keys(section: _Section | None = None, prefix: str = "") -> list[str]:
    """Returns the dotted names of all entries."""
    section = ExperimentConfig() if section is None else section
    found = []
    for name in section.__dataclass_fields__:
        value = getattr(section, name)
        found += keys(value, f"{prefix}{name}.") if isinstance(value, _Section) else [prefix + name]
    return found


def _check_type(name: str, value: Any, default: Any) -> None:
    expected = type(default)
    if isinstance(value, bool) or not isinstance(value, (int, float) if expected is float else expected):
        raise TypeError(f"config.{name} must be of type {expected.__name__}. Received {value!r}.")


def get(config: ExperimentConfig, path: str) -> Any:
    """Returns the entry of that dotted name."""
    for name in path.split("."):
        config = getattr(config, name)
    return config
