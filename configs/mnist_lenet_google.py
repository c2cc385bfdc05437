"""LeNet-300-100 on MNIST as google-research/lottery-ticket-hypothesis has it: SGD in place of Adam.

Paper: https://arxiv.org/abs/1803.03635; code: the first author's release (commit 1f17279).

    tf-lottery run --config=configs/mnist_lenet_google.py --workdir=runs/mnist_google

What differs from the paper's protocol (`mnist_lenet.py`): gradient descent 0.1 without momentum,
batches of 64, and each image scaled to Euclidean norm 1. 50,000 steps, Glorot normal, and 20 %, 20 %
and 10 % layer by layer are the same. What differs from that code: it holds no validation images out,
and we 5,000, for early stopping goes by them; it prunes one weight more per layer and level; it goes on
to 30 levels (--config.prune.levels=30) and draws ten re-initialized networks for each ticket, where we
draw one (--config.controls=reinit,reinit_2,reinit_3 and so on).

41 networks, about an hour on two CPU cores. No numbers of that code are published; appendix G of the
paper, with other rates of SGD, has the same picture: tickets keep the dense network's accuracy while
nine in ten weights go, and re-initialized they do not.
"""

from tf_lottery.experiments.config import (
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PruneConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    """Returns the protocol of the first author's code."""
    return ExperimentConfig(
        data=DataConfig(name="mnist", input_scaling="l2", validation_size=5000),
        network=NetworkConfig(name="lenet_300_100", initializer="glorot_normal"),
        train=TrainConfig(
            optimizer="sgd", learning_rate=0.1, batch_size=64, steps=50_000, eval_every_steps=100
        ),
        prune=PruneConfig(levels=20, fraction=0.2, output_fraction=0.1, scope="layer", criterion="magnitude"),
        controls=("reinit",),
    )
