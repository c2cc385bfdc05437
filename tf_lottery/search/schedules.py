"""Schedules: what the mask of the next level is made from.

A schedule takes the search and the ticket that was trained last, and returns what it has
`Found`, or None where a network that it trains to find a mask is given up. To add one, write
such a function and name it in `SCHEDULES`.
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tf_lottery.search.early_bird import StableMask
from tf_lottery.search.plan import Plan
from tf_lottery.tickets import scores, seeds
from tf_lottery.tickets.masks import SEARCH, Arrays, Mask
from tf_lottery.tickets.rewinding import FINAL
from tf_lottery.tickets.scores import Evidence, Network, Scores
from tf_lottery.training.arms import Start, Trained, Watch


class Found(NamedTuple):
    """A mask, and where it comes from.

    Attributes:
        mask: that of the next level.
        pruned: the network whose weights were scored.
        steps: how many training steps were spent to find the mask.
    """

    mask: Mask
    pruned: Trained
    steps: int


@dataclasses.dataclass(frozen=True)
class Search:
    """A search once its dense network is trained.

    Attributes:
        plan: levels, criterion and so on.
        train: trains one arm.
        dense: the network of level 0.
        network: what criteria may compute on.
    """

    plan: Plan
    train: Callable[[Start], Trained | None]
    dense: Trained
    network: Network | None = None

    def scores(self, trained: Trained, mask: Mask, weights: Arrays | None = None) -> Scores:
        """Returns the scores of a network, by its weights at the step that the plan scores."""
        rng = seeds.generator(*self.plan.key, "criterion", trained.start.level)
        if weights is None:
            weights = trained.weights_at(self.plan.rewinding.score)
        return self.plan.criterion(Evidence(mask, self.dense.start.state, weights, rng, self.network))

    @functools.cached_property
    def dense_scores(self) -> Scores:
        """The scores of the dense network."""
        return self.scores(self.dense, self.dense.start.mask)

    def steps_for_scores(self, trained: Trained) -> int:
        """Returns how many of a network's training steps its scores took."""
        needs = scores.needs(self.plan.criterion)
        if not needs.training:
            return self.network.steps if needs.learning else 0
        step = self.plan.rewinding.score
        return (trained.last_step if step == FINAL else step) - trained.start.step


Schedule = Callable[[Search, Trained], Found | None]


def iterative(search: Search, ticket: Trained) -> Found:
    """Prunes each ticket by its own weights: every level costs a training (1803.03635)."""
    rounds = scores.needs(search.plan.criterion).rounds
    mask = search.plan.prune(ticket.start.mask, lambda left: search.scores(ticket, left), rounds)
    return Found(mask, ticket, ticket.start.search_steps + search.steps_for_scores(ticket))


def one_shot(search: Search, ticket: Trained) -> Found:
    """Prunes every level by one scoring of the dense network: one training (1803.03635, sec. 2)."""
    mask = search.plan.prune(ticket.start.mask, lambda left: search.dense_scores)
    return Found(mask, search.dense, search.steps_for_scores(search.dense))


def early_bird(search: Search, ticket: Trained) -> Found | None:
    """Trains the dense network until its mask of the next level stays the same (1909.11957)."""
    plan, dense, level = search.plan, search.dense, ticket.start.level + 1

    def mask_of(weights: Arrays) -> Mask:
        found = search.scores(dense, dense.start.mask, weights)
        mask = dense.start.mask
        for _ in range(level):
            mask = plan.prune(mask, lambda left: found)
        return mask

    watch = Watch(plan.epoch, StableMask(mask_of))
    ends = plan.snapshots(level) & {FINAL}
    searched = search.train(
        dataclasses.replace(dense.start, level=level, arm=SEARCH, snapshots=ends, watch=watch)
    )
    if searched is None:
        return None
    if searched.last_step == dense.last_step:
        warnings.warn(
            f"The mask of level {level} did not stay the same in {dense.last_step} steps: the early-bird "
            "ticket is that of the last step. Train for more epochs.",
            stacklevel=2,
        )
    return Found(mask_of(searched.final), searched, searched.last_step - dense.start.step)


SCHEDULES: Mapping[str, Schedule] = {"iterative": iterative, "one_shot": one_shot, "early_bird": early_bird}
