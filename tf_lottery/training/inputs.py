"""From what a user has at hand to what the loop takes."""

import math
from collections.abc import Mapping
from typing import Any

from tf_lottery.training import data
from tf_lottery.training.data import Examples
from tf_lottery.training.streams import Stream

Source = Examples | Stream


def gather(
    x: Any,
    y: Any = None,
    *,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | None = None,
    validation_data: Any = None,
    validation_split: float = 0.1,
    test_data: Any = None,
    seed: int = 0,
) -> dict[str, Source]:
    """Returns `"training"`, `"validation"` and, where there are any, `"test"` data.

    Args:
        x: an array, a tensor, or a dict, list or tuple of them; or a batched data set, which
            has y and sample weights in it.
        y: labels of the same kinds, or None.
        sample_weight: weights of the examples in the loss, or None.
        class_weight: class -> weight of its examples in the loss, or None.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a data set. None holds
            `validation_split` of the training examples out at random.
        validation_split: in (0, 1).
        test_data: as `validation_data`, or None.
        seed: what is held out depends on it.

    Raises:
        TypeError: neither arrays nor a data set.
        ValueError: parts do not fit together, or a data set has no end, or is to be split.
    """
    train = training_data(x, y, sample_weight, class_weight)
    if validation_data is not None:
        validation = _evaluation_data("validation", validation_data)
    elif isinstance(train, Stream):
        raise ValueError("A data set is not split: give validation_data, (x, y) or another data set.")
    else:
        train, validation = data.split(train, validation_split, seed)
    # Class weights are for training alone; a stream has them in it.
    if class_weight is not None and not isinstance(train, Stream):
        train = data.weigh_classes(train, class_weight)
    sources = {"training": train, "validation": validation}
    return sources if test_data is None else {**sources, "test": _evaluation_data("test", test_data)}


def training_data(
    x: Any, y: Any = None, sample_weight: Any = None, class_weight: Mapping[int, float] | None = None
) -> Source:
    """Returns the training data of `gather`, before anything is held out of them."""
    if Stream.takes(x):
        for name, value in {"y": y, "sample_weight": sample_weight}.items():
            if value is not None:
                raise ValueError(
                    f"The training data set gives {name} itself: leave {name} out, or give arrays."
                )
        return Stream("training", x, class_weight)
    _refuse_iterators("training", x)
    return data.as_examples("training", x, y, sample_weight)


def check_fits(model: Any, sources: Mapping[str, Source]) -> None:
    """Refuses data that the model cannot take, of a data set the first batch; name -> source.

    Raises:
        TypeError: a data set holds something else than dense arrays of numbers.
        ValueError: says what the model takes and what it was given.
    """
    for what, source in sources.items():
        data.check_fits(model, source.first if isinstance(source, Stream) else source, what)


def steps_per_epoch(train: Source, batch_size: int, limit: int | None = None) -> float:
    """Returns how many steps one pass over the training data takes; infinity where it has no end.

    Where batches have to be counted one by one, it stops at `limit`.
    """
    if isinstance(train, Stream):
        count = train.count(limit)
        return math.inf if count is None else count
    return data.count(train) / max(batch_size, 1)


def digest(source: Source) -> str:
    """Returns what tells one source from another."""
    return source.describe() if isinstance(source, Stream) else data.digest(source)


def _evaluation_data(what: str, given: Any) -> Source:
    if Stream.takes(given):
        stream = Stream(what, given)
        if stream.endless:
            raise ValueError(f"The {what} data set never ends. Give it an end: dataset.take(batches).")
        return stream
    _refuse_iterators(what, given)
    if not isinstance(given, (tuple, list)) or not 1 <= len(given) <= 3:
        raise TypeError(
            f"{what}_data must be (x, y), (x, y, sample_weight) or a data set. "
            f"Received: {type(given).__name__}."
        )
    return data.as_examples(what, *given)


def _refuse_iterators(what: str, x: Any) -> None:
    if hasattr(x, "__next__"):
        raise TypeError(
            f"The {what} data are a {type(x).__name__}, which can be read once, and every network "
            "starts from the first batch: give arrays, a tf.data.Dataset or a PyDataset."
        )
