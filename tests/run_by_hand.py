"""Run directories whose networks are written by hand, as the trainer writes them."""

import numpy as np

from tf_lottery.training import recorded
from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.history import History
from tf_lottery.training.runs import RunDirectory

STEPS = [0, 10, 20, 30]


def history(accuracy=0.9, *, steps=STEPS, **curves):
    """Curves of a network whose test accuracy is `accuracy` from the second evaluation on."""
    there = len(steps) - 1
    return History(
        list(steps),
        {
            "validation/loss": [2.0, *np.linspace(1.0, 0.5, there)],
            "validation/accuracy": [0.1] + [accuracy - 0.1] * there,
            "test/accuracy": [0.1] + [accuracy] * there,
            "train/accuracy": [np.nan] + [1.0] * there,
            **curves,
        },
    )


def trained(level, mask, start, end, *, arm="ticket", curves=None):
    """A network of that mask, with weights before and after training: dicts path -> array."""
    mask = {path: np.asarray(array, bool) for path, array in mask.items()}
    start, end = (
        {path: np.asarray(array, np.float32) for path, array in state.items()} for state in (start, end)
    )
    return Trained(Start(level, arm, mask, start), end, curves or history())


def write(folder, networks):
    """Writes (replicate, network) pairs; returns what the folder holds then."""
    run = RunDirectory(folder, {"by": "hand"}).open()
    for replicate, network in networks:
        run.replicate(replicate).save(network)
    return recorded.networks(folder)
