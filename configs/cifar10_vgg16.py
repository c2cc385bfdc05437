"""VGG-16 on CIFAR-10 with late rewinding: `cifar10_resnet20.py` with 14.7 million weights.

Paper: https://arxiv.org/abs/1912.05671, in the form of facebookresearch/open_lth (commit 2ce732f),
whose VGG has its output layer left unpruned too. The paper finds pruned networks stable from step 1,000
on.

    tf-lottery run --config=configs/cifar10_vgg16.py --workdir=runs/cifar10_vgg16
    ... --config.prune.rewind_step=0           # to initialization, where tickets should fail

The paper: rewound to step 1,000, tickets keep the dense network's accuracy (within 0.2 points) down to
1.2 % density; re-initialized, or rewound to 0, only as far as a random mask does, 16.8 %.

41 networks. A step takes five seconds and more on two CPU cores, so each network takes days and all of
them most of a year: this one is for a GPU.
"""

import pathlib
import runpy

from tf_lottery.experiments.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Returns OpenLTH's training of VGG-16, with late rewinding."""
    resnet20 = runpy.run_path(str(pathlib.Path(__file__).with_name("cifar10_resnet20.py")))
    config = resnet20["get_config"]()
    config.network.name = "vgg_16"
    config.prune.levels = 20
    config.prune.rewind_step = 1000
    return config
