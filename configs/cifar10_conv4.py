"""Conv-4 on CIFAR-10: the protocol of `cifar10_conv2.py` with two convolutions of 128 filters more.

Paper: https://arxiv.org/abs/1803.03635, figure 2 and section 3. 2,425,024 kernel weights; Adam 3e-4,
25,000 steps.

    tf-lottery run --config=configs/cifar10_conv4.py --workdir=runs/cifar10_conv4

The paper: the lowest validation loss comes up to 3.5 times sooner (at 9.2 % density), test accuracy
there is up to 3.5 points higher (at 11.1 %), and above the dense network's down to 2 %; re-initialized
it is not.

41 networks of three or four hours each on two CPU cores: about six days.
"""

import pathlib
import runpy

from tf_lottery.experiments.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Returns the paper's protocol for Conv-4."""
    conv2 = runpy.run_path(str(pathlib.Path(__file__).with_name("cifar10_conv2.py")))
    config = conv2["get_config"]()
    config.network.name = "conv_4"
    config.train.learning_rate = 3e-4
    config.train.steps = 25_000
    return config
