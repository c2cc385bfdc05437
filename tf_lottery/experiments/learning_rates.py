"""The learning rate as a function of the optimizer's step counter."""

import functools
from collections.abc import Sequence
from types import ModuleType
from typing import Any


@functools.cache
def warmup_and_decay(keras: ModuleType) -> type:
    """Returns the class `WarmupAndDecay` for `keras`, known to its files."""

    class WarmupAndDecay(keras.optimizers.schedules.LearningRateSchedule):
        """Rises linearly from 0, then falls at given steps (1803.03635, section 4; 1912.05671).

        At step t, counted from 0, the rate is `learning_rate * min(1, t / warmup_steps) * decay_factor**k`,
        where k of the `decay_steps` are t or less.

        Args:
            learning_rate: the highest rate.
            warmup_steps: steps from 0 to it; 0 starts there.
            decay_steps: the steps at which the rate is multiplied by `decay_factor`.
            decay_factor: see there.

        Example:
            >>> import keras
            >>> rate = warmup_and_decay(keras)(0.1, warmup_steps=4, decay_steps=[10])
            >>> [round(float(rate(step)), 3) for step in (0, 1, 4, 9, 10)]
            [0.0, 0.025, 0.1, 0.1, 0.01]
        """

        def __init__(
            self,
            learning_rate: float,
            warmup_steps: int = 0,
            decay_steps: Sequence[int] = (),
            decay_factor: float = 0.1,
        ):
            self.learning_rate = learning_rate
            self.warmup_steps = warmup_steps
            self.decay_steps = list(decay_steps)
            self.decay_factor = decay_factor

        def __call__(self, step: Any) -> Any:
            import tensorflow as tf

            step = tf.cast(tf.convert_to_tensor(step), tf.float32)
            rate = tf.constant(self.learning_rate, tf.float32)
            if self.warmup_steps:
                rate *= tf.minimum(1.0, step / self.warmup_steps)
            for boundary in self.decay_steps:
                rate = tf.where(step < boundary, rate, rate * self.decay_factor)
            return rate

        def get_config(self) -> dict[str, Any]:
            return {
                "learning_rate": self.learning_rate,
                "warmup_steps": self.warmup_steps,
                "decay_steps": self.decay_steps,
                "decay_factor": self.decay_factor,
            }

    return keras.saving.register_keras_serializable("tf_lottery")(WarmupAndDecay)
