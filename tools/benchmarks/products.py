"""The matrix products of a step by themselves, which training cannot be faster than.

A convolution counts as the product that it comes to, positions x (size x inputs) x filters: for these it is
no bound but a measure, as some algorithms for them multiply less.
"""

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Product(NamedTuple):
    """(rows, inner) times (inner, columns), forward and back.

    Attributes:
        times: how often, one after the other.
        at_once: how many pairs of matrices in one operation.
        reaches_inputs: whether the gradient of the first matrix is left out, which nobody needs.
    """

    rows: int
    inner: int
    columns: int
    times: int = 1
    at_once: int = 1
    reaches_inputs: bool = False

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Those of inputs, kernel and outputs."""
        lead = (self.at_once,) if self.at_once > 1 else ()
        return [
            (*lead, self.rows, self.inner),
            (*lead, self.inner, self.columns),
            (*lead, self.rows, self.columns),
        ]

    def operations(self) -> int:
        """Floating-point operations of a step."""
        forward = 2 * self.rows * self.inner * self.columns * self.times * self.at_once
        return forward * (3 - self.reaches_inputs)


def of(model: Any, batch_size: int) -> list[Product]:
    """Returns the products of a Keras model's step, the gradient of the network's input left out."""
    products: list[Product] = []
    has_embedding = any(type(layer).__name__ == "Embedding" for layer in model._flatten_layers())

    def add(rows: int, inner: int, columns: int, times: int = 1, at_once: int = 1) -> None:
        # An embedding in front of the first one is trained too.
        is_first = not products and not has_embedding
        products.append(Product(rows, inner, columns, times, at_once, is_first))

    for layer in model._flatten_layers(include_self=False):
        kind, kernel = type(layer).__name__, getattr(layer, "kernel", None)
        if kind == "LSTM":
            steps, inputs = layer.input.shape[1:]
            add(batch_size * steps, inputs, 4 * layer.units)
            add(batch_size, layer.units, 4 * layer.units, steps)
        elif kind == "MultiHeadAttention":
            tokens = layer.output.shape[1]
            heads, size, width = layer._num_heads, layer._key_dim, layer.output.shape[-1]
            add(batch_size * tokens, width, 3 * heads * size)
            add(tokens, size, tokens, at_once=batch_size * heads)
            add(tokens, tokens, size, at_once=batch_size * heads)
            add(batch_size * tokens, heads * size, width)
        elif kind == "Dense" or "Conv" in kind:
            positions = math.prod(layer.output.shape[1:-1])
            add(batch_size * positions, math.prod(kernel.shape[:-1]), kernel.shape[-1])
    return products


def by_numpy(products: list[Product]) -> Callable[[int], float]:
    """Returns what does so many steps' products with NumPy's BLAS and says how many seconds they took."""
    rng = np.random.default_rng(0)
    made = [(p, *(rng.random(shape, np.float32) for shape in p.shapes)) for p in products]
    gradients = [(np.empty_like(inputs), np.empty_like(kernel)) for _, inputs, kernel, _ in made]

    def run(steps: int) -> float:
        began = time.perf_counter()
        for _ in range(steps):
            for (product, inputs, kernel, outputs), (to_inputs, to_kernel) in zip(made, gradients):
                for _ in range(product.times):
                    np.matmul(inputs, kernel, out=outputs)
                    np.matmul(inputs.swapaxes(-1, -2), outputs, out=to_kernel)
                    if not product.reaches_inputs:
                        np.matmul(outputs, kernel.swapaxes(-1, -2), out=to_inputs)
        return time.perf_counter() - began

    return run


def by_tensorflow(products: list[Product], jit: bool) -> Callable[[int], float]:
    """Returns the same with TensorFlow, many steps in one call, compiled by XLA or not."""
    import tensorflow as tf

    # Zeros: what the values are takes no time, and these stay what they are.
    made = [(p, *(tf.Variable(tf.zeros(shape)) for shape in p.shapes[:2])) for p in products]

    def once(product: Product, inputs: tf.Variable, kernel: tf.Variable) -> None:
        # What a step comes to goes into the next: no product is left out, or done once for all.
        outputs = inputs @ kernel
        if not product.reaches_inputs:
            inputs.assign(tf.matmul(outputs, kernel, transpose_b=True))
        kernel.assign(tf.matmul(inputs, outputs, transpose_a=True))

    @tf.function(jit_compile=jit)
    def loop(steps: tf.Tensor) -> None:
        step = tf.constant(0)
        while step < steps:
            for product, inputs, kernel in made:
                if product.times == 1:
                    once(product, inputs, kernel)
                else:
                    i = tf.constant(0)
                    while i < product.times:
                        once(product, inputs, kernel)
                        i += 1
            step += 1

    def run(steps: int) -> float:
        began = time.perf_counter()
        loop(tf.constant(steps))
        return time.perf_counter() - began

    return run
