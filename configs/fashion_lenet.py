"""LeNet-300-100 on Fashion-MNIST: the protocol of `mnist_lenet.py` on other images.

No table of iterative pruning on this network and data is published; the README has ours.

    tf-lottery run --config=configs/fashion_lenet.py --workdir=runs/fashion
    tf-lottery run --config=configs/fashion_lenet.py --workdir=runs/fashion \
        --config.data.name=idx:/usr/share/datasets/fashion-mnist   # Debian: dataset-fashion-mnist

41 networks, about an hour on two CPU cores; the fast form of `mnist_lenet.py` takes five
minutes for a seed.
"""

import pathlib
import runpy

from tf_lottery.experiments.config import ExperimentConfig


def get_config() -> ExperimentConfig:
    """Returns the paper's MNIST protocol with Fashion-MNIST in MNIST's place."""
    mnist = runpy.run_path(str(pathlib.Path(__file__).with_name("mnist_lenet.py")))
    config = mnist["get_config"]()
    config.data.name = "fashion_mnist"
    return config
