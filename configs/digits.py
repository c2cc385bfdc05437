"""LeNet-300-100 on scikit-learn's handwritten digits: the default experiment.

Paper: the lottery ticket hypothesis, https://arxiv.org/abs/1803.03635, in small.

    tf-lottery run --config=configs/digits.py --workdir=runs/digits

Sixteen levels with the reinit control, about a minute on two CPU cores. Between 33 %
and 9 % density the ticket's early stop comes before that of the re-initialized network,
and its test accuracy is higher.
"""

from tf_lottery.experiments.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Returns the default experiment."""
    return ExperimentConfig()
