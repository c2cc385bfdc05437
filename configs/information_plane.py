"""The network of the information plane, 12-10-7-5-4-3-2 tanh units, and its lottery tickets.

Papers: Shwartz-Ziv and Tishby, https://arxiv.org/abs/1703.00810, with the critique of Saxe et al. (ICLR
2018); the lottery ticket hypothesis, https://arxiv.org/abs/1803.03635. The data are all 4,096 patterns of
twelve points on a sphere, in two classes by a rule that no rotation changes and that leaves 0.01 bits to
chance: a rule of the authors' kind, but not theirs (`experiments/binary_patterns.py`). As with them 80 % of
the patterns are there to train with, in batches of 512; an eighth of these is held out to stop by. They take
8,000 epochs at a learning rate of 4e-4; these are 20,000 steps of Adam at 1e-3, some 3,600 epochs.

    tf-lottery run --config=configs/information_plane.py --workdir=runs/information_plane
    tf-lottery infoplane runs/information_plane --levels=0,4

16 networks, about three minutes on two CPU cores, and a minute for the plane. One seed: the dense network has
99.2 % at step 1300. With 42 % of the weights, 111, the ticket has 98.7 % at step 5100, re-initialized it has
98.5 % at step 18400, and a random ticket comes to 91.1 %. On the plane all but the random ticket end with
I(T;Y) near 1 bit in every layer, by binning. The last hidden layer's I(X;T) ends below its highest by 8.4
bits in the dense network, by 4.0 in the ticket, by 2.0 re-initialized; in the random ticket at its highest.
Binning saturates in the first two layers of all four, and in the dense network's third.
"""

from tf_lottery.experiments.config import (
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PruneConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    """Returns the experiment."""
    return ExperimentConfig(
        data=DataConfig(name="binary_patterns", input_scaling="standardize", validation_size=410),
        network=NetworkConfig(name="tanh:10,7,5,4,3", initializer="lecun_normal"),
        train=TrainConfig(
            optimizer="adam", learning_rate=1e-3, batch_size=512, steps=20_000, eval_every_steps=100
        ),
        prune=PruneConfig(levels=5),
        controls=("reinit", "random_ticket"),
    )
