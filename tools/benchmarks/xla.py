"""Does XLA pay? Small networks of each kind, trained with and without, beside what the rule chooses."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.speed import ratio, spread

_TOKENS, _STEPS, _BATCH = 5000, 10, 32


def _networks(layers: Any) -> dict[str, tuple[tuple[int, ...], list[Any]]]:
    """Returns name -> shape of an example, which ends in 0 where that is of words, and the first layers."""
    return {
        "dense": ((256,), [layers.Dense(256, "relu"), layers.Dense(256, "relu")]),
        "dense, BatchNorm, dropout": (
            (256,),
            [layers.Dense(256), layers.BatchNormalization(), layers.ReLU(), layers.Dropout(0.5)],
        ),
        "random flip": ((16, 16, 8), [layers.RandomFlip(), layers.Flatten(), layers.Dense(64, "relu")]),
        "random contrast": (
            (16, 16, 3),
            [layers.RandomContrast(0.5), layers.Flatten(), layers.Dense(64, "relu")],
        ),
        "embedding": ((64, 0), [layers.Embedding(_TOKENS, 64), layers.GlobalAveragePooling1D()]),
        "LSTM": ((28, 28), [layers.LSTM(64)]),
        "GRU, bidirectional": ((28, 28), [layers.Bidirectional(layers.GRU(64))]),
        "simple RNN": ((28, 28), [layers.SimpleRNN(64)]),
        "LSTM of words": ((32, 0), [layers.Embedding(_TOKENS, 64), layers.LSTM(64)]),
        "dense, over time": ((28, 64), [layers.TimeDistributed(layers.Dense(64, "relu")), layers.Flatten()]),
        "pooling": ((16, 16, 8), [layers.MaxPooling2D(), layers.Flatten(), layers.Dense(64, "relu")]),
        "Conv1D": ((64, 8), [layers.Conv1D(32, 3, activation="relu"), layers.Flatten()]),
        "Conv2D": ((16, 16, 8), [layers.Conv2D(16, 3, activation="relu"), layers.Flatten()]),
        "Conv2D of 1 x 1": ((16, 16, 8), [layers.Conv2D(16, 1, activation="relu"), layers.Flatten()]),
        "depthwise": ((16, 16, 8), [layers.DepthwiseConv2D(3), layers.Flatten()]),
    }


def measure(rounds: int) -> dict[str, Any]:
    """Returns milliseconds per step of each network in both flavours, with XLA and without, in turn."""
    from tf_lottery.keras_api.flavour import keras_module

    rows = {}
    for flavour in ("keras", "tf_keras"):
        keras = keras_module(flavour)
        for name, (shape, layers) in tqdm(_networks(keras.layers).items(), desc=flavour, leave=False):
            rows[f"{flavour}: {name}"] = _row(keras, shape, layers, rounds)
    return {"rounds": rounds, "steps_in_a_turn": _STEPS, "networks": rows}


def text(report: dict[str, Any]) -> str:
    """Returns the report as a table."""
    lines = [f"{'ms per step':40}{'XLA':>10}{'no XLA':>10}{'XLA / no XLA':>14}   the rule"]
    for name, row in report["networks"].items():
        chosen = "XLA" if row["rule"] else "no XLA"
        share = row["ratio"]["median"]
        wrong = "" if (share < 1) == row["rule"] or 0.9 < share < 1.1 else "  (slower)"
        wrong += "" if row["compiles"] else "  (XLA cannot compile it)"
        times = f"{row['xla']['median']:10.2f}{row['no_xla']['median']:10.2f}{share:14.2f}"
        lines.append(f"{name:40}{times}   {chosen}{wrong}")
    return "\n".join(lines)


def _row(keras: Any, shape: tuple[int, ...], layers: list[Any], rounds: int) -> dict[str, Any]:
    from tf_lottery.training.loop import Loop, prefers_xla

    words, rng = shape[-1] == 0, np.random.default_rng(0)
    shape = shape[:-1] if words else shape
    inputs = keras.Input(shape, dtype="int32" if words else "float32")
    model = keras.Sequential([inputs, *layers, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(), loss, metrics=["accuracy"])
    x = rng.integers(0, _TOKENS, (1000, *shape)) if words else rng.random((1000, *shape), np.float32)
    y = rng.integers(0, 10, 1000)
    loops = {jit: Loop(model, (x, y), {}, batch_size=_BATCH, chunk=_STEPS, jit=jit) for jit in (True, False)}
    runs = {jit: _run(loop) for jit, loop in loops.items()}
    times: dict[bool, list[float]] = {True: [], False: []}
    for number in range(rounds):
        # Every other round backwards: none comes always after the same one.
        for jit in (True, False)[:: -1 if number % 2 else 1]:
            times[jit].append(runs[jit]())
    return {
        "xla": spread(times[True]),
        "no_xla": spread(times[False]),
        "ratio": ratio(times[True], times[False]),
        "rule": prefers_xla(model),
        "compiles": loops[True].jit,  # a loop goes on without XLA where it has to
    }


def _run(loop: Any) -> Callable[[], float]:
    batches = loop.order(0).batches(0, _STEPS)

    def run() -> float:
        began = time.perf_counter()
        loop.train(batches)
        return (time.perf_counter() - began) / _STEPS * 1e3

    run()
    return run
