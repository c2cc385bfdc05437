"""TF-MOT's 8-bit quantization that keeps the zeros of a pruned network.

Importing this module imports TF-MOT, as `tfmot_wrappers` does.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tf_keras

from tf_lottery.keras_api.tfmot_wrappers import tfmot


class Refused(ValueError):
    """TF-MOT cannot quantize a network."""


def quantized(
    model: tf_keras.Model,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    steps: int,
    optimizer: tf_keras.optimizers.Optimizer,
    loss: Callable[[Any, Any], Any],
) -> tf_keras.Model:
    """Returns the model with weights and activations as 8-bit numbers have them, trained on so.

    It is TF-MOT's scheme for pruned networks, `Default8BitPrunePreserveQuantizeScheme`: weights that are
    0 stay 0 through the training. The ranges of activations are moving averages that start at -6 and 6 and
    keep 0.999 of what they were in each step, so that hundreds of steps are needed for them alone.

    Args:
        model: a plain Sequential or functional model; it stays as it is.
        batches: `steps` batches of training examples, each `(x, y)`.
        steps: of training, 1 or more.
        optimizer: trains it; a tenth of the network's own learning rate is usual.
        loss: of labels and outputs.

    Raises:
        Refused: TF-MOT cannot quantize one of the layers.
    """
    try:
        annotated = tfmot.quantization.keras.quantize_annotate_model(model)
        scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
        with tfmot.quantization.keras.quantize_scope():
            made = tfmot.quantization.keras.quantize_apply(annotated, scheme)
    except (ValueError, RuntimeError) as error:
        first, _, _ = str(error).partition("\n")
        raise Refused(f"TF-MOT cannot quantize the network {model.name!r}: {first.rstrip('.')}.") from error
    made.compile(optimizer, loss)
    made.fit(iter(batches), steps_per_epoch=steps, epochs=1, verbose=0)
    return made
