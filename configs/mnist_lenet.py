"""LeNet-300-100 on MNIST: the protocol of the lottery ticket hypothesis, whole.

Paper: https://arxiv.org/abs/1803.03635, figure 2 and appendix G. Adam 1.2e-3, batches of 60,
50,000 steps, Glorot normal, 5,000 validation images held out at random, inputs in [0, 1]
(the paper does not state the scaling; published re-runs divide by 255), evaluation every 100
steps, 20 % pruned per level and 10 % of the output layer, layer by layer. Early stop is the
lowest validation loss, and test accuracy is read there.

    tf-lottery run --config=configs/mnist_lenet.py --workdir=runs/mnist
    tf-lottery run --config=configs/mnist_lenet.py --workdir=runs/mnist \
        --config.data.name=idx:DIR                # from a folder with the four IDX files

41 networks, about an hour on two CPU cores. Dense: 98.0 % at early stop; tickets peak near
98.3 % at 21 % density and are back at the dense network's accuracy at 3.6 %; re-initialized,
97.9 % at 21 % and 97.1 % at 3.6 %, at two to four times the early-stop step.

A fast form, five minutes for a seed:

    ... --config.train.steps=12000 --config.train.control_steps=20000 --config.prune.levels=11 \
        --config.control_levels=7,9,11
"""

from tf_lottery.experiments.config import (
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PruneConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    """Returns the paper's protocol."""
    return ExperimentConfig(
        data=DataConfig(name="mnist", input_scaling="unit", validation_size=5000),
        network=NetworkConfig(name="lenet_300_100", initializer="glorot_normal"),
        train=TrainConfig(
            optimizer="adam", learning_rate=1.2e-3, batch_size=60, steps=50_000, eval_every_steps=100
        ),
        prune=PruneConfig(levels=20, fraction=0.2, output_fraction=0.1, scope="layer", criterion="magnitude"),
        controls=("reinit",),
    )
