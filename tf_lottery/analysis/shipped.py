"""A network as it is shipped: how large its file is, how fast it runs, and how right it is."""

import dataclasses
import functools
import gzip
import io
import itertools
import pathlib
import statistics
import tarfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.analysis import tables
from tf_lottery.training import data
from tf_lottery.training.inputs import Source
from tf_lottery.training.streams import HostArrays, Stream

BATCHES = (1, 64)  # the batch sizes that are timed
ROUNDS = 21
CLEARLY = 0.05  # a difference that is told
_TURN = 0.01  # seconds that a function runs at least, before it is the next one's turn
_WARM_UP = 3  # calls


@dataclasses.dataclass(frozen=True)
class Latency:
    """How long one call takes.

    Attributes:
        rounds: milliseconds in each round.
    """

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    @property
    def spread(self) -> tuple[float, float]:
        """What 8 in 10 rounds lie between."""
        return _spread(self.rounds)

    def __str__(self) -> str:
        low, high = self.spread
        return f"{self.median:.3g} [{low:.3g} {high:.3g}]"


@dataclasses.dataclass(frozen=True)
class Shipped:
    """A network's file, as its own runtime runs it.

    Attributes:
        name: of the network, such as `"dense"`.
        density: kernel weights that are not 0, as a fraction of those of the dense network; of a quantized
            network, before 8 bits made zeros of the smallest.
        size: bytes on disk; of a folder, those of all files in it.
        gzipped: bytes of the file gzipped; of a folder, of a tar.gz.
        latency: batch size, each of `BATCHES` -> latency.
        accuracy: test accuracy, a fraction in [0, 1].
        keras_accuracy: that of the network in Keras, before it was compacted or quantized where it was.
    """

    name: str
    density: float
    size: int
    gzipped: int
    latency: Mapping[int, Latency]
    accuracy: float
    keras_accuracy: float

    @property
    def difference(self) -> float:
        """The file's accuracy minus Keras's, in points."""
        return 100 * (self.accuracy - self.keras_accuracy)


def sizes(path: pathlib.Path) -> tuple[int, int]:
    """Returns the bytes of a local file or folder, and of the same gzipped."""
    if path.is_file():
        content = path.read_bytes()
        return len(content), len(gzip.compress(content))
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        tar.add(path, arcname=path.name)
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file()), len(tarred.getvalue())


def accuracy(predict: Callable[[np.ndarray], np.ndarray], test: Source) -> float:
    """Returns the share of test examples whose highest output is that of their label, in [0, 1].

    Args:
        predict: from inputs `(n, ...)` to outputs `(n, classes)`.
        test: examples `(x, y)`, with labels from 0 on, or a stream of batches of these.
    """
    right = examples = 0
    for x, y in test if isinstance(test, Stream) else HostArrays(test, BATCHES[-1]):
        right += np.count_nonzero(predict(x).argmax(-1) == y.reshape(-1))
        examples += len(x)
    return right / examples


def inputs(test: Source) -> dict[int, np.ndarray]:
    """Returns batch size -> as many inputs, the first ones, again and again where there are fewer."""
    x, *_ = test.first if isinstance(test, Stream) else data.take(test, slice(BATCHES[-1]))
    return {n: np.resize(x, (n, *x.shape[1:])) for n in BATCHES}


def latencies(
    predicts: Mapping[str, Callable[[np.ndarray], Any]], batches: Mapping[int, np.ndarray]
) -> dict[str, dict[int, Latency]]:
    """Times functions in turn, so that what else the machine does meets all of them alike.

    Args:
        predicts: name -> function of a batch.
        batches: batch size -> batch.

    Returns:
        Name -> batch size -> latency.
    """
    calls = {
        (name, n): functools.partial(predict, batch)
        for n, batch in batches.items()
        for name, predict in predicts.items()
    }
    for call in itertools.chain.from_iterable([call] * _WARM_UP for call in calls.values()):
        call()
    times: dict[Any, list[float]] = {key: [] for key in calls}
    for number in range(ROUNDS):
        # Every other round backwards: none comes always after the same one.
        for key in list(calls)[:: -1 if number % 2 else 1]:
            times[key].append(_turn(calls[key]))
    return {name: {n: Latency(tuple(times[name, n])) for n in batches} for name in predicts}


def _turn(call: Callable[[], Any]) -> float:
    """Returns the mean milliseconds of as many calls as a turn has."""
    began, taken, count = time.perf_counter(), 0.0, 0
    while taken < _TURN:
        call()
        count += 1
        taken = time.perf_counter() - began
    return 1000 * taken / count


def _spread(values: Sequence[float]) -> tuple[float, float]:
    tenths = statistics.quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[-1]


def table(shipped: Sequence[Shipped]) -> str:
    """Returns a table with a row for each network."""
    head = ["network", "density %", "kB", "gzipped kB", *(f"ms, batch {n}" for n in BATCHES)]
    rows = [[*head, "test acc %", "minus Keras"]]
    for each in shipped:
        rows.append(
            [
                each.name,
                f"{100 * each.density:.2f}",
                f"{each.size / 1000:,.1f}",
                f"{each.gzipped / 1000:,.1f}",
                *map(str, each.latency.values()),
                f"{100 * each.accuracy:.2f}",
                f"{each.difference:+.2f}",
            ]
        )
    return "\n".join(tables.in_columns(rows, left=1))


def sentences(dense: Shipped, others: Sequence[Shipped]) -> str:
    """Says what got smaller and what got faster, a line for each of `others`.

    Faster, or slower, is what 9 in 10 rounds agree on, each round's time being held against that of dense in
    the same round, and what is so by more than `CLEARLY` at the median; as fast is what is within that at
    the median. Smaller or larger is what is so by more than `CLEARLY`.

    Example:
        >>> def made(name, size, gzipped, ms):
        ...     latency = {n: Latency((n * ms * 0.9, n * ms, n * ms * 1.1)) for n in BATCHES}
        ...     return Shipped(name, 1.0, size, gzipped, latency, 0.97, 0.97)
        >>> dense = made("dense", 1000, 900, 1.0)
        >>> print(sentences(dense, [made("ticket", 1000, 300, 1.02), made("compacted", 500, 250, 0.5)]))
        Beside dense, ticket is as large on disk, 3.0 times smaller gzipped, and as fast.
        Beside dense, compacted is 2.0 times smaller on disk, 3.6 times smaller gzipped, and 2.0 times \
faster.
    """
    lines = []
    for other in others:
        disk, zipped = _smaller(other.size / dense.size), _smaller(other.gzipped / dense.gzipped)
        speed = _speed(dense, other)
        lines.append(f"Beside dense, {other.name} is {disk} on disk, {zipped} gzipped, and {speed}.")
    return "\n".join(lines)


def _smaller(ratio: float) -> str:
    if abs(ratio - 1) <= CLEARLY:
        return "as large"
    return f"{1 / ratio:.1f} times smaller" if ratio < 1 else f"{ratio:.1f} times larger"


def _speed(dense: Shipped, other: Shipped) -> str:
    said = {}
    for n, latency in other.latency.items():
        ratios = [mine / its for mine, its in zip(latency.rounds, dense.latency[n].rounds)]
        ratio, (low, high) = statistics.median(ratios), _spread(ratios)
        if abs(ratio - 1) <= CLEARLY:
            said[n] = "as fast"
        elif low <= 1 <= high:
            said[n] = "not surely faster or slower"
        else:
            said[n] = f"{1 / ratio:.1f} times faster" if ratio < 1 else f"{ratio:.1f} times slower"
    if len(set(said.values())) == 1:
        return next(iter(said.values()))
    return ", ".join(f"{words} at batch {n}" for n, words in said.items())
