"""LeNet-300-100 on MNIST, the protocol of the lottery ticket hypothesis (1803.03635, app. G)."""

from tf_lottery.experiments.config import (
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PruneConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        data=DataConfig(name="mnist", input_scaling="unit", validation_size=5000),
        network=NetworkConfig(name="lenet_300_100", initializer="glorot_normal"),
        train=TrainConfig(
            optimizer="adam", learning_rate=1.2e-3, batch_size=60, steps=50_000, eval_every_steps=100
        ),
        prune=PruneConfig(levels=20, fraction=0.2, output_fraction=0.1, scope="layer"),
        controls=("reinit",),
    )
