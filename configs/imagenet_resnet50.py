"""ResNet-50 on ImageNet with late rewinding: photographs that stream from disk.

Papers: https://arxiv.org/abs/1903.01611 and https://arxiv.org/abs/1912.05671, in the form of
facebookresearch/open_lth (its default for imagenet_resnet_50, 76.1 % there). SGD 0.4 with momentum 0.9 in
batches of 1,024, warm-up over 5 epochs, a tenth of the rate from each of epochs 30, 60 and 80 of 90, weight
decay 1e-4, Kaiming normal; 224 pixels, random parts of 8 to 100 % of an image and flips in training, the
centre in testing. 20 % of the weights of all convolutions together are pruned per level, and what is left
goes back to epoch 6, 7 % of the way. For another batch size, scale the learning rate with it, and the steps
against it.

    tf-lottery run --config=configs/imagenet_resnet50.py --workdir=runs/imagenet --config.data.data_dir=DIR
    ... --config.prune.rewind_step=0           # to initialization, where tickets should fail

DIR is where tensorflow_datasets has prepared its imagenet2012, from the archives that one downloads by hand.
Folders of images, train/CLASS/*.JPEG and val/CLASS/*.JPEG, do as well:

    tf-lottery import-data images:FOLDER --name=photos --data_dir=DIR
    ... --config.data.name=photos --config.data.data_dir=DIR

An epoch counts 1,251 steps. What differs from that code: labels are smoothed by 0.1, and the network computes
in float16 (--config.train.label_smoothing=0 and --config.train.precision=float32 are the papers'); OpenLTH's
parts have 10 to 100 % of the area; 10,000 training images are held out, and early stopping goes by them; the
output layer is not pruned; weight decay is of the kernels only, and losses have its penalty in them; strided
convolutions pad as TensorFlow does; BatchNorm's scales start at 1.

The papers: rewound to epochs 5 to 7, tickets keep the dense network's accuracy down to 20 to 30 % density;
rewound to 0, they do not.

10 networks of 115 million images each. A GPU that trains 2,500 images per second takes 13 hours for one, and
5 days for all; they have not been trained for this text. The host holds some 6 GiB.
"""

from tf_lottery.experiments.config import (
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PruneConfig,
    TrainConfig,
)

EPOCH = 1251


def get_config() -> ExperimentConfig:
    """Returns OpenLTH's training of ResNet-50, with late rewinding."""
    return ExperimentConfig(
        data=DataConfig(
            name="imagenet2012", image_size=224, input_scaling="imagenet", validation_size=10_000
        ),
        network=NetworkConfig(
            name="resnet_50",
            initializer="variance_scaling:scale=2.0,mode=fan_in,distribution=untruncated_normal",
        ),
        train=TrainConfig(
            optimizer="sgd",
            learning_rate=0.4,
            momentum=0.9,
            warmup_steps=5 * EPOCH,
            decay_steps=(30 * EPOCH, 60 * EPOCH, 80 * EPOCH),
            weight_decay=1e-4,
            label_smoothing=0.1,
            precision="mixed_float16",
            augment="random_resized_crop",
            batch_size=1024,
            steps=90 * EPOCH,
            eval_every_steps=EPOCH,
            test_curves=False,
        ),
        prune=PruneConfig(levels=7, fraction=0.2, output_fraction=0.0, scope="global", rewind_step=6 * EPOCH),
        controls=("reinit",),
        control_levels=(5, 7),
    )
