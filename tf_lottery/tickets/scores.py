"""Criteria: functions that score every weight. The lowest scores are pruned.

A criterion takes one `Evidence` and returns path -> array of scores, one for each
weight. To add one, write such a function and pass it, or name it in `CRITERIA`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np

from tf_lottery import names
from tf_lottery.tickets.masks import Arrays, Mask

Scores = dict[str, np.ndarray]


class Network(Protocol):
    """Computes on the network, with weights and a mask put into it, and leaves it as it was.

    `weights` are path -> array of every variable of the network's own; what is returned is
    path -> array of the kernels alone. Examples are drawn from the training data.

    Attributes:
        steps: how many training steps it takes to learn gates.
    """

    steps: int

    def gradient(self, weights: Arrays, mask: Mask, examples: int) -> Arrays:
        """Returns the gradient of the mean loss over so many examples."""

    def squared_gradient(self, weights: Arrays, mask: Mask, examples: int) -> Arrays:
        """Returns the mean of the squared gradients of so many examples' losses, one by one."""

    def hessian_gradient(self, weights: Arrays, mask: Mask, examples: int) -> Arrays:
        """Returns the Hessian of the mean loss times its gradient."""

    def flow(self, weights: Arrays, mask: Mask) -> Arrays:
        """Returns the gradient of the network's flow; it needs no examples."""

    def supermask(self, weights: Arrays, mask: Mask) -> Arrays:
        """Returns logits of gates, learned on weights that are held still."""

    def l0(self, weights: Arrays, mask: Mask) -> Arrays:
        """Returns logits of gates, learned while the weights are trained too."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What a criterion may look at.

    Attributes:
        mask: the weights that are left; scores of the others are not used.
        initial: path -> array, every variable of the network at initialization.
        final: path -> array, the same where training ended, or at the step that is scored.
        rng: a generator of its own for criteria that draw.
        network: computes gradients; None where there is only arrays to look at.
    """

    mask: Mask
    initial: Arrays
    final: Arrays
    rng: np.random.Generator
    network: Network | None = None


Criterion = Callable[[Evidence], Scores]


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a criterion needs of a search.

    Attributes:
        training: whether it looks at trained weights; on one that does not no training is spent.
        data: whether it looks at training data.
        learning: whether it learns gates, which takes as long as a training.
        rounds: in how many rounds a ticket is pruned by it, scored anew in each.
    """

    training: bool = True
    data: bool = False
    learning: bool = False
    rounds: int = 1


def needing(**what: bool | int) -> Callable[[Criterion], Criterion]:
    """Marks a criterion that needs something else than trained weights; see `Needs`."""

    def mark(criterion: Criterion) -> Criterion:
        criterion.needs = Needs(**what)
        return criterion

    return mark


def needs(criterion: Criterion) -> Needs:
    """Returns what the criterion needs: unless it is marked, trained weights and one round."""
    return getattr(criterion, "needs", Needs())


def magnitude(evidence: Evidence) -> Scores:
    """|w_final|: weights that end small are pruned (1803.03635); "large final" in 1905.01067."""
    return {path: np.abs(evidence.final[path]) for path in evidence.mask}


def small_final(evidence: Evidence) -> Scores:
    """-|w_final|: weights that end large are pruned, which destroys the network (1905.01067)."""
    return {path: -scores for path, scores in magnitude(evidence).items()}


@needing(training=False)
def large_init(evidence: Evidence) -> Scores:
    """|w_initial|: magnitude pruning at initialization (1905.01067; 1803.03635, app. F.4)."""
    return {path: np.abs(evidence.initial[path]) for path in evidence.mask}


def movement(evidence: Evidence) -> Scores:
    """|w_final - w_initial|: weights that hardly moved are pruned (1905.01067)."""
    return {path: np.abs(evidence.final[path] - evidence.initial[path]) for path in evidence.mask}


def magnitude_increase(evidence: Evidence) -> Scores:
    """|w_final| - |w_initial|: weights that shrank are pruned (1905.01067)."""
    return {path: np.abs(evidence.final[path]) - np.abs(evidence.initial[path]) for path in evidence.mask}


def large_init_large_final(evidence: Evidence) -> Scores:
    """min(a |w_final|, |w_initial|): weights are kept that start and end large (1905.01067).

    The paper's factor a puts both on one scale. Here that is their rank among the weights
    left in the layer, as a share of them: what is kept is large by either measure.
    """
    scores = {}
    for path, left in evidence.mask.items():
        ranks = [_ranks(np.abs(weights[path]), left) for weights in (evidence.initial, evidence.final)]
        scores[path] = np.minimum(*ranks)
    return scores


def magnitude_same_sign(evidence: Evidence) -> Scores:
    """max(0, sign(w_initial) w_final): weights that changed sign go first (1905.01067)."""
    return {
        path: np.maximum(0, np.sign(evidence.initial[path]) * evidence.final[path]) for path in evidence.mask
    }


def magnitude_increase_same_sign(evidence: Evidence) -> Scores:
    """|w_final| - |w_initial| where the sign is the same; weights that changed it go first (1905.01067)."""
    scores = magnitude_increase(evidence)
    lowest = min(array.min() for array in scores.values())
    return {
        path: np.where(evidence.initial[path] * evidence.final[path] > 0, array, lowest)
        for path, array in scores.items()
    }


@needing(training=False)
def random(evidence: Evidence) -> Scores:
    """Uniform draws: prunes at random, the baseline of every other criterion."""
    return {path: evidence.rng.random(mask.shape) for path, mask in evidence.mask.items()}


@needing(training=False, data=True)
def snip(evidence: Evidence) -> Scores:
    """|w dL/dw| at initialization: by how much the loss hangs on each weight (SNIP, 1810.02340)."""
    gradient = evidence.network.gradient(evidence.initial, evidence.mask, examples=100)
    return {path: np.abs(evidence.initial[path] * gradient[path]) for path in evidence.mask}


@needing(training=False, data=True)
def grasp(evidence: Evidence) -> Scores:
    """w (H g) at initialization: keeps what the flow of gradients needs (GraSP, 2002.07376).

    The paper prunes the highest -w (H g), those without which the gradients' norm is largest.
    Its authors' code divides the logits by 200 first, which is not done here.
    """
    product = evidence.network.hessian_gradient(evidence.initial, evidence.mask, examples=100)
    return {path: evidence.initial[path] * product[path] for path in evidence.mask}


@needing(training=False, rounds=100)
def synflow(evidence: Evidence) -> Scores:
    """|w dR/dw|, where R is what flows through the network of |w| (SynFlow, 2006.05467).

    It needs neither data nor training, and its hundred rounds keep every layer connected;
    schedule `"one_shot"` has only one.
    """
    flow = evidence.network.flow(evidence.initial, evidence.mask)
    return {path: np.abs(evidence.initial[path] * flow[path]) for path in evidence.mask}


@needing(data=True)
def fisher(evidence: Evidence) -> Scores:
    """w^2 E[g^2] / 2 of the trained network: the loss that pruning a weight adds (1801.05787).

    g is the gradient of one example's loss; the mean is over 1,000 training examples.
    """
    squared = evidence.network.squared_gradient(evidence.final, evidence.mask, examples=1000)
    return {path: evidence.final[path] ** 2 * squared[path] / 2 for path in evidence.mask}


@needing(training=False, data=True, learning=True)
def supermask(evidence: Evidence) -> Scores:
    """m of gates Bern(sigmoid(m)), learned on the initial weights held still (1905.01067).

    Scope `"threshold"` keeps m > 0: the mask that was learned.
    """
    return evidence.network.supermask(evidence.initial, evidence.mask)


@needing(training=False, data=True, learning=True)
def l0(evidence: Evidence) -> Scores:
    """log a of hard-concrete gates, learned with the weights under an L0 penalty (1712.01312).

    Scope `"threshold"` keeps the gates that are open: the mask that was learned.
    """
    return evidence.network.l0(evidence.initial, evidence.mask)


CRITERIA: Mapping[str, Criterion] = {
    criterion.__name__: criterion
    for criterion in (
        magnitude,
        magnitude_increase,
        magnitude_same_sign,
        magnitude_increase_same_sign,
        movement,
        large_init_large_final,
        large_init,
        small_final,
        random,
        snip,
        grasp,
        synflow,
        fisher,
        supermask,
        l0,
    )
}


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


def _ranks(values: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Returns for each value the share of the values left that are not above it; 0 for the others."""
    ordered = np.sort(values[left])
    ranks = np.searchsorted(ordered, values, side="right") / max(len(ordered), 1)
    return np.where(left, ranks, 0.0)
