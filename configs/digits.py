"""LeNet-300-100 on scikit-learn's handwritten digits: the default experiment.

tf-lottery run --config=configs/digits.py --workdir=runs/digits
"""

from tf_lottery.experiments.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    return ExperimentConfig()
