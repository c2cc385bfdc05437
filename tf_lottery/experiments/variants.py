"""The networks that an export holds against each other: dense, a ticket, and what is smaller of it."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
import tqdm

from tf_lottery.analysis import shipped
from tf_lottery.analysis.shipped import Shipped
from tf_lottery.experiments import models
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api import compaction, exporting, masked_model, prunable
from tf_lottery.keras_api.exporting import INT8, Format
from tf_lottery.training.inputs import Source
from tf_lottery.training.recorded import Recorded
from tf_lottery.training.streams import HostArrays, Stream


class Variant(NamedTuple):
    """A network that becomes a file.

    Attributes:
        name: in the table.
        model: what is written.
        format: how.
        keras_accuracy: of the network that it is a variant of, in Keras.
        nonzero: its kernel weights that are not 0.
    """

    name: str
    model: Any
    format: Format
    keras_accuracy: float
    nonzero: int


def plain(name: str, made: Experiment, network: Recorded, written_by: Format) -> Variant:
    """Returns a network of a run as a plain model, with the weights that it had when training ended."""
    model = models.plain(made.config, made.data)
    weights = {path: array for path, array in network.end().items() if masked_model.is_weight(path)}
    exporting.fill(model, weights)
    accuracy = shipped.accuracy(exporting.compiled(model), made.data.test)
    return Variant(name, model, written_by, accuracy, _nonzero(model))


def compacted(variant: Variant) -> Variant:
    """Returns the same without the inputs and units that do nothing."""
    model, _ = compaction.compact(variant.model)
    return variant._replace(name=f"compacted {variant.name}", model=model, nonzero=_nonzero(model))


def quantized(variant: Variant, made: Experiment, replicate: int, steps: int) -> Variant:
    """Returns the same with 8-bit weights, trained for so many steps at a tenth of the run's rate.

    Raises:
        ValueError: TF-MOT cannot quantize it.
    """
    from tf_lottery.keras_api import flavour, quantization

    config = made.config
    keras = flavour.keras_module(config.flavour)
    rate = config.train.learning_rate / 10
    train = dataclasses.replace(config.train, learning_rate=rate, warmup_steps=0, decay_steps=())
    batches = _batches(made.data.train, config.train.batch_size, steps, config.seed, replicate, "quantize")
    try:
        model = quantization.quantized(
            variant.model,
            tqdm.tqdm(batches, "training with 8 bits", steps, unit=" steps", disable=None, leave=False),
            steps=steps,
            optimizer=models.optimizer(train, keras),
            loss=models.loss(train, keras, made.data.classes),
        )
    except quantization.Refused as error:
        advice = ", or try without --compact" if variant.name.startswith("compacted") else ""
        raise ValueError(f"{error} Leave out --quantize{advice}.") from error
    return variant._replace(name=f"8-bit {variant.name}", model=model, format=INT8)


def _batches(train: Source, batch_size: int, steps: int, *key: int | str) -> Iterator[tuple[Any, ...]]:
    order = (train if isinstance(train, Stream) else HostArrays(train, batch_size)).order(*key)
    for step in range(steps):
        (batch,) = order.batches(step, 1)
        yield tf.nest.map_structure(lambda stacked: stacked[0], batch)


def _nonzero(model: Any) -> int:
    kernels = prunable.prunable_slots(model).values()
    return sum(np.count_nonzero(slot.variable.numpy()) for slot in kernels)


def write(variants: Sequence[Variant], folder: pathlib.Path, stem: str) -> list[pathlib.Path]:
    """Writes each into a folder of its own, under the name that the last one is to have."""
    written = []
    for number, variant in enumerate(variants):
        written.append(folder / str(number) / f"{stem}{variant.format.suffix}")
        written[-1].parent.mkdir()
        variant.format.write(variant.model, written[-1])
    return written


def measured(variants: Sequence[Variant], written: Sequence[pathlib.Path], test: Source) -> Iterator[Shipped]:
    """Yields what each is as a file; the first one is dense, and densities are shares of its weights."""
    opened = {each.name: each.format.open(path, each.model) for each, path in zip(variants, written)}
    latencies = shipped.latencies(opened, shipped.inputs(test))
    kernels = prunable.prunable_slots(variants[0].model).values()
    weights = sum(int(np.prod(slot.variable.shape)) for slot in kernels)
    for variant, path in zip(variants, written):
        yield Shipped(
            variant.name,
            variant.nonzero / weights,
            *shipped.sizes(path),
            latencies[variant.name],
            shipped.accuracy(opened[variant.name], test),
            variant.keras_accuracy,
        )
