"""A study of initializers: LeNet-300-100 on handwritten digits, each with the reinit control.

Papers: the lottery ticket hypothesis, https://arxiv.org/abs/1803.03635, appendix G, which varies the
initializer too; Zhou et al., https://arxiv.org/abs/1905.01067, section 4, for the constant sign. Glorot's
rule gives this network's kernels standard deviations of 0.07 to 0.14.

    tf-lottery run --config=configs/initializers.py --workdir=runs/initializers
    tf-lottery run --config=configs/initializers.py --workdir=runs/initializers_fashion \
        --config.data.name=fashion_mnist --config.data.validation_size=5000 --config.train.steps=8000 \
        --config.prune.levels=11 --config.control_levels=7,9,11

Ten experiments of 31 networks, about a quarter of an hour on two CPU cores. One seed, at 7.3 % density:
after Glorot's (normal or uniform), He's, LeCun's and the orthogonal initializer the ticket is 0.5 to 1
point above the re-initialized network, and stops before 70 % of its steps. A narrow normal (0.01) makes
all networks worse, the ticket no more than the dense one; after a wide one (0.2) the ticket is more
accurate, but stops no earlier; after a very wide one (0.5) the re-initialized network is better than
ticket and dense network. With constant sign, tickets win down to a third of the weights, and at 7.3 %
are no better than the re-initialized network.
"""

from tf_lottery.experiments.config import ExperimentConfig

INITIALIZERS = {
    "glorot_normal": "glorot_normal",
    "glorot_uniform": "glorot_uniform",
    "he_normal": "he_normal",
    "lecun_normal": "lecun_normal",
    "orthogonal": "orthogonal",
    "normal_0.01": "random_normal:stddev=0.01",
    "normal_0.05": "random_normal:stddev=0.05",
    "normal_0.2": "random_normal:stddev=0.2",
    "normal_0.5": "random_normal:stddev=0.5",
    "signed_constant": "signed_constant",
}


def get_config() -> dict[str, ExperimentConfig]:
    """Returns the digits experiment with each initializer."""
    study = {name: ExperimentConfig() for name in INITIALIZERS}
    for name, config in study.items():
        config.network.initializer = INITIALIZERS[name]
    return study
