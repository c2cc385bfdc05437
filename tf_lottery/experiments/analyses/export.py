"""A trained ticket as a file that other programs open, held against the dense network in the same format."""

import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_lottery import files, names, paths
from tf_lottery.analysis import shipped, verdict
from tf_lottery.analysis.findings import NOTHING_TRAINED, Findings
from tf_lottery.analysis.shipped import Shipped
from tf_lottery.experiments import variants
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api.exporting import FORMATS
from tf_lottery.training.history import TICKET
from tf_lottery.training.recorded import Recorded
from tf_lottery.training.recorded import compared as trained_networks

_MEANINGS = """\
Accuracy and milliseconds are those of {runtime}, here; 8 in 10 of {rounds} rounds lie in the brackets.
Faster, or slower, is what 9 in 10 rounds agree on, dense and the other in turn, and by over {clearly} at
the median; as fast is what is within {clearly} there. Zeros alone make no network faster on dense
hardware, which multiplies them too: they make files small."""


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
        ValueError: there is no such network or format, what is asked for does not go together, TF-MOT
            cannot quantize the network, or TFLite cannot hold it.
        OSError: the file cannot be written.
    """
    made_by = names.find(format, FORMATS, "format")
    networks = trained_networks(folder)
    if not networks:
        return NOTHING_TRAINED
    place = paths.path(output or paths.path(folder) / "export").expanduser()
    asked, dense = _asked(networks, level, arm, replicate), _asked(networks, 0, TICKET, replicate)
    made = Experiment.of_run(folder)
    _check_goes_together(made, format, compact, quantize, quantize_steps, place)
    shown = [variants.plain("dense", made, dense, made_by)]
    if not asked.result.is_dense:
        shown.append(variants.plain(asked.result.arm, made, asked, made_by))
    if compact:
        shown.append(variants.compacted(shown[-1]))
    if quantize:
        shown.append(variants.quantized(shown[-1], made, replicate, quantize_steps))
    stem = f"{_name(folder)}_level_{asked.result.level:02d}_{arm}_replicate_{replicate}"
    stem += "_compacted" * compact + "_8_bit" * quantize
    with tempfile.TemporaryDirectory() as temporary:
        paths_made = variants.write(shown, pathlib.Path(temporary), stem)
        rows = list(variants.measured(shown, paths_made, made.data.test))
        written = place / paths_made[-1].name
        _replace(paths_made[-1], written)
    text = "\n\n".join(_text(asked, rows, format, made.config.data.input_scaling))
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
    made: Experiment, format: str, compact: bool, quantize: bool, quantize_steps: int, place: paths.Path
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
    if quantize and quantize_steps < 1:
        raise ValueError(
            "Quantized networks are trained for 1 step or more: --quantize_steps=1000. "
            f"Received: {quantize_steps}."
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


def _name(folder: str | os.PathLike[str]) -> str:
    # Normalized: ".." is the name of no run.
    return os.path.basename(os.path.normpath(paths.path(folder).absolute()))


def _replace(made: pathlib.Path, target: paths.Path) -> None:
    """Puts what was made in the place of `target`, whole or not at all; a folder is away for a moment.

    If that cannot be done, or one is interrupted, what was there comes back.
    """
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
        new.rename(target)
    finally:
        if old.exists() and not target.exists():
            old.rename(target)
        for folder in (new, old):
            paths.remove_tree(folder)


def _text(asked: Recorded, rows: Sequence[Shipped], format: str, input_scaling: str) -> Iterator[str]:
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
    yield f"Its inputs are scaled as the run's are: --config.data.input_scaling={input_scaling}."
    yield shipped.table(rows)
    if len(rows) > 1:
        yield shipped.sentences(rows[0], rows[1:])
    yield _MEANINGS.format(
        runtime=FORMATS[format].runtime, rounds=shipped.ROUNDS, clearly=f"{100 * shipped.CLEARLY:.0f} %"
    )


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
