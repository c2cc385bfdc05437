"""Speed of training, side by side in one run: `python tools/benchmark.py`.

LeNet-300-100, Adam, data in memory. The contenders take turns; ratios are medians over the
rounds of what stands side by side in one. Prints a table and, with --json=FILE, writes it.
"""

import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_lottery
from tf_lottery.experiments import networks
from tf_lottery.keras_api import flavour
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.training.data import DataOrder
from tf_lottery.training.loop import Loop

_STEPS = flags.DEFINE_integer("steps", 1000, "Training steps of a contender in one round.", lower_bound=100)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Rounds.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 60, "Examples in one step.", lower_bound=1)
_JSON = flags.DEFINE_string("json", "", "Where to write the numbers.")

_EXAMPLES, _PIXELS, _CLASSES, _CHUNK, _DENSITY = 55_000, 784, 10, 100, 0.21
OURS = "this loop, Keras 3, masked"
OURS_DENSE = "this loop, Keras 3, dense"
OURS_TFMOT = "this loop, tf_keras in TF-MOT wrappers, masked"
FIT = "Keras 3 fit"
TFMOT_FIT = "tf_keras fit with TF-MOT's own wrappers"
MATMULS = "the step's matrix products alone"


def _model(keras: Any, wrap: Callable[[Any], Any] = lambda model: model) -> Any:
    model = wrap(networks.build("lenet_300_100", keras, (28, 28, 1), _CLASSES))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1.2e-3), loss, metrics=["accuracy"])
    return model


def _loop(model: Any, data: tuple[np.ndarray, np.ndarray], loops: dict[str, Loop], name: str) -> Callable:
    loop = loops[name] = Loop(model, data, {}, batch_size=_BATCH_SIZE.value, chunk=_CHUNK)
    order = DataOrder(len(data[0]), _BATCH_SIZE.value, 0)

    def run(steps: int) -> None:
        loop.reset_metrics()
        for step in range(0, steps, _CHUNK):
            loop.train(order.batches(step, min(_CHUNK, steps - step)))

    return run


def _masked(model: Any) -> Any:
    masked = MaskedModel(model)
    rng = np.random.default_rng(0)
    masked.set_mask({path: rng.random(shape) < _DENSITY for path, shape in masked.shapes.items()})
    return masked.model


def _fit(model: Any, data: tuple[np.ndarray, np.ndarray], callbacks: tuple = ()) -> Callable:
    x, y = data

    def run(steps: int) -> None:
        examples = steps * _BATCH_SIZE.value
        rows = np.arange(examples) % len(x)
        model.fit(
            x[rows], y[rows], batch_size=_BATCH_SIZE.value, epochs=1, verbose=0, callbacks=list(callbacks)
        )

    return run


def _tfmot_fit(data: tuple[np.ndarray, np.ndarray]) -> Callable:
    with flavour.keras_environment_kept():
        import tensorflow_model_optimization as tfmot
    import tf_keras

    sparsity = tfmot.sparsity.keras
    schedule = sparsity.ConstantSparsity(1 - _DENSITY, begin_step=0, frequency=100)
    model = sparsity.prune_low_magnitude(_model(tf_keras), pruning_schedule=schedule)
    loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf_keras.optimizers.Adam(1.2e-3), loss, metrics=["accuracy"])
    return _fit(model, data, (sparsity.UpdatePruningStep(),))


def _matmuls() -> Callable:
    widths = (_PIXELS, 300, 100, _CLASSES)
    weights = [tf.Variable(tf.random.normal(shape, stddev=0.05)) for shape in zip(widths, widths[1:])]
    x = tf.random.normal((_BATCH_SIZE.value, _PIXELS))

    @tf.function(jit_compile=True)
    def loop(steps: tf.Tensor) -> None:
        for _ in tf.range(steps):
            inputs = [x]
            for weight in weights:
                inputs.append(inputs[-1] @ weight)
            gradient = inputs.pop()
            for i in (2, 1, 0):
                change = tf.matmul(inputs[i], gradient, transpose_a=True)
                if i:  # the gradient of the network's input is not needed
                    gradient = tf.matmul(gradient, weights[i], transpose_b=True)
                weights[i].assign_sub(1e-9 * change)

    return lambda steps: loop(tf.constant(steps))


def _contenders(loops: dict[str, Loop]) -> dict[str, Callable[[int], None]]:
    rng = np.random.default_rng(0)
    x = rng.random((_EXAMPLES, 28, 28, 1), np.float32)
    data = (x, rng.integers(0, _CLASSES, _EXAMPLES).astype(np.int32))
    keras, tf_keras = flavour.keras_module("keras"), flavour.keras_module("tf_keras")
    return {
        OURS: _loop(_masked(_model(keras)), data, loops, OURS),
        OURS_DENSE: _loop(_model(keras), data, loops, OURS_DENSE),
        OURS_TFMOT: _loop(_masked(_model(tf_keras, tf_lottery.wrap)), data, loops, OURS_TFMOT),
        FIT: _fit(_model(keras), data),
        TFMOT_FIT: _tfmot_fit(data),
        MATMULS: _matmuls(),
    }


def measure() -> dict[str, Any]:
    """Times every contender in turn; returns milliseconds per step, ratios and traces."""
    loops: dict[str, Loop] = {}
    contenders = _contenders(loops)
    for run in contenders.values():
        run(200)  # traces and compiles
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(_ROUNDS.value):
        for name, run in contenders.items():
            began = time.perf_counter()
            run(_STEPS.value)
            times[name].append((time.perf_counter() - began) / _STEPS.value * 1e3)
    return {
        "milliseconds": {
            name: {"median": statistics.median(values), "min": min(values), "max": max(values)}
            for name, values in times.items()
        },
        "ratios": {
            "Keras 3 fit / this loop": _ratio(times[FIT], times[OURS]),
            "TF-MOT fit / this loop in TF-MOT wrappers": _ratio(times[TFMOT_FIT], times[OURS_TFMOT]),
            "masked / dense": _ratio(times[OURS], times[OURS_DENSE]),
            "share of the matrix-multiply bound": _ratio(times[MATMULS], times[OURS]),
        },
        "traces": {name: loop.traces for name, loop in loops.items()},
        "cores": os.cpu_count(),
        "batch_size": _BATCH_SIZE.value,
    }


def _ratio(times: list[float], others: list[float]) -> float:
    # Round by round, for a shared machine is now faster and now slower.
    return statistics.median(one / other for one, other in zip(times, others))


def _print(report: dict[str, Any]) -> None:
    print(f"LeNet-300-100, batch {report['batch_size']}, Adam, {report['cores']} cores; ms per step")
    for name, spread in report["milliseconds"].items():
        print(f"  {name:<48} {spread['median']:6.2f}   ({spread['min']:.2f} to {spread['max']:.2f})")
    for name, ratio in report["ratios"].items():
        print(f"  {name:<48} {ratio:6.2f}")
    print(f"  traces of each loop: {sorted(set(report['traces'].values()))}")


def main(words: list[str]) -> None:
    if len(words) > 1:
        raise app.UsageError(f"Unexpected argument {words[1]!r}.")
    report = measure()
    _print(report)
    if _JSON.value:
        with open(_JSON.value, "w") as file:
            json.dump(report, file, indent=2)


if __name__ == "__main__":
    app.run(main)
