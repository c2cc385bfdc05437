"""A study of cheaper searches: nine ways to a mask, on LeNet-300-100 and handwritten digits.

    iterative       magnitude pruning, a whole training per level (1803.03635); the others are held against it
    short_training  the same, but each level is pruned by the weights at step 150
    one_shot        every level is pruned by the weights of the trained dense network
    early_bird      by those of the dense network once the mask stays the same (1909.11957)
    large_init      by the magnitude of initial weights, without training
    snip            by sensitivity of the loss at initialization (1810.02340)
    grasp           by what carries the gradients' flow at initialization (2002.07376)
    synflow         by synaptic flow, without data (2006.05467)
    random          by chance

Networks, data and training are the same in all; those after the fourth cost no training. As in their
papers, SNIP, GraSP and SynFlow let all layers compete. Figure `together.png` has accuracy against the
training steps that were spent to find the mask.

    tf-lottery run --config=configs/cheap_tickets.py --workdir=runs/cheap_tickets
    tf-lottery run --config=configs/cheap_tickets.py --workdir=runs/cheap_tickets_fashion \
        --config.data.name=fashion_mnist --config.data.validation_size=5000 --config.train.steps=8000 \
        --config.prune.levels=11 --config.control_levels=7,9,11

Nine experiments of 31 networks (early-bird of 15 more), about twenty minutes on two CPU cores. One seed,
to 7.3 % density: iterative pruning stays within 0.6 points of the dense network and stops at step 800 at
the latest, where all others need 1240 and more (dense: 460); its tickets win down to 27 %, one-shot,
early-bird and SNIP's down to 41 %. One-shot comes within 0.7 points at a twelfth of the cost. Early-bird
has its masks after 80 to 112 steps, and at the sparsest is no better than chance. SynFlow's are as
accurate as iterative ones there, but as slow as random ones; GraSP's are less accurate than their own
re-initialized controls.
"""

from tf_lottery.experiments.config import ExperimentConfig, PruneConfig

METHODS = {
    "iterative": PruneConfig(),
    "short_training": PruneConfig(score_step=150),
    "one_shot": PruneConfig(schedule="one_shot"),
    "early_bird": PruneConfig(schedule="early_bird"),
    "large_init": PruneConfig(schedule="one_shot", criterion="large_init"),
    "snip": PruneConfig(schedule="one_shot", criterion="snip", scope="global"),
    "grasp": PruneConfig(schedule="one_shot", criterion="grasp", scope="global"),
    "synflow": PruneConfig(criterion="synflow", scope="global"),
    "random": PruneConfig(schedule="one_shot", criterion="random"),
}


def get_config() -> dict[str, ExperimentConfig]:
    """Returns the digits experiment with each method."""
    return {name: ExperimentConfig(prune=prune) for name, prune in METHODS.items()}
