"""Runs one search in a process of its own, and prints as JSON what it held on the way.

`growth.py KIND FLAVOUR WORKDIR`: by `find_ticket` or by the driver, on that Keras.
"""

import ctypes
import gc
import json
import os
import pathlib
import resource
import sys
import tempfile
import threading

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.func_graph import FuncGraph

import tf_lottery
from tf_lottery.keras_api import flavour
from tf_lottery.training import loop
from tf_lottery.training.trainer import Trainer

FIRST, NETWORKS = 10, 201
PAGE = resource.getpagesize()
KERNELS = {"stored": (64, 32), "held": (300, 100), "driver": (64, 32)}


def resident():
    """Bytes of memory, once what is free is given back, which the allocator keeps for a while."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * PAGE


def on_device():
    """Bytes on the devices: as a GPU tells; of a CPU, which does not, those of all tensors and variables."""
    gpus = tf.config.list_logical_devices("GPU")
    if gpus:
        return sum(tf.config.experimental.get_memory_info(gpu.name)["current"] for gpu in gpus)
    kinds = (type(tf.constant(0)), tf.Variable)
    found = [
        o for o in gc.get_objects() if isinstance(o, kinds) and o.dtype.size and o.shape.is_fully_defined()
    ]
    return sum(o.shape.num_elements() * o.dtype.size for o in found)


def left_over(workdir):
    """What a search must not leave behind: threads, open files, temporary files."""
    opened = [os.path.realpath(path) for path in pathlib.Path("/proc/self/fd").iterdir()]
    return {
        "threads": sorted(thread.name for thread in threading.enumerate()),
        # matplotlib keeps the fonts open that it has drawn with, TensorFlow what it looked for devices with.
        "files": sorted(path for path in opened if path.startswith((str(workdir), tempfile.gettempdir()))),
        # TensorFlow removes those at its end.
        "temporary": [n for n in os.listdir(tempfile.gettempdir()) if not n.startswith("__autograph")],
        "locks": sorted(map(str, workdir.rglob("*.tf_lottery.tmp")))
        + sorted(map(str, workdir.rglob("*.lock.json"))),
    }


def model_of(keras, widths):
    hidden = [keras.layers.Dense(width, "relu") for width in widths]
    model = keras.Sequential([keras.layers.Input((64,)), *hidden, keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])
    return model


def search(kind, name, workdir):
    if kind == "driver":
        from tf_lottery.experiments import driver
        from tf_lottery.experiments.config import ExperimentConfig

        config = ExperimentConfig(flavour=name)
        config.network.name = "mlp:64,32"
        config.train.steps, config.train.eval_every_steps = 2, 2
        config.prune.levels, config.prune.fraction = NETWORKS // 2, 0.01
        driver.run(config, str(workdir))
        return
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 64)).astype(np.float32), rng.integers(0, 10, 200)
    given = {"steps": 2, "eval_every": 2, "prune_fraction": 0.01, "verbose": 0}
    if kind == "stored":
        given |= {"levels": NETWORKS // 2, "controls": ["reinit"], "workdir": workdir}
    else:  # whose levels each start from weights of their own
        given |= {"levels": NETWORKS - 1, "rewinding": "learning_rate"}
    tf_lottery.find_ticket(model_of(flavour.keras_module(name), KERNELS[kind]), x, y, **given)


def main():
    kind, name, workdir = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    before, seen, trains = left_over(workdir), [], Trainer.__call__

    def train(self, start):
        trained = trains(self, start)
        trainings.append(start.arm)
        if len(trainings) in (FIRST, NETWORKS):
            seen.append({"resident": resident(), "device": on_device(), "traces": len(traced)})
        return trained

    if kind != "held":  # once is enough to see that XLA's programs stay the same
        loop.prefers_xla = lambda model: False
    trainings, traced, made = [], [], FuncGraph.__init__

    def make(self, *args, **kwargs):
        traced.append(1)
        made(self, *args, **kwargs)

    FuncGraph.__init__ = make
    Trainer.__call__ = train
    search(kind, name, workdir)
    gc.collect()
    json.dump(
        {"seen": seen, "networks": len(trainings), "before": before, "after": left_over(workdir)}, sys.stdout
    )


if __name__ == "__main__":
    main()
