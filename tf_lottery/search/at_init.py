"""Tickets found at initialization, before any training."""

from typing import Any

from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.network import KerasNetwork
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import masks, pruning, scores, seeds
from tf_lottery.tickets.masks import Mask
from tf_lottery.tickets.scores import Evidence, Scores
from tf_lottery.training import environment

_ROUNDS = scores.needs(scores.synflow).rounds


def synflow_ticket(model: Any, density: float) -> Ticket:
    """Finds a ticket with neither data nor training (SynFlow, 2006.05467), and makes `model` it.

    Args:
        model: a built Sequential or functional model of either flavour.
        density: the share of the weights to keep, in (0, 1).

    Raises:
        ValueError: the density is out of range, or the network cannot be scored so.
    """
    masked = MaskedModel(model)
    with masked.undone_on_error():
        mask = synflow(masked, density)
        masked.set_mask(mask)
        masked.reset_optimizer()
    return Ticket(
        mask=mask,
        weights=network_weights(masked.fresh_state),
        level=1,
        method=f"SynFlow (2006.05467) in {_ROUNDS} rounds, without data or training",
        verdict="Found at initialization: how well it trains beside the dense network was not looked at.",
        provenance={"versions": environment.versions(), "flavour": masked.flavour, "target_density": density},
    )


def synflow(model: MaskedModel, density: float) -> Mask:
    """Returns the mask of iterative synaptic flow pruning (2006.05467, algorithm 1).

    Each round scores every weight by |w dR/dw|, where R is the sum of the outputs for an
    input of ones through the network of absolute weights, and keeps of all layers
    together the highest, `density ** (round / 100)` of the weights. As its authors do,
    batch normalization is that of inference, its parameters and statistics absolute too.
    The model is as before when this returns.

    Args:
        model: the network at initialization; what its mask prunes stays pruned.
        density: the share of all prunable weights to keep, in (0, 1).

    Raises:
        ValueError: the density is out of range, the model does not say the shape of its
            inputs, scores are not finite or all 0, or there are layers that the method is not
            made for: attention, recurrent ones, normalization other than BatchNormalization.
    """
    mask = model.mask()
    total = sum(array.size for array in mask.values())
    if not 0 < density < 1 or round(density * total) < 1:
        raise ValueError(
            f"target_density must be in (0, 1), and leave one of the {total} weights. Received {density}."
        )
    network = KerasNetwork(model, None, key=(), steps=0, batch_size=0)
    weights, rng = network_weights(model.state()), seeds.generator()

    def score(left: Mask) -> Scores:
        return scores.synflow(Evidence(left, weights, weights, rng, network))

    share = max(0.0, 1 - density * total / masks.kept(mask))
    return pruning.prune_in_rounds(mask, score, dict.fromkeys(mask, share), "global", rounds=_ROUNDS)
