"""Structures: which weights are pruned together.

A structure puts every weight of a kernel in a group: single weights, whole units,
blocks. To add one, write a function like `_units` and name it in `resolve`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_lottery import names
from tf_lottery.tickets.masks import Arrays, Mask

UNSTRUCTURED, UNITS = "unstructured", "units"
FORMS = (UNSTRUCTURED, UNITS, "block:HxW", "N:M")

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Structure:
    """Groups that are kept or pruned as one.

    Attributes:
        name: as `resolve` takes it.
        groups: path and shape -> the number of each weight's group, from 0 on. None:
            every weight is its own.
    """

    name: str
    groups: Callable[[str, Shape], np.ndarray] | None = None

    def size(self, path: str, shape: Shape) -> int:
        """Returns how many groups there are in a kernel of that shape."""
        return math.prod(shape) if self.groups is None else int(self.groups(path, shape).max()) + 1

    def left(self, path: str, mask: np.ndarray) -> int:
        """Returns how many groups have weights left."""
        if self.groups is None:
            return np.count_nonzero(mask)
        return np.count_nonzero(np.bincount(self.groups(path, mask.shape)[mask]))

    def sizes(self, path: str, shape: Shape) -> tuple[int, int]:
        """Returns the numbers of weights in the smallest and in the largest group."""
        if self.groups is None:
            return 1, 1
        sizes = np.bincount(self.groups(path, shape).ravel())
        return int(sizes.min()), int(sizes.max())

    def pool(self, path: str, mask: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns which groups have weights left, and the mean score of those in each.

        Args:
            path: the kernel's.
            mask: the weights that are left.
            scores: of those weights only, in their order.

        Raises:
            ValueError: there are scores of inf and of -inf in one group.
        """
        if self.groups is None:
            return np.flatnonzero(mask), scores
        group = self.groups(path, mask.shape)[mask]
        counts = np.bincount(group)
        left = np.flatnonzero(counts)
        means = np.bincount(group, scores.astype(np.float64))[left] / counts[left]
        if np.isnan(means).any():
            raise ValueError(f"Scores of {path!r} hold inf and -inf in one group, which have no mean.")
        return left, means

    def remove(self, path: str, mask: np.ndarray, gone: np.ndarray) -> None:
        """Prunes these groups of `mask`, in place."""
        if self.groups is None:
            mask.reshape(-1)[gone] = False
        else:
            mask[np.isin(self.groups(path, mask.shape), gone)] = False


@dataclasses.dataclass(frozen=True)
class NOfM:
    """At most N weights are left of every M consecutive inputs (axis -2) of each output."""

    n: int
    m: int

    @property
    def name(self) -> str:
        return f"{self.n}:{self.m}"

    def check_scope(self, scope: str) -> None:
        """Refuses every scope but `"layer"`.

        Raises:
            ValueError: it is another.
        """
        if scope != "layer":
            raise ValueError(
                f"structure {self.name!r} takes the lowest of each {self.m} inputs and needs scope='layer'. "
                f"Received scope={scope!r}."
            )

    def levels(self, shapes: Mapping[str, Shape]) -> int:
        """Returns how often kernels of these shapes can be pruned, each time by one weight of every M."""
        widest = max((_rows(self.name, path, shape) for path, shape in shapes.items()), default=0)
        return max(0, min(self.m, widest) - self.n)

    def removed(self, shapes: Mapping[str, Shape]) -> list[int]:
        """Returns how many weights have gone after each level, of kernels of these shapes."""
        levels = self.levels(shapes)
        return [
            sum(math.prod(shape) - self._kept(shape, self.n + levels - level) for shape in shapes.values())
            for level in range(1, levels + 1)
        ]

    def _kept(self, shape: Shape, most: int) -> int:
        """Returns how many weights there are with at most `most` in every group."""
        groups, short = divmod(shape[-2], self.m)
        return math.prod(shape) // shape[-2] * (groups * most + min(most, short))

    def prune(self, mask: Mask, scores: Arrays, paths: Sequence[str]) -> Mask:
        """Returns the mask with at most one weight less in every group than the fullest group has.

        Raises:
            ValueError: no group has more than N left.
        """
        levels = self.levels({path: np.shape(mask[path]) for path in paths})
        fullest = max((int(self._grouped(mask[path], False).sum(-1).max()) for path in paths), default=0)
        if paths and fullest <= self.n:
            raise ValueError(f"structure {self.name!r} has {levels} levels: pass levels={levels}.")
        return {**mask, **{path: self._thinned(mask[path], scores[path], fullest - 1) for path in paths}}

    def _grouped(self, array: np.ndarray, fill: float) -> np.ndarray:
        """Axis -2 in groups of M, as the last axis; the last group is filled up."""
        rows = np.moveaxis(np.asarray(array), -2, -1)
        padding = [(0, 0)] * (rows.ndim - 1) + [(0, -rows.shape[-1] % self.m)]
        return np.pad(rows, padding, constant_values=fill).reshape(*rows.shape[:-1], -1, self.m)

    def _thinned(self, mask: np.ndarray, scores: np.ndarray, most: int) -> np.ndarray:
        left = self._grouped(mask, False)
        # What is pruned is at infinity, so that what is left has to be below it.
        values = np.minimum(self._grouped(np.asarray(scores, np.float64), 0), np.finfo(np.float64).max)
        while (full := left.sum(-1) > most).any():
            backwards = np.where(left, values, np.inf)[..., ::-1]  # among equal scores the last goes
            lowest = self.m - 1 - backwards.argmin(-1)
            left &= ~(full[..., None] & (np.arange(self.m) == lowest[..., None]))
        rows = left.reshape(*left.shape[:-2], -1)[..., : np.shape(mask)[-2]]
        return np.ascontiguousarray(np.moveaxis(rows, -1, -2))


def resolve(name: str) -> Structure | NOfM:
    """Returns the structure of that name.

    Args:
        name: `"unstructured"`: single weights. `"units"`: all weights into one unit or
            filter, those of one index on the last axis; of kernels called
            `depthwise_kernel`, one index on the last two. `"block:HxW"`, such as
            `"block:4x1"`: H x W weights of the last two axes; those cut off at the edges
            are blocks as well. `"N:M"`, such as `"2:4"`: N of every M along the inputs.

    Raises:
        ValueError: there is no such structure, or its sizes are impossible.

    Example:
        >>> resolve("block:1x2").groups("fc/kernel", (2, 3))
        array([[0, 0, 1],
               [2, 2, 3]])
    """
    text = name if isinstance(name, str) else ""
    if text == UNSTRUCTURED:
        return Structure(text)
    if text == UNITS:
        return Structure(text, _units)
    if sizes := re.fullmatch(r"block:(\d+)x(\d+)", text):
        height, width = map(int, sizes.groups())
        if height and width:
            return Structure(text, _blocks(height, width))
        raise ValueError(f"A block has at least one row and one column. Received {name!r}.")
    if sizes := re.fullmatch(r"(\d+):(\d+)", text):
        n, m = map(int, sizes.groups())
        if 1 <= n < m:
            return NOfM(n, m)
        raise ValueError(f"N:M keeps N of M weights, with 1 <= N < M. Received {name!r}.")
    raise ValueError(names.unknown(name, FORMS, "structure"))


def _units(path: str, shape: Shape) -> np.ndarray:
    # Each channel of a depthwise convolution has filters of its own.
    axes = shape[-2:] if path.endswith("depthwise_kernel") else shape[-1:]
    return np.broadcast_to(np.arange(math.prod(axes)).reshape(axes), shape)


def _blocks(height: int, width: int) -> Callable[[str, Shape], np.ndarray]:
    def groups(path: str, shape: Shape) -> np.ndarray:
        down = -(-_rows(f"block:{height}x{width}", path, shape) // height)
        across = -(-shape[-1] // width)
        row, column = np.arange(shape[-2])[:, None] // height, np.arange(shape[-1]) // width
        position = np.arange(math.prod(shape[:-2])).reshape(*shape[:-2], 1, 1)
        return (position * down + row) * across + column

    return groups


def _rows(name: str, path: str, shape: Shape) -> int:
    if len(shape) < 2:
        raise ValueError(
            f"structure {name!r} needs kernels of rank 2 or more, and {path!r} has the shape {shape}: "
            "give it the fraction 0."
        )
    return shape[-2]
