"""Is it the same ticket each time? LeNet-300-100 (1803.03635) on handwritten digits.

    other_init   three replicates, each with its own initial weights and data order
    same_init    three replicates from the same initial weights, with a data order of their own

How much of their masks the tickets have in common, layer by layer, beside what independent masks have,
with hidden units as they are and matched:

    tf-lottery run --config=configs/same_ticket.py --workdir=runs/same_ticket
    tf-lottery overlap runs/same_ticket
"""

from tf_lottery.experiments.config import ExperimentConfig


def get_config() -> dict[str, ExperimentConfig]:
    """Returns the digits experiment without controls, with either kind of replicates."""
    return {
        "other_init": ExperimentConfig(replicates=3, controls=()),
        "same_init": ExperimentConfig(replicates=3, controls=(), same_init=True),
    }
