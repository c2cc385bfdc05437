"""Rewinding: what the weights left are reset to between two trainings, as three choices (2003.02389)."""

import dataclasses

from tf_lottery import names

FINAL = -1  # the end of a training, where a step is asked for


@dataclasses.dataclass(frozen=True)
class Rewinding:
    """Which weights are restored, where training restarts, and which weights are scored.

    Each is a step, or `FINAL` for the end of training.

    Attributes:
        restore: the dense network's step whose state is restored, the optimizer's moments
            too; `FINAL`: the state in which the network that was pruned ended.
        restart: the step that training, and with it the learning-rate schedule, goes on from.
        score: the step of a ticket's training whose weights are scored.
        steps: after a restart at `FINAL`, how many steps are trained.

    Raises:
        ValueError: a step is below `FINAL`, scores are to be read before training restarts,
            or a restart at the end does not say for how long.

    Example:
        >>> late = Rewinding(restore=500, restart=500)
        >>> learning_rate = Rewinding(restore=FINAL, restart=500)
    """

    restore: int = 0
    restart: int = 0
    score: int = FINAL
    steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("restore", "restart", "score"):
            if getattr(self, name) < FINAL:
                raise ValueError(
                    f"{name} must be a step, or {FINAL} for the end of training. "
                    f"Received {getattr(self, name)}."
                )
        if self.restart == FINAL and (self.steps or 0) < 1:
            raise ValueError(
                "A restart at the end of training says for how many steps, 1 or more. "
                f"Received steps={self.steps}."
            )
        if self.restart != FINAL and self.steps is not None:
            raise ValueError("steps goes with a restart at the end of training: leave it out.")
        if self.score != FINAL and (self.restart == FINAL or self.score <= self.restart):
            raise ValueError(
                f"Weights are scored at step {self.score}, before training restarts at "
                f"{'its end' if self.restart == FINAL else f'step {self.restart}'}: "
                "pass a later score_step."
            )


def original(step: int, steps: int) -> Rewinding:
    """Back to initialization (1803.03635)."""
    return Rewinding()


def late(step: int, steps: int) -> Rewinding:
    """Back to an early step, weights and schedule (1912.05671)."""
    return Rewinding(restore=step, restart=step)


def learning_rate(step: int, steps: int) -> Rewinding:
    """Trained weights stay; the schedule goes back to a step (2003.02389)."""
    return Rewinding(restore=FINAL, restart=step)


def fine_tuning(step: int, steps: int) -> Rewinding:
    """Trained weights stay, and so does the schedule, at its end (2003.02389).

    Training goes on for as many steps as lie between the rewind step and the end.
    """
    return Rewinding(restore=FINAL, restart=FINAL, steps=steps - step)


REWINDINGS = {
    "original": original,
    "late": late,
    "learning_rate": learning_rate,
    "fine_tuning": fine_tuning,
}


def resolve(
    rewinding: str | Rewinding | None, rewind_step: int, steps: int, score_step: int = FINAL
) -> Rewinding:
    """Returns the rewinding of that name to `rewind_step`, in trainings of `steps` steps.

    Args:
        rewinding: a name in `REWINDINGS`; None or `""` is `"late"`, which to step 0 is the
            original; or a `Rewinding`, which says all itself.
        rewind_step: the step to go back to, in [0, steps).
        steps: the length of a training.
        score_step: the step whose weights are scored; `FINAL` for the end.

    Raises:
        ValueError: an unknown name, a step out of range, or a name that the steps belie.
    """
    if isinstance(rewinding, Rewinding):
        if rewind_step or score_step != FINAL:
            raise ValueError("A Rewinding says its steps itself: leave rewind_step and score_step out.")
        _check_step("restore", rewinding.restore, FINAL, steps)
        _check_step("restart", rewinding.restart, FINAL, steps)
        _check_step("score", rewinding.score, FINAL, steps)
        return rewinding
    _check_step("rewind_step", rewind_step, 0, steps)
    _check_step("score_step", score_step, FINAL, steps)
    found = names.find(rewinding or "late", REWINDINGS, "rewinding")
    if found is original and rewind_step:
        raise ValueError(
            f"rewinding='original' goes back to step 0. Received rewind_step={rewind_step}: "
            "pass rewinding='late'."
        )
    if rewinding == "late" and not rewind_step:
        raise ValueError("rewinding='late' needs a rewind_step above 0; step 0 is rewinding='original'.")
    return dataclasses.replace(found(rewind_step, steps), score=score_step)


def _check_step(name: str, step: int, low: int, steps: int) -> None:
    if not low <= step < steps:
        or_final = f", or {FINAL} for the end" if low == FINAL else ""
        raise ValueError(f"{name} must be in [0, {steps}), the training's steps{or_final}. Received {step}.")
