"""The config of an experiment: typed, checked, and by default the handwritten digits."""

import dataclasses
import itertools
import math
import typing
from typing import Any

from tf_lottery import names
from tf_lottery.experiments import networks
from tf_lottery.experiments.augmentation import AUGMENTATIONS, RANDOM_CROPS
from tf_lottery.experiments.scalings import SCALINGS
from tf_lottery.experiments.sections import Section as _Section
from tf_lottery.experiments.sections import entry as _entry
from tf_lottery.keras_api.flavour import FLAVOURS, PRECISIONS
from tf_lottery.search.schedules import SCHEDULES
from tf_lottery.tickets import controls, rewinding, structure
from tf_lottery.tickets.masks import TICKET
from tf_lottery.tickets.pruning import SCOPES
from tf_lottery.tickets.rewinding import FINAL, REWINDINGS, Rewinding
from tf_lottery.tickets.scores import CRITERIA
from tf_lottery.training.arms import ON_NAN
from tf_lottery.training.strategies import STRATEGIES


@dataclasses.dataclass
class DataConfig(_Section):
    """Which data, and how they are prepared."""

    name: str = _entry(
        "digits", "digits, binary_patterns, idx:DIR (MNIST's files), or a data set of tensorflow_datasets"
    )
    data_dir: str = _entry("", "where tensorflow_datasets keeps its data; empty for its own default")
    memory_gib: float = _entry(8.0, "tensorflow_datasets' data that are larger, as float32, stream from disk")
    image_size: int = _entry(0, "height and width to bring images to, from disk; 0 for as they are")
    input_scaling: str = _entry("unit", f"one of {', '.join(SCALINGS)}")
    validation_size: int = _entry(300, "training examples held out at random; early stopping goes by them")


@dataclasses.dataclass
class NetworkConfig(_Section):
    """Which network, and how its kernels are initialized."""

    name: str = _entry(
        "lenet_300_100",
        "or mlp:64,32 or tanh:64,32, conv_2/4/6, resnet_20 (N = 6n + 2), vgg_11/13/16/19; of ImageNet, "
        "resnet_50/101/152",
    )
    initializer: str = _entry(
        "glorot_normal", "of kernels: Keras's name, as in random_normal:stddev=0.05; signed_constant"
    )


@dataclasses.dataclass
class TrainConfig(_Section):
    """How each network is trained."""

    optimizer: str = _entry("adam", "by Keras's name")
    learning_rate: float = _entry(1.2e-3, "of the optimizer")
    momentum: float = _entry(0.0, "of SGD")
    warmup_steps: int = _entry(0, "steps in which the learning rate rises linearly from 0")
    decay_steps: tuple[int, ...] = _entry(
        (), "steps at which the learning rate is multiplied by decay_factor"
    )
    decay_factor: float = _entry(0.1, "once for each of decay_steps")
    weight_decay: float = _entry(0.0, "times a kernel, added to its gradient: L2 penalty, part of the losses")
    label_smoothing: float = _entry(0.0, "share of each label that all classes get alike, in all losses")
    precision: str = _entry("float32", f"one of {', '.join(PRECISIONS)}; weights are float32 in each")
    augment: str = _entry(
        "none",
        "crop_flip: train on images padded by 4, cropped, flipped; random_resized_crop: on parts of them, of "
        "8 to 100 % of the area, brought to data.image_size, flipped",
    )
    batch_size: int = _entry(60, "examples in one step")
    steps: int = _entry(1500, "optimizer updates of each network")
    control_steps: int = _entry(0, "the same of controls, which learn more slowly; 0 for as many")
    eval_every_steps: int = _entry(20, "steps between two evaluations")
    test_curves: bool = _entry(True, "test data at every evaluation, or only at new lows of validation loss")
    on_nan: str = _entry("skip", "where numbers become NaN: skip gives that network up, stop ends the run")


@dataclasses.dataclass
class PruneConfig(_Section):
    """How tickets are found."""

    levels: int = _entry(15, "how often the network is pruned")
    fraction: float = _entry(0.2, "share of a layer's remaining weights that a level prunes")
    conv_fraction: float = _entry(-1.0, "the same of convolutions; -1 for as fraction")
    output_fraction: float = _entry(0.1, "the same of the last layer; of its units none are pruned")
    scope: str = _entry("layer", f"one of {', '.join(SCOPES)}: which weights compete")
    structure: str = _entry("unstructured", "what is pruned as one: unstructured, units, block:4x1, 2:4")
    criterion: str = _entry("magnitude", f"one of {', '.join(CRITERIA)}")
    schedule: str = _entry("iterative", f"one of {', '.join(SCHEDULES)}: what a level is pruned by")
    rewind_step: int = _entry(0, "the step that the weights left are reset to; 0 is initialization")
    rewinding: str = _entry("", f"one of {', '.join(REWINDINGS)}; empty for late, to rewind_step")
    score_step: int = _entry(FINAL, "the step whose weights are scored; -1 for the last")


@dataclasses.dataclass
class ExperimentConfig(_Section):
    """An experiment, whole. Two equal configs give the same bytes."""

    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    network: NetworkConfig = dataclasses.field(default_factory=NetworkConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    prune: PruneConfig = dataclasses.field(default_factory=PruneConfig)
    controls: tuple[str, ...] = _entry(
        ("reinit",), "such as reinit, reinit_2, shuffle, noise:0.5; empty for none"
    )
    control_levels: tuple[int, ...] = _entry((), "the levels with controls; empty for all but level 0")
    replicates: int = _entry(1, "how often all is repeated, with other seeds")
    same_init: bool = _entry(False, "replicates start from the same weights, differ in their data order only")
    seed: int = _entry(0, "everything random depends on it")
    flavour: str = _entry("tf_keras", "tf_keras (Keras 2 in TF-MOT's pruning wrappers) or keras (Keras 3)")
    strategy: str = _entry("auto", f"one of {', '.join(STRATEGIES)}: the devices to train on")


# Entries that only add networks to a finished run.
EXTENDABLE = ("prune.levels", "controls", "control_levels", "replicates")


def validate(config: ExperimentConfig) -> None:
    """Checks every entry that can be checked without TensorFlow and the data.

    Raises:
        TypeError: an entry is of another type than its default.
        ValueError: an entry is out of range, or names nothing known.
    """
    entries = {name: get(config, name) for name in fields()}
    for name, field in fields().items():
        _check_type(name, entries[name], field.type)
    for name, low in _AT_LEAST.items():
        if not entries[name] >= low:  # NaN is no more than that either
            raise ValueError(f"config.{name} must be {low} or more. Received {entries[name]}.")
    for name, high in _AT_MOST.items():
        if entries[name] > high:
            raise ValueError(f"config.{name} must be {high} or less. Received {entries[name]}.")
    for name in _FRACTIONS:
        if not 0 <= entries[name] < 1:
            raise ValueError(f"config.{name} must be in [0, 1). Received {entries[name]}.")
    for name in _ABOVE_0:
        if not 0 < entries[name] < math.inf:
            raise ValueError(f"config.{name} must be above 0 and finite. Received {entries[name]}.")
    for name, known, kind in _NAMES:
        names.find(entries[name], dict.fromkeys(known), kind)
    networks.find(config.network.name)
    if config.train.augment == RANDOM_CROPS and not config.data.image_size:
        raise ValueError(
            f"config.train.augment={RANDOM_CROPS} brings parts of images to one size: set "
            "config.data.image_size, such as 224."
        )
    _check_optimizer(config.train)
    _check_pruning(config)
    _check_controls(config)


def _check_optimizer(train: TrainConfig) -> None:
    if train.momentum and train.optimizer != "sgd":
        raise ValueError(
            f"config.train.momentum is of SGD, and config.train.optimizer is {train.optimizer!r}. "
            "Set the one to 0 or the other to sgd."
        )
    ups = zip((0, *train.decay_steps), train.decay_steps)
    if not all(before < step for before, step in ups):
        raise ValueError(
            f"config.train.decay_steps must be 1 or more, and each above the one before. "
            f"Received {train.decay_steps}."
        )


def _check_pruning(config: ExperimentConfig) -> None:
    prune, steps = config.prune, config.train.steps
    if not 0 <= prune.conv_fraction < 1 and prune.conv_fraction != -1:
        raise ValueError(
            f"config.prune.conv_fraction must be in [0, 1), or -1. Received {prune.conv_fraction}."
        )
    if prune.rewind_step >= steps:
        raise ValueError(
            f"config.prune.rewind_step must be below config.train.steps, {steps}. "
            f"Received {prune.rewind_step}."
        )
    rewinding_of(config)
    structure.resolve(prune.structure)


def _check_controls(config: ExperimentConfig) -> None:
    for name in ("controls", "control_levels"):
        value = get(config, name)
        if len(set(value)) < len(value):
            raise ValueError(f"config.{name} must not name one twice. Received {value}.")
    controls.resolve(config.controls)
    for level in config.control_levels:
        if not 0 <= level <= config.prune.levels:
            raise ValueError(f"config.control_levels must be in 0..{config.prune.levels}. Received {level}.")


def _check_type(name: str, value: Any, expected: Any) -> None:
    if typing.get_origin(expected) is tuple:
        entry = typing.get_args(expected)[0]
        fits = isinstance(value, tuple) and all(_is_a(entry, one) for one in value)
        kind = f"a tuple of {entry.__name__}"
    else:
        fits, kind = _is_a(expected, value), f"of type {expected.__name__}"
    if not fits:
        raise TypeError(f"config.{name} must be {kind}. Received {value!r}.")


def _is_a(kind: type, value: Any) -> bool:
    if isinstance(value, bool):  # which Python has for an int
        return kind is bool
    return isinstance(value, (int, float) if kind is float else kind)


_AT_LEAST = {
    "data.memory_gib": 0,
    "data.image_size": 0,
    "data.validation_size": 1,
    "train.batch_size": 1,
    "train.steps": 1,
    "train.control_steps": 0,
    "train.warmup_steps": 0,
    "train.eval_every_steps": 1,
    "prune.levels": 0,
    "prune.rewind_step": 0,
    "replicates": 1,
}
_AT_MOST = {"prune.levels": 10_000, "replicates": 10_000}  # what is listed one by one
_FRACTIONS = (
    "train.momentum",
    "train.weight_decay",
    "train.label_smoothing",
    "prune.fraction",
    "prune.output_fraction",
)
_ABOVE_0 = ("train.learning_rate", "train.decay_factor")
_NAMES = (
    ("data.input_scaling", SCALINGS, "input scaling"),
    ("train.precision", PRECISIONS, "precision"),
    ("train.augment", AUGMENTATIONS, "augmentation"),
    ("prune.scope", SCOPES, "scope"),
    ("prune.criterion", CRITERIA, "criterion"),
    ("prune.schedule", SCHEDULES, "schedule"),
    ("train.on_nan", ON_NAN, "way to go on after NaN"),
    ("flavour", FLAVOURS, "flavour"),
    ("strategy", STRATEGIES, "strategy"),
)


def fields(section: type = ExperimentConfig, prefix: str = "") -> dict[str, dataclasses.Field]:
    """Returns dotted name -> field of every entry."""
    found = {}
    for field in dataclasses.fields(section):
        name = prefix + field.name
        found |= fields(field.type, f"{name}.") if dataclasses.is_dataclass(field.type) else {name: field}
    return found


def get(config: ExperimentConfig, path: str) -> Any:
    """Returns the entry of that dotted name."""
    for name in path.split("."):
        config = getattr(config, name)
    return config


def rewinding_of(config: ExperimentConfig) -> Rewinding:
    """Returns what the survivors are reset to.

    Raises:
        ValueError: an unknown name, or steps that do not go with it.
    """
    prune = config.prune
    return rewinding.resolve(prune.rewinding, prune.rewind_step, config.train.steps, prune.score_step)


def levels_with_controls(config: ExperimentConfig) -> tuple[int, ...]:
    """Returns the levels at which controls are trained."""
    if not config.controls:
        return ()
    return config.control_levels or tuple(range(1, config.prune.levels + 1))


def networks_of(config: ExperimentConfig) -> list[tuple[int, str]]:
    """Returns level and arm of every ticket and control that a replicate trains."""
    controls = itertools.product(levels_with_controls(config), config.controls)
    return [*((level, TICKET) for level in range(config.prune.levels + 1)), *controls]


def count_networks(config: ExperimentConfig) -> tuple[int, int]:
    """Returns how many tickets and how many controls the experiment trains."""
    tickets = config.prune.levels + 1
    controls = len(levels_with_controls(config)) * len(config.controls)
    return config.replicates * tickets, config.replicates * controls


def entries_of(config: ExperimentConfig) -> dict[str, Any]:
    """Returns all that determines the results, for a run directory to keep and compare."""
    entries = {**dataclasses.asdict(config), "control_levels": levels_with_controls(config)}
    del entries["strategy"], entries["train"]["on_nan"]  # a run may go on with others
    return entries
