"""x"""

from tf_lottery.experiments.config import (
    DataConfig,
    ExperimentConfig,
    NetworkConfig,
    PruneConfig,
    TrainConfig,
)


def get_config() -> ExperimentConfig:
    return ExperimentConfig(
        data=DataConfig(name="binary_patterns", input_scaling="standardize", validation_size=410),
        network=NetworkConfig(name="tanh:10,7,5,4,3", initializer="lecun_normal"),
        train=TrainConfig(
            optimizer="adam", learning_rate=1e-3, batch_size=512, steps=20_000, eval_every_steps=100
        ),
        prune=PruneConfig(levels=5),
        controls=("reinit", "random_ticket"),
    )
