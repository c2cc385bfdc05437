"""Criteria: functions that score every weight. The lowest scores are pruned.

A criterion takes one `Evidence` and returns path -> array of scores, one for each
weight. To add one, write such a function and pass it, or name it in `CRITERIA`.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tf_lottery import names
from tf_lottery.tickets.masks import Arrays, Mask

Scores = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        mask: the weights that are left; scores of the others are not used.
        initial: path -> the weights that training started from.
        final: path -> the weights that training ended with.
        rng: a generator of its own for criteria that draw.
    """

    mask: Mask
    initial: Arrays
    final: Arrays
    rng: np.random.Generator


Criterion = Callable[[Evidence], Scores]


def magnitude(evidence: Evidence) -> Scores:
    """|w_final|: weights that end small are pruned (1803.03635)."""
    return {path: np.abs(evidence.final[path]) for path in evidence.mask}


def random(evidence: Evidence) -> Scores:
    """Uniform draws: prunes at random, the baseline of every other criterion."""
    return {path: evidence.rng.random(mask.shape) for path, mask in evidence.mask.items()}


CRITERIA: Mapping[str, Criterion] = {"magnitude": magnitude, "random": random}


def resolve(criterion: str | Criterion) -> Criterion:
    """Returns the criterion of that name; a function is returned as it is.

    Raises:
        TypeError: a callable that has no name.
        ValueError: there is no criterion of that name.
    """
    if not callable(criterion):
        return names.find(criterion, CRITERIA, "criterion")
    names.name_of(criterion, "criterion")
    return criterion
