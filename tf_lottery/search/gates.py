"""Masks that are learned: every weight has a gate, and training decides which stay open.

A gate z multiplies its weight. The kernel's variable holds w z while the loss is computed,
so any model can be gated as it is, and the loss's gradient by that variable gives, by the
chain rule, those by the weight and by the gate's logit a: dL/dw = dL/d(wz) z and
dL/da = dL/d(wz) w dz/da.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api import flavour, optimizers
from tf_lottery.keras_api.masked_model import Arrays, MaskedModel
from tf_lottery.search import gradients
from tf_lottery.tickets import seeds
from tf_lottery.training.data import Examples
from tf_lottery.training.inputs import Source
from tf_lottery.training.loop import Loop

_CHUNK = 100
_BETA, _GAMMA, _ZETA = 2 / 3, -0.1, 1.1  # of the hard concrete distribution, as in 1712.01312
_CLOSED = math.log(-_GAMMA / _ZETA)  # the log alpha at which a gate without noise closes


@dataclasses.dataclass(frozen=True)
class Gates:
    """A kind of gate, and how it is trained.

    Attributes:
        draw: from logits and uniform noise in [0, 1) to gates in [0, 1], differentiable.
        closed: the logit up to which a gate without noise is closed.
        start: the logits at first.
        rate: Adam's learning rate for the logits.
        penalty: what is added to the loss, in its unit, where every gate is open.
        trains_weights: whether the weights are trained along.
    """

    draw: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
    closed: float
    start: float
    rate: float
    penalty: float = 0.0
    trains_weights: bool = False


def bernoulli(logits: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Returns 1 with probability sigmoid(a), else 0; the gradient is that of the probability."""
    open_share = tf.sigmoid(logits)
    return open_share + tf.stop_gradient(tf.cast(noise < open_share, logits.dtype) - open_share)


def hard_concrete(logits: tf.Tensor, noise: tf.Tensor) -> tf.Tensor:
    """Returns clip(s (zeta - gamma) + gamma, 0, 1), s = sigmoid((logit(u) + a) / beta)."""
    stretched = tf.sigmoid((tf.math.log(noise) - tf.math.log1p(-noise) + logits) / _BETA)
    return tf.clip_by_value(stretched * (_ZETA - _GAMMA) + _GAMMA, 0.0, 1.0)


def chance_of_open(logits: tf.Tensor) -> tf.Tensor:
    """Returns the probability that a hard-concrete gate is not 0, sigmoid(a - beta log(-gamma / zeta))."""
    return tf.sigmoid(logits - _BETA * _CLOSED)


def uniform(shape: Sequence[int], seed: int, step: tf.Tensor) -> tf.Tensor:
    """Returns noise in [0, 1) that depends on the seed and the step alone.

    A hash of the weight's number: XLA on CPU takes fifty times the whole step for TensorFlow's own.
    """
    key = _mixed(tf.cast(step, tf.uint32) + _mixed(tf.constant(seed, tf.uint32)))
    numbers = tf.reshape(tf.range(math.prod(shape)), shape)
    bits = _mixed(tf.bitwise.bitwise_xor(tf.cast(numbers, tf.uint32), key))
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


def _mixed(x: tf.Tensor) -> tf.Tensor:
    """Returns 32 bits that each depend on all bits of `x` (the finalizer of MurmurHash3)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        x = tf.bitwise.bitwise_xor(x, tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32)))
        x *= tf.constant(factor, tf.uint32)
    return x


SUPERMASK = Gates(bernoulli, closed=0.0, start=0.0, rate=0.1)
L0 = Gates(hard_concrete, closed=_CLOSED, start=2.0, rate=0.01, penalty=5.0, trains_weights=True)


class Learner:
    """Trains gates on the weights that a model has at the time, as often as asked, by one trace.

    Args:
        kind: `SUPERMASK` or `L0`.
        masked: the model; what its mask prunes stays so, whatever its gate.
        train: the training data.
        key: what noise and the order of the data depend on.
        batch_size: examples in a step.
    """

    def __init__(
        self, kind: Gates, masked: MaskedModel, train: Source, *, key: Sequence[int | str], batch_size: int
    ):
        self._masked, self._key = masked, key
        self._gated = _GatedModel(masked, kind, key)
        self._loop = Loop(self._gated, train, {}, batch_size=batch_size, chunk=_CHUNK)

    def learn(self, steps: int) -> Arrays:
        """Takes `steps` steps; returns path -> score, above 0 where a gate is open.

        The model's variables and optimizer are left in the state that this training ends with.
        """
        self._gated.start()
        order, chunk = self._loop.order(*self._key, "gates"), self._loop.chunk
        for step in range(0, steps, chunk):
            self._loop.train(order.batches(step, min(chunk, steps - step)))
        return self._gated.scores()


class _GatedModel:
    """What `Loop` trains in the model's place; for all but its training step it is the model."""

    def __init__(self, masked: MaskedModel, kind: Gates, key: Sequence[int | str]):
        self._model, self._masked, self._kind = masked.model, masked, kind
        self._paths = list(masked.shapes)
        self._kernels = gradients.kernels_of(masked)
        own = {id(kernel) for kernel in self._kernels}
        others = [v for v in masked.model.trainable_variables if id(v) not in own]
        self._trained = [*self._kernels, *(others if kind.trains_weights else [])]
        self._weights = sum(math.prod(shape) for shape in masked.shapes.values())
        self._seeds = [seeds.seed(*key, "gates", path) for path in self._paths]
        keras = flavour.keras_module(masked.flavour)
        variable = getattr(keras, "Variable", tf.Variable)
        self._replicas = masked.model.distribute_strategy.num_replicas_in_sync
        with masked.model.distribute_strategy.scope():
            self._step = tf.Variable(0, trainable=False)
            self._logits = [variable(tf.fill(shape, kind.start)) for shape in masked.shapes.values()]
            self._optimizer = keras.optimizers.Adam(kind.rate)
            self._optimizer.build(self._logits)
        own = [self._step, *self._logits, *optimizers.variables_of(self._optimizer)]
        self._fresh = [(variable, np.array(variable.numpy())) for variable in own]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def start(self) -> None:
        """Puts gates and optimizers in the state before the first step."""
        for variable, value in self._fresh:
            variable.assign(value)
        if self._kind.trains_weights:
            self._masked.reset_optimizer()

    def scores(self) -> Arrays:
        return {path: logits.numpy() - self._kind.closed for path, logits in zip(self._paths, self._logits)}

    def train_step(self, batch: Examples) -> dict[str, tf.Tensor]:
        self._step.assign_add(1)
        weights = [tf.convert_to_tensor(kernel) for kernel in self._kernels]
        with tf.GradientTape() as tape:
            logits = [tf.convert_to_tensor(variable) for variable in self._logits]
            tape.watch(logits)
            noise = [uniform(a.shape, seed, self._step) for a, seed in zip(logits, self._seeds)]
            gates = [self._kind.draw(a, tf.cast(u, a.dtype)) for a, u in zip(logits, noise)]
            penalty = self._penalty(logits)
        for kernel, weight, gate in zip(self._kernels, weights, gates):
            kernel.assign(weight * tf.cast(gate, weight.dtype))
        with tf.GradientTape() as loss_tape:
            # Optimizers add up what the replicas find.
            loss = gradients.loss(self._model, batch, training=True) / self._replicas
        found = loss_tape.gradient(loss, self._trained, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        for kernel, weight in zip(self._kernels, weights):
            kernel.assign(weight)
        by_kernel = [tf.convert_to_tensor(g) for g in found[: len(weights)]]
        by_gate = [tf.cast(g * weight, a.dtype) for g, weight, a in zip(by_kernel, weights, logits)]
        along = [*by_gate, tf.ones_like(penalty)]
        by_logit = tape.gradient([*gates, penalty], logits, output_gradients=along)
        self._optimizer.apply_gradients(zip(by_logit, self._logits))
        if self._kind.trains_weights:
            by_weight = [g * tf.cast(gate, g.dtype) for g, gate in zip(by_kernel, gates)]
            self._train_weights([*by_weight, *found[len(weights) :]])
        return {"loss": loss}

    def _penalty(self, logits: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns the penalty of the density that is expected."""
        if not self._kind.penalty:
            return tf.constant(0.0)
        is_open = tf.add_n([tf.reduce_sum(chance_of_open(a)) for a in logits])
        return self._kind.penalty * is_open / self._weights / self._replicas

    def _train_weights(self, found: Sequence[tf.Tensor]) -> None:
        # The loss is not scaled, so neither may the optimizer of mixed precision scale it back.
        optimizer = getattr(self._model.optimizer, "inner_optimizer", self._model.optimizer)
        optimizer.apply_gradients(zip(found, self._trained))
