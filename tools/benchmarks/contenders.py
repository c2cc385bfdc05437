"""Who takes part: each is a function of a work that returns what trains for so many steps.

What is returned takes the steps twice and says how many seconds the second time took: caches are warm
then, and pipelines filled.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import works
from benchmarks.works import DENSITY, WORKS, Work

Run = Callable[[int], float]
_CHUNK = 100


def work_named(name: str) -> Work:
    """Returns a work of `WORKS`, or for `"mlp:WIDTH:BATCH"` that of a fully connected network."""
    if name in WORKS:
        return WORKS[name]
    _, width, batch_size = name.split(":")
    return works.mlp(int(width), int(batch_size))


def _twice(run: Run) -> Run:
    def second(steps: int) -> float:
        run(steps)
        return run(steps)

    return second


def loop(name: str, flavour: str = "keras", masked: bool = True) -> Run:
    """Returns the loop of tf_lottery, with a mask at random, in TF-MOT's wrappers for tf_keras; or dense."""
    import tf_lottery
    from tf_lottery.keras_api.flavour import keras_module
    from tf_lottery.keras_api.masked_model import MaskedModel
    from tf_lottery.training.loop import Loop

    work = work_named(name)
    wrap = tf_lottery.wrap if masked and flavour == "tf_keras" else lambda model: model
    model, data = work.compiled(keras_module(flavour), wrap), work.data()
    if masked:
        masked_model, rng = MaskedModel(model), np.random.default_rng(0)
        mask = {path: rng.random(shape) < DENSITY for path, shape in masked_model.shapes.items()}
        masked_model.set_mask(mask)
        model = masked_model.model
    made = Loop(model, data, {}, batch_size=work.batch_size, chunk=min(_CHUNK, work.steps))
    order = made.order(0)

    def run(steps: int) -> float:
        began = time.perf_counter()
        made.reset_metrics()
        for step in range(0, steps, made.chunk):
            made.train(order.batches(step, min(made.chunk, steps - step)))
        return time.perf_counter() - began

    return _twice(run)


def _fit(name: str, several: bool = False, **options: Any) -> Run:
    import keras

    work = work_named(name)
    if several:
        options["steps_per_execution"] = min(_CHUNK, work.steps)
    return _fitting(keras, work.compiled(keras, **options), work)


def _tfmot_fit(name: str) -> Run:
    from tf_lottery.keras_api import flavour

    with flavour.keras_environment_kept():
        import tensorflow_model_optimization as tfmot
    import tf_keras

    sparsity, work = tfmot.sparsity.keras, work_named(name)
    schedule = sparsity.ConstantSparsity(1 - DENSITY, begin_step=0, frequency=100)
    wrap = functools.partial(sparsity.prune_low_magnitude, pruning_schedule=schedule)
    return _fitting(tf_keras, work.compiled(tf_keras, wrap), work, sparsity.UpdatePruningStep())


def _pruner_fit(name: str) -> Run:
    import keras
    import lottery_ticket_pruner

    work = work_named(name)
    model = work.compiled(keras)
    pruner = lottery_ticket_pruner.LotteryTicketPruner(model)
    pruner.set_pretrained_weights(model)
    pruner.calc_prune_mask(model, 1 - DENSITY, "large_final")
    return _fitting(keras, model, work, lottery_ticket_pruner.PrunerCallback(pruner))


def _fitting(keras: Any, model: Any, work: Work, *callbacks: Any) -> Run:
    x, y = work.data()

    class Stamps(keras.callbacks.Callback):
        """When how many batches were done; stops after so many.

        It listens to begins, at which Keras 3 goes on calling back asynchronously, as it does by default.
        """

        def __init__(self, last: int):
            super().__init__()
            self.last, self.before, self.done, self.times = last, 0, 0, {}

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.before = epoch * -(-work.examples // work.batch_size)

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.done = self.before + batch
            self.times[self.done] = time.perf_counter()
            self.model.stop_training = self.done >= self.last

    def run(steps: int) -> float:
        stamps = Stamps(2 * steps)
        epochs = 2 + 2 * steps * work.batch_size // work.examples
        options = {"batch_size": work.batch_size, "epochs": epochs, "verbose": 0}
        model.fit(x, y, callbacks=[stamps, *callbacks], **options)
        first = min(done for done in stamps.times if done >= steps)
        return (stamps.times[stamps.done] - stamps.times[first]) / (stamps.done - first) * steps

    return run


def _torch(name: str) -> Run:
    from benchmarks import torch_loop

    return _twice(torch_loop.contender(work_named(name), name))


def _products(name: str, library: str) -> Run:
    import keras

    from benchmarks import products

    work = work_named(name)
    found = products.of(work.network(keras), work.batch_size)
    if library == "numpy":
        return _twice(products.by_numpy(found))
    return _twice(products.by_tensorflow(found, jit=library == "xla"))


OURS, WRAPPED = "tf_lottery", "tf_lottery, TF-MOT wrappers"
TFMOT, PYTORCH = "TF-MOT fit", "PyTorch loop"
FITS = {
    "Keras fit": _fit,
    "Keras fit, several steps, XLA": functools.partial(_fit, several=True, jit_compile=True),
    "Keras fit, several steps, no XLA": functools.partial(_fit, several=True, jit_compile=False),
}
BOUNDS = {
    "products, OpenBLAS": functools.partial(_products, library="numpy"),
    "products, XLA": functools.partial(_products, library="xla"),
    "products, TensorFlow": functools.partial(_products, library="tensorflow"),
}
CONTENDERS: dict[str, Callable[[str], Run]] = {
    OURS: loop,
    WRAPPED: functools.partial(loop, flavour="tf_keras"),
    **FITS,
    TFMOT: _tfmot_fit,
    "lottery-ticket-pruner fit": _pruner_fit,
    PYTORCH: _torch,
    **BOUNDS,
}
