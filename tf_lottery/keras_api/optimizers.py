"""What is done with a model's optimizer, the same for both Kerases."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import masking


def build(model: Any) -> None:
    """Makes the variables of the model's optimizer, unless it has them: some would make them twice."""
    if not getattr(model.optimizer, "built", False):
        model.optimizer.build(model.trainable_variables)


def variables_of(optimizer: Any) -> list[Any]:
    variables = optimizer.variables
    if not callable(variables):
        return list(variables)
    # tf_keras leaves the learning rate out, and callbacks change it.
    rate = getattr(optimizer, "_learning_rate", None)
    return [*variables(), *([rate] if isinstance(rate, tf.Variable) else [])]


def set_step(optimizer: Any, step: int) -> None:
    """Sets the counter that learning-rate schedules go by, of wrapped optimizers too."""
    for part in masking.parts(optimizer):
        counter = getattr(part, "_iterations", None)
        if counter is not None:
            counter.assign(step)


def config_of(optimizer: Any) -> dict[str, Any] | None:
    """Returns the optimizer's config, None where it has none to give."""
    try:
        return optimizer.get_config()
    except Exception:
        return None


def refuse_legacy(optimizer: Any, flavour_name: str) -> None:
    if not hasattr(optimizer, "build"):
        raise ValueError(
            f"{type(optimizer).__module__}.{type(optimizer).__name__} is a legacy optimizer. "
            f"Compile the model with {flavour_name}.optimizers.{type(optimizer).__name__}."
        )


def refuse_adafactor(optimizer: Any, mask: Mapping[str, np.ndarray]) -> None:
    """Adafactor divides by the product of a row's and a column's mean squared gradient.

    Where both are 0, that is the square of its `epsilon_1`, by default 1e-60: 0 in float32,
    and the whole kernel becomes NaN. One of the two is enough to refuse, for the other
    comes with the first batch on which a unit is silent.
    """
    adafactors = [part for part in masking.parts(optimizer) if _is_adafactor(part)]
    if all(part.epsilon_1**2 > np.finfo(np.float32).tiny for part in adafactors):
        return
    for path, array in mask.items():
        array = np.asarray(array)
        rows, columns = array.any(axis=-1), array.any(axis=-2)
        whole = rows.all(axis=-1) & columns.all(axis=-1)
        # Of a single row or column, or where nothing is kept, the two are not independent.
        if min(array.shape[-2:]) > 1 and (rows.any(axis=-1) & ~whole).any():
            raise ValueError(
                f"Adafactor with epsilon_1={adafactors[0].epsilon_1} cannot train {path!r} with this mask: "
                "it divides 0 by 0 where a row and a column get no gradient, and a whole row or column is "
                "pruned. Compile the model with Adafactor(epsilon_1=1e-16), or with another optimizer, "
                "such as Adam."
            )


def _is_adafactor(optimizer: Any) -> bool:
    return any(cls.__name__ == "Adafactor" for cls in type(optimizer).__mro__)
