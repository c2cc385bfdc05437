"""Is it the same ticket each time? LeNet-300-100 (1803.03635) on handwritten digits.

    other_init   three replicates, each with its own initial weights and data order
    same_init    three replicates from the same initial weights, with a data order of their own

How much of their masks the tickets have in common, layer by layer, beside what independent masks have,
with hidden units as they are and matched:

    tf-lottery run --config=configs/same_ticket.py --workdir=runs/same_ticket
    tf-lottery overlap runs/same_ticket

Two experiments of 48 networks, about four minutes on two CPU cores. It is another ticket for other initial
weights. Of 3.9 % of the weights, two tickets have 3.3 % in common (chance: 2.7 %), and with hidden units
matched 28 %, where noise has 24 %. What is above chance is in the first layer, where 3.4 % are common and
1.8 % by chance: some pixels are worth more than others to all. From the same initial weights it is in part
the same ticket: 85 % at half of the weights (chance: 35 %), 73 % at a fifth (12 %), 43 % at 3.9 %.
"""

from tf_lottery.experiments.config import ExperimentConfig


def get_config() -> dict[str, ExperimentConfig]:
    """Returns the digits experiment without controls, with either kind of replicates."""
    return {
        "other_init": ExperimentConfig(replicates=3, controls=()),
        "same_init": ExperimentConfig(replicates=3, controls=(), same_init=True),
    }
