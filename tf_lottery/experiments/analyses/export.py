"""A trained ticket as a file that other programs open, held against the dense network in the same format."""

import dataclasses
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lottery import files, names, paths
from tf_lottery.analysis import shipped, verdict
from tf_lottery.analysis.findings import NOTHING_TRAINED, Findings
from tf_lottery.analysis.shipped import Shipped
from tf_lottery.experiments import models
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api import exporting, masked_model, prunable
from tf_lottery.keras_api.compaction import compact as compacted
from tf_lottery.keras_api.exporting import FORMATS, INT8, Format
from tf_lottery.training.history import TICKET
from tf_lottery.training.inputs import Source
from tf_lottery.training.recorded import Recorded
from tf_lottery.training.recorded import compared as trained_networks
from tf_lottery.training.streams import HostArrays, Stream

_MEANINGS = """\
Accuracy and milliseconds are those of the file's own runtime, here; 8 in 10 of {} rounds lie in the brackets.
Faster, or slower, is what 9 in 10 rounds agree on, dense and the other in turn. Zeros alone make no network
faster on dense hardware, which multiplies them too: they make files small."""


class _Variant(NamedTuple):
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


def analyze(
    folder: str | os.PathLike[str],
    *,
    level: int = -1,
    arm: str = TICKET,
    replicate: int = 1,
    format: str = "keras",
    compact: bool = False,
    quantize: bool = False,
    quantize_steps: int = 1000,
    output: str = "",
) -> Findings:
    """Writes a network of a run as a file, and returns a table of what that costs and gains beside dense.

    The network is a plain one that computes in float32, and needs neither tf_lottery nor TF-MOT. Its weights
    are those at the end of training: a run does not keep those of the early-stop step, where the verdict
    reads accuracy. The dense network of the same replicate is written in the same format, measured, and not
    kept; and so is the network before it is compacted and quantized.

    Args:
        folder: the run directory.
        level: of the network; -1 for the one that the verdict is on.
        arm: of the network.
        replicate: of the network.
        format: a name in `exporting.FORMATS`.
        compact: whether inputs and units that do nothing are left out (`compaction.compact`).
        quantize: whether weights have 8 bits (`quantization.quantized`); for TFLite files of tf_keras runs.
        quantize_steps: of training that this takes, 1 or more.
        output: the folder of the file, in which one of the same name is replaced; empty for `export` in
            the run directory.

    Raises:
        ValueError: there is no such network or format, what is asked for does not go together, or TF-MOT
            cannot quantize the network.
        OSError: the file cannot be written.
    """
    made_by = names.find(format, FORMATS, "format")
    networks = trained_networks(folder)
    if not networks:
        return NOTHING_TRAINED
    place = paths.path(output or paths.path(folder) / "export").expanduser()
    asked, dense = _asked(networks, level, arm, replicate), _asked(networks, 0, TICKET, replicate)
    made = Experiment.of_run(folder)
    _check_goes_together(made, format, compact, quantize, place)
    variants = [_variant("dense", made, dense, made_by)]
    if not asked.result.is_dense:
        variants.append(_variant(asked.result.arm, made, asked, made_by))
    if compact:
        variants.append(_compacted(variants[-1]))
    if quantize:
        variants.append(_quantized(variants[-1], made, replicate, quantize_steps))
    stem = f"{paths.path(folder).absolute().name}_level_{asked.result.level:02d}_{arm}_replicate_{replicate}"
    stem += "_compacted" * compact + "_8_bit" * quantize
    with tempfile.TemporaryDirectory() as temporary:
        paths_made = _write(variants, pathlib.Path(temporary), stem)
        rows = list(_measured(variants, paths_made, made.data.test))
        written = place / paths_made[-1].name
        _replace(paths_made[-1], written)
    text = "\n\n".join(_text(asked, rows, format))
    told = {"format": format, "replicate": replicate, "level": asked.result.level, "arm": arm}
    return Findings(text, rows=[told | _row(each) for each in rows], files=[written])


def _asked(networks: Sequence[Recorded], level: int, arm: str, replicate: int) -> Recorded:
    if level == -1:
        level = verdict.judge([network.result for network in networks]).level
    wanted = replicate, level, arm
    for network in networks:
        if (network.result.replicate, network.result.level, network.result.arm) == wanted:
            return network
    raise ValueError(
        f"No network of arm {arm!r}, level {level}, replicate {replicate} is trained"
        f"{', with which others are compared' if (level, arm) == (0, TICKET) else ''}. There are: "
        f"{'; '.join(_there(networks))}."
    )


def _there(networks: Sequence[Recorded]) -> Iterator[str]:
    """Yields the flags that networks go by, those of one arm and replicate together."""
    levels: dict[str, list[int]] = {}
    for network in networks:
        result = network.result
        levels.setdefault(f"--arm={result.arm} --replicate={result.replicate}", []).append(result.level)
    for flags, found in levels.items():
        yield f"{flags} with --level={', '.join(map(str, found))}"


def _check_goes_together(
    made: Experiment, format: str, compact: bool, quantize: bool, place: paths.Path
) -> None:
    if quantize and format != "tflite":
        raise ValueError(
            f"Quantized weights are those of a TFLite file: --quantize --format=tflite. Received {format}."
        )
    if quantize and made.config.flavour != "tf_keras":
        raise ValueError(
            "TF-MOT quantizes tf_keras models, and this run is of Keras 3: leave out --quantize, or make one "
            "by 'tf-lottery run --config.flavour=tf_keras'."
        )
    if compact and format == "safetensors":
        raise ValueError(
            "A safetensors file has weights alone, and a compacted network shapes of its own: "
            "--compact --format=keras, savedmodel or tflite."
        )
    if format == "savedmodel" and isinstance(place, paths.RemotePath):
        raise ValueError(
            f"A SavedModel is a folder, which is replaced as one on a local disk only, and {str(place)!r} "
            "is none: give a local folder, --output=exported."
        )


def _variant(name: str, made: Experiment, network: Recorded, written_by: Format) -> _Variant:
    model = models.plain(made.config, made.data)
    weights = {path: array for path, array in network.end().items() if masked_model.is_weight(path)}
    exporting.fill(model, weights)
    accuracy = shipped.accuracy(exporting.compiled(model), made.data.test)
    return _Variant(name, model, written_by, accuracy, _nonzero(model))


def _compacted(variant: _Variant) -> _Variant:
    model, _ = compacted(variant.model)
    return variant._replace(name=f"compacted {variant.name}", model=model, nonzero=_nonzero(model))


def _quantized(variant: _Variant, made: Experiment, replicate: int, steps: int) -> _Variant:
    from tf_lottery.keras_api import flavour, quantization

    config = made.config
    keras = flavour.keras_module(config.flavour)
    rate = config.train.learning_rate / 10
    train = dataclasses.replace(config.train, learning_rate=rate, warmup_steps=0, decay_steps=())
    model = quantization.quantized(
        variant.model,
        _batches(made.data.train, config.train.batch_size, steps, config.seed, replicate, "quantize"),
        steps=steps,
        optimizer=models.optimizer(train, keras),
        loss=models.loss(train, keras, made.data.classes),
    )
    return variant._replace(name=f"8-bit {variant.name}", model=model, format=INT8)


def _batches(train: Source, batch_size: int, steps: int, *key: int | str) -> Iterator[tuple[Any, ...]]:
    order = (train if isinstance(train, Stream) else HostArrays(train, batch_size)).order(*key)
    for step in range(steps):
        (batch,) = order.batches(step, 1)
        yield tf.nest.map_structure(lambda stacked: stacked[0], batch)


def _nonzero(model: Any) -> int:
    kernels = prunable.prunable_slots(model).values()
    return sum(np.count_nonzero(slot.variable.numpy()) for slot in kernels)


def _write(variants: Sequence[_Variant], folder: pathlib.Path, stem: str) -> list[pathlib.Path]:
    """Writes each into a folder of its own, under the name that the last one is to have."""
    written = []
    for number, variant in enumerate(variants):
        written.append(folder / str(number) / f"{stem}{variant.format.suffix}")
        written[-1].parent.mkdir()
        variant.format.write(variant.model, written[-1])
    return written


def _measured(
    variants: Sequence[_Variant], written: Sequence[pathlib.Path], test: Source
) -> Iterator[Shipped]:
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


def _replace(made: pathlib.Path, target: paths.Path) -> None:
    """Puts what was made in the place of `target`, whole or not at all; a folder is away for a moment."""
    if made.is_file():
        with files.replacing(target) as file:
            file.write(made.read_bytes())
        return
    files.make_folder(target.parent)
    new, old = (target.with_name(f".{target.name}.{os.getpid()}.{n}.tf_lottery.tmp") for n in ("new", "old"))
    try:
        shutil.copytree(made, new)
        if target.exists():
            target.rename(old)
        try:
            new.rename(target)
        except OSError:
            if old.exists():
                old.rename(target)
            raise
    finally:
        for folder in (new, old):
            paths.remove_tree(folder)


def _text(asked: Recorded, rows: Sequence[Shipped], format: str) -> Iterator[str]:
    result = asked.result
    lines = [
        f"Level {result.level} of arm {result.arm!r}, replicate {result.replicate}, as {format}. Its weights "
        f"are those at the end of training (step {result.last_step:,})"
    ]
    if result.early_stop_step != result.last_step:
        lines.append(
            f"those of its early stop (step {result.early_stop_step:,}), where the verdict reads accuracy, "
            "are not kept by a run"
        )
    yield ":\n".join(lines) + "."
    yield shipped.table(rows)
    if len(rows) > 1:
        yield shipped.sentences(rows[0], rows[1:])
    yield _MEANINGS.format(shipped.ROUNDS)


def _row(each: Shipped) -> Mapping[str, Any]:
    row = {
        "network": each.name,
        "density": each.density,
        "bytes": each.size,
        "gzipped_bytes": each.gzipped,
    }
    for n, latency in each.latency.items():
        row[f"ms_batch_{n}"] = latency.median
        row[f"ms_batch_{n}_low"], row[f"ms_batch_{n}_high"] = latency.spread
    return row | {"test_accuracy": each.accuracy, "keras_test_accuracy": each.keras_accuracy}
