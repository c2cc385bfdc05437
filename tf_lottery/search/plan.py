"""What is done between two trainings."""

import dataclasses
from collections.abc import Callable, Container, Mapping
from typing import Any

from tf_lottery.tickets import pruning, scores
from tf_lottery.tickets import structure as structures
from tf_lottery.tickets.controls import Control
from tf_lottery.tickets.masks import SEARCH, TICKET, Arrays, Mask
from tf_lottery.tickets.rewinding import FINAL, Rewinding
from tf_lottery.tickets.scores import Criterion
from tf_lottery.tickets.structure import NOfM


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is done between two trainings.

    Attributes:
        levels: how often the network is pruned; `levels + 1` tickets are trained.
        fractions: path -> share of the layer's remaining weights to prune per level.
        scope: a name in `pruning.SCOPES`: which weights compete.
        structure: what is pruned as one: `"unstructured"`, `"units"`, `"block:4x1"`, `"2:4"`.
        criterion: scores the weights; the lowest are pruned.
        schedule: a name in `schedules.SCHEDULES`: what a level's mask is made from.
        rewinding: what the survivors are reset to.
        controls: name -> control, trained beside the ticket.
        control_levels: the levels at which they are; None for all but level 0,
            where nothing is pruned yet.
        key: what everything drawn at random depends on, such as seed and replicate.
        epoch: steps in a pass over the training data, for schedules that count passes.
    """

    levels: int
    fractions: Mapping[str, float]
    scope: str = "layer"
    structure: str = "unstructured"
    criterion: Criterion = scores.magnitude
    schedule: str = "iterative"
    rewinding: Rewinding = Rewinding()
    controls: Mapping[str, Control] = dataclasses.field(default_factory=dict)
    control_levels: Container[int] | None = None
    key: tuple[int | str, ...] = (0,)
    epoch: int = 1

    def __post_init__(self) -> None:
        if self.levels < 0:
            raise ValueError(f"levels must be 0 or more. Received {self.levels}.")

    @property
    def arms(self) -> tuple[str, ...]:
        """All that is trained: the ticket, its controls, and what is trained to find a mask."""
        return (TICKET, *self.controls, *([SEARCH] if self.schedule == "early_bird" else []))

    @property
    def hyperparameters(self) -> dict[str, str | int]:
        """What TensorBoard tells apart searches by."""
        return {"criterion": self.criterion.__name__, "seed": self.key[0]}

    @property
    def method(self) -> str:
        """How a ticket of this plan is found, in a few words."""
        structure = "" if self.structure == "unstructured" else f", structure {self.structure}"
        schedule = self.schedule.replace("_", "-")
        kept = "" if self.rewinding.restore != FINAL else ", trained weights kept"
        return f"{schedule} pruning by {self.criterion.__name__}, scope {self.scope}{structure}{kept}"

    @property
    def settings(self) -> dict[str, Any]:
        """What determines the tickets, as JSON can hold it."""
        return {
            "levels": self.levels,
            "fractions": dict(self.fractions),
            "scope": self.scope,
            "structure": self.structure,
            "criterion": self.criterion.__name__,
            "schedule": self.schedule,
            "rewinding": dataclasses.asdict(self.rewinding),
            "controls": list(self.controls),
            "key": list(self.key),
        }

    def has_controls(self, level: int) -> bool:
        """Whether the controls are trained at that level."""
        return level > 0 if self.control_levels is None else level in self.control_levels

    def check(self, mask: Mask) -> None:
        """Refuses what would fail in the middle of a search, before anything is trained.

        Raises:
            ValueError: a structure that cannot be had, or not so often; or an early-bird search
                of what does not change in training.
        """
        if self.schedule == "early_bird":
            self._check_early_bird()
        kind = structures.resolve(self.structure)
        if isinstance(kind, NOfM):
            kind.check_scope(self.scope)
            pruned = {path: array.shape for path, array in mask.items() if self.fractions[path] > 0}
            most = kind.levels(pruned)
            if self.levels > most:
                raise ValueError(
                    f"structure {self.structure!r} has {most} levels, each of one weight less in every "
                    f"{kind.m}: pass levels={most}. Received {self.levels}."
                )

    def _check_early_bird(self) -> None:
        if not scores.needs(self.criterion).training:
            raise ValueError(
                f"schedule='early_bird' waits for trained weights to settle, and criterion "
                f"{self.criterion.__name__!r} does not look at them: pass schedule='one_shot'."
            )
        if self.epoch < 1:
            raise ValueError("schedule='early_bird' looks once an epoch, and an endless data set has none.")
        if self.rewinding.score != FINAL:
            raise ValueError("schedule='early_bird' finds the step to score at itself: leave score_step out.")

    def snapshots(self, level: int) -> frozenset[int]:
        """Returns the steps at which the ticket of that level is copied whole."""
        wanted = {self.rewinding.score} - {FINAL}
        if level == 0 or self.rewinding.restore == FINAL:
            wanted.add(self.rewinding.restore)
        return frozenset(wanted)

    def prune(self, mask: Mask, score: Callable[[Mask], Arrays], rounds: int = 1) -> Mask:
        """Returns the mask of the next level; `score` is asked anew in each round."""
        return pruning.prune_in_rounds(mask, score, self.fractions, self.scope, self.structure, rounds)
