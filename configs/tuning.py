"""Which training and which pruning give the sparsest tickets? LeNet-300-100 on handwritten digits, tuned.

Papers: the lottery ticket hypothesis, https://arxiv.org/abs/1803.03635, whose appendix G goes through
learning rates by hand; late rewinding, https://arxiv.org/abs/1912.05671.

    tf-lottery tune --config=configs/tuning.py --workdir=runs/tuning --oracle=bayesian --trials=15
    tf-lottery run --config=configs/tuning.py --workdir=runs/untuned      # the same without a search

11 CPU minutes for 15 trials, each of which is a search of its own. In ours the best one matched the
dense network at 5.2 % of the weights on validation data, where untuned it took 52 %; on test data its
ticket had 96.6 % and its own dense network 97.3 %, so part of that is selection on 300 examples.
"""

from typing import TYPE_CHECKING

from tf_lottery.experiments.config import ExperimentConfig, TrainConfig
from tf_lottery.experiments.tuning import default_space

if TYPE_CHECKING:
    import keras_tuner


def get_config() -> ExperimentConfig:
    """Returns the digits experiment with two thirds of its steps."""
    return ExperimentConfig(train=TrainConfig(steps=1000))


def tune(config: ExperimentConfig, hp: "keras_tuner.HyperParameters") -> None:
    """Sets what is searched by default, and the batch size."""
    default_space(config, hp)
    config.train.batch_size = hp.Choice("train.batch_size", [30, 60, 120], default=60)
