"""Conv-6 on CIFAR-10: the protocol of `cifar10_conv4.py` with two convolutions of 256 filters more.

Paper: https://arxiv.org/abs/1803.03635, figure 2 and section 3. 2,261,184 kernel weights (the paper
prints 1.7 million, which the network that it describes does not have); Adam 3e-4, 30,000 steps, 15 % of
a convolution per level.

    tf-lottery run --config=configs/cifar10_conv6.py --workdir=runs/cifar10_conv6

The paper: the lowest validation loss comes up to 2.5 times sooner (at 15.1 % density), test accuracy
there is up to 3.3 points higher (at 26.4 %), and above the dense network's down to 2 %; re-initialized
it is not.

41 networks of ten hours or more each on two CPU cores: more than two weeks.
"""

import pathlib
import runpy

from tf_lottery.experiments.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Returns the paper's protocol for Conv-6."""
    conv4 = runpy.run_path(str(pathlib.Path(__file__).with_name("cifar10_conv4.py")))
    config = conv4["get_config"]()
    config.network.name = "conv_6"
    config.train.steps = 30_000
    config.prune.conv_fraction = 0.15
    return config
