"""ResNet-20 on CIFAR-10 with late rewinding: a network that has no winning tickets at initialization.

Paper: https://arxiv.org/abs/1912.05671, in the form of facebookresearch/open_lth (commit 2ce732f). SGD
0.1 with momentum 0.9, a tenth of that from epoch 80 and a hundredth from epoch 120 of 160 (of 391 steps
each), weight decay 1e-4, batches of 128, Kaiming normal, standardized inputs, random crops and flips.
20 % of the weights of all convolutions together are pruned per level, and what is left goes back to
step 500, from where on the paper finds pruned networks stable.

    tf-lottery run --config=configs/cifar10_resnet20.py --workdir=runs/cifar10_resnet20
    ... --config.prune.rewind_step=0           # to initialization, where tickets should fail

What differs from that code: the output layer is not pruned, as in 1803.03635; weight decay is of the
kernels only, and losses have its penalty in them; 5,000 validation images are held out; strided
convolutions pad as TensorFlow does; BatchNorm's scales start at 1. The network that 1803.03635 calls
Resnet-18 is this one, in 30,000 steps, its shortcuts unpruned; it wins from initialization if it is
warmed up:

    ... --config.prune.rewind_step=0 --config.train.steps=30000 --config.train.learning_rate=0.03 \
        --config.train.warmup_steps=20000 --config.train.decay_steps=20000,25000

The papers: rewound to step 500, tickets keep the dense network's accuracy (within 0.2 points) down to
13.4 % density; re-initialized, or rewound to 0, only as far as a random mask does, 80 %. With warm-up,
11.8 %.

25 networks of ten to twenty hours each on two CPU cores: two weeks.
"""

from tf_lottery.experiments.config import (
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PruneConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    """Returns OpenLTH's training of ResNet-20, with late rewinding."""
    return ExperimentConfig(
        data=DataConfig(name="cifar10", input_scaling="standardize", validation_size=5000),
        network=NetworkConfig(
            name="resnet_20",
            initializer="variance_scaling:scale=2.0,mode=fan_in,distribution=untruncated_normal",
        ),
        train=TrainConfig(
            optimizer="sgd",
            learning_rate=0.1,
            momentum=0.9,
            decay_steps=(31_280, 46_920),
            weight_decay=1e-4,
            augment="crop_flip",
            batch_size=128,
            steps=62_560,
            eval_every_steps=391,
            test_curves=False,
        ),
        prune=PruneConfig(levels=12, fraction=0.2, output_fraction=0.0, scope="global", rewind_step=500),
        controls=("reinit",),
    )
