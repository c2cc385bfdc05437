"""LeNet-300-100 on MNIST as facebookresearch/open_lth has it by default: SGD, pruned in all layers
together.

Paper: https://arxiv.org/abs/1803.03635; code: the first author's later framework (commit 2ce732f).

    tf-lottery run --config=configs/mnist_lenet_openlth.py --workdir=runs/mnist_openlth

What differs from the paper's protocol (`mnist_lenet.py`): SGD 0.1 without momentum, batches of 128,
18,760 steps (40 epochs of 60,000 images), standardized inputs, Kaiming normal (not truncated), and 20 %
of all weights together per level, of which the output layer has none. What differs from that code: it
holds no validation images out, and we 5,000, for early stopping goes by them; its biases start at small
random values, and ours at 0; it counts the output layer's 1,000 weights in the 20 %.

41 networks, about 25 minutes on two CPU cores. No numbers of that code are published. The densities are
0.8^k of 265,200 weights, and the 1,000 of the output layer.
"""

from tf_lottery.experiments.config import (
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PruneConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    """Returns OpenLTH's default for LeNet."""
    return ExperimentConfig(
        data=DataConfig(name="mnist", input_scaling="standardize", validation_size=5000),
        network=NetworkConfig(
            name="lenet_300_100",
            initializer="variance_scaling:scale=2.0,mode=fan_in,distribution=untruncated_normal",
        ),
        train=TrainConfig(
            optimizer="sgd", learning_rate=0.1, batch_size=128, steps=18_760, eval_every_steps=100
        ),
        prune=PruneConfig(levels=20, fraction=0.2, output_fraction=0.0, scope="global"),
        controls=("reinit",),
    )
