"""A whole search as the driver does it: seconds for each level, and what its seconds are spent on."""

import collections
import contextlib
import csv
import functools
import gzip
import os
import struct
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.speed import spread

_EXAMPLES = {"train": 60_000, "t10k": 10_000}


def measure(
    workdir: str, data: str, levels: int, steps: int, test_curves: bool, flavour: str
) -> dict[str, Any]:
    """Returns what the paper's protocol on LeNet-300-100 took, with so many levels and steps.

    Args:
        workdir: of the run.
        data: a folder with MNIST's IDX files; empty for images at random that can be told apart.
        levels: prunings; with each two networks are trained, ticket and reinit.
        steps: of each network, evaluated every 100.
        test_curves: as of the config.
        flavour: the same.
    """
    from tf_lottery.experiments import driver
    from tf_lottery.experiments.config import (
        DataConfig,
        ExperimentConfig,
        NetworkConfig,
        PruneConfig,
        TrainConfig,
    )
    from tf_lottery.training.loop import Loop

    if os.path.exists(os.path.join(workdir, "run")):
        raise ValueError(
            f"There is a run in {workdir!r}, and a search is measured whole: name another folder."
        )
    if not data:
        data = _write_images(os.path.join(workdir, "images"))
    config = ExperimentConfig(
        data=DataConfig(name=f"idx:{data}", validation_size=5000),
        network=NetworkConfig(name="lenet_300_100"),
        train=TrainConfig(steps=steps, eval_every_steps=100, test_curves=test_curves),
        prune=PruneConfig(levels=levels),
        flavour=flavour,
    )
    loops: list[Loop] = []
    began = time.perf_counter()
    with _clocks() as seconds, _kept(Loop, loops):
        driver.run(config, os.path.join(workdir, "run"))
    total = time.perf_counter() - began
    with open(os.path.join(workdir, "run", "timings.csv")) as file:
        rows = [(int(row["level"]), row["arm"], float(row["seconds"])) for row in csv.DictReader(file)]
    return {
        "levels": levels,
        "steps": steps,
        "networks": len(rows),
        "total_seconds": total,
        "traces": [loop.traces for loop in loops],
        "seconds": dict(seconds),
        "of_training": {name: value / seconds["training"] for name, value in seconds.items()},
        "networks_seconds": rows,
        "level_0_seconds": rows[0][2],
        "ticket_seconds": spread([s for level, arm, s in rows if level and arm == "ticket"]),
        "late_over_early": _late_over_early(rows),
    }


def text(report: dict[str, Any]) -> str:
    """Returns the report as tables."""
    ticket = report["ticket_seconds"]
    lines = [
        f"{report['networks']} networks of {report['steps']} steps in "
        f"{report['total_seconds'] / 60:.1f} minutes; functions traced: {report['traces']}",
        f"level 0, with tracing and compiling: {report['level_0_seconds']:.2f} s; a ticket of another level "
        f"{ticket['median']:.2f} s ({ticket['low']:.2f} to {ticket['high']:.2f}); "
        f"levels of the last third over the first third: {report['late_over_early']:.3f}",
        "",
        f"{'':28}{'seconds':>10}{'of training':>14}",
    ]
    for name, value in report["seconds"].items():
        lines.append(f"{name:28}{value:10.2f}{report['of_training'][name]:13.1%}")
    return "\n".join(lines)


def _late_over_early(rows: list[tuple[int, str, float]]) -> float:
    levels = sorted({level for level, _, _ in rows} - {0})
    third = max(1, len(levels) // 3)

    def median(chosen: list[int]) -> float:
        return float(np.median([seconds for level, _, seconds in rows if level in chosen]))

    return median(levels[-third:]) / median(levels[:third])


@contextlib.contextmanager
def _clocks() -> Iterator[dict[str, float]]:
    """Yields seconds by what they are spent on, measured inside of what is run."""
    from tf_lottery.analysis.tensorboard import TensorBoard
    from tf_lottery.training.loop import Loop
    from tf_lottery.training.runs import ReplicateStore
    from tf_lottery.training.soundness import Soundness
    from tf_lottery.training.terminal import Terminal
    from tf_lottery.training.trainer import Trainer

    clocked = [
        ("training", Loop, ("train",)),
        ("evaluation: validation", Loop, ("evaluate",)),
        ("is every weight a number", Soundness, ("is_finite", "classes_predicted")),
        ("TensorBoard", TensorBoard, ("started", "evaluated", "finished", "write_report")),
        ("checkpoints", ReplicateStore, ("save_progress",)),
        ("results", ReplicateStore, ("save", "initial")),
        ("progress", Terminal, ("started", "stepped", "evaluated", "finished")),
        ("all of each network", Trainer, ("__call__",)),
    ]
    seconds: dict[str, float] = collections.defaultdict(float)
    with contextlib.ExitStack() as stack:
        for name, kind, methods in clocked:
            for method in methods:
                stack.enter_context(_clocked(kind, method, name, seconds))
        yield seconds


@contextlib.contextmanager
def _clocked(kind: type, method: str, name: str, seconds: dict[str, float]) -> Iterator[None]:
    original = getattr(kind, method)

    @functools.wraps(original)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return original(self, *arguments, **options)
        finally:
            is_test = kind.__name__ == "Loop" and method == "evaluate" and arguments[0] == "test"
            entry = "evaluation: test" if is_test else name
            seconds[entry] += time.perf_counter() - began

    setattr(kind, method, call)
    try:
        yield
    finally:
        setattr(kind, method, original)


@contextlib.contextmanager
def _kept(kind: type, instances: list[Any]) -> Iterator[None]:
    original = kind.__init__

    @functools.wraps(original)
    def init(self: Any, *arguments: Any, **options: Any) -> None:
        original(self, *arguments, **options)
        instances.append(self)

    kind.__init__ = init
    try:
        yield
    finally:
        kind.__init__ = original


def _write_images(folder: str) -> str:
    """Writes images in MNIST's files: noise round one pattern for each class."""
    os.makedirs(folder, exist_ok=True)
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (10, 28, 28))
    for name, count in _EXAMPLES.items():
        labels = rng.integers(0, 10, count, np.uint8)
        images = (0.1 * patterns[labels] + 0.9 * rng.integers(0, 256, (count, 28, 28))).astype(np.uint8)
        for kind, array in ((f"{name}-images-idx3", images), (f"{name}-labels-idx1", labels)):
            head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            with gzip.open(os.path.join(folder, f"{kind}-ubyte.gz"), "wb", compresslevel=1) as file:
                file.write(head + array.tobytes())
    return folder
