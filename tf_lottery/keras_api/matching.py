"""Whether named arrays fit a model, and which of its variables each of them is."""

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")
Shapes = Mapping[str, tuple[int, ...]]


def check_fits(given: Shapes, expected: Shapes) -> None:
    """Compares shapes by path.

    Raises:
        ValueError: names every path that is missing, unknown or of another shape.
    """
    differences = [
        f"  {path}: {_shape(given, path)}, the model has {_shape(expected, path)}"
        for path in dict.fromkeys([*expected, *given])
        if given.get(path) != expected.get(path)
    ]
    if differences:
        raise ValueError("These arrays do not fit the model:\n" + "\n".join(differences))


def renamed(arrays: Mapping[str, T], given: Shapes, expected: Shapes) -> dict[str, T]:
    """Returns `arrays` under the paths of a model that differs in Keras's own numbers alone.

    Keras numbers the layers without a name through the whole process: `dense_7` here is
    `dense` in another one. Where the n-th of each such name have the same shapes, they
    are the same layer. In any other case `arrays` keep their paths.

    Args:
        arrays: path -> anything, of the network that `given` describes.
        given: path -> shape of that network.
        expected: path -> shape of the model.

    Example:
        >>> renamed({"dense_7/kernel": "w"}, {"dense_7/kernel": (2, 3)}, {"dense/kernel": (2, 3)})
        {'dense/kernel': 'w'}
    """
    if given.keys() == expected.keys():
        return dict(arrays)
    theirs, ours = _ranked(given), _ranked(expected)
    distinct = len(theirs) == len(given) and len(ours) == len(expected)
    same = (
        distinct
        and theirs.keys() == ours.keys()
        and all(given[theirs[r]] == expected[ours[r]] for r in theirs)
    )
    if not same:
        return dict(arrays)
    names = {theirs[rank]: ours[rank] for rank in theirs}
    return {names[path]: array for path, array in arrays.items()}


def _ranked(paths: Shapes) -> dict[tuple, str]:
    """Returns path by its parts, where a layer's number gives way to its rank among its like."""
    numbers: dict[tuple, set[int]] = {}
    for path in paths:
        parts = _numbered(path)
        for i, (stem, number) in enumerate(parts):
            numbers.setdefault((parts[:i], stem), set()).add(number)
    ranks = {
        key: {number: rank for rank, number in enumerate(sorted(found))} for key, found in numbers.items()
    }
    ranked = {}
    for path in paths:
        parts = _numbered(path)
        key = tuple((stem, ranks[parts[:i], stem][number]) for i, (stem, number) in enumerate(parts))
        ranked[key] = path
    return ranked


def _numbered(path: str) -> tuple[tuple[str, int], ...]:
    """Returns (stem, number) for each layer of a path; `dense` comes before the numbers of its like."""
    *layers, variable = path.split("/")
    found = [re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", layer, re.DOTALL) for layer in layers]
    return (*((match[1], int(match[2] or -1)) for match in found), (variable, 0))


def _shape(shapes: Shapes, path: str) -> str:
    return f"shape {tuple(shapes[path])}" if path in shapes else "nothing"
