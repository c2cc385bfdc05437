"""Calls the library in a process of its own, and prints as JSON what of the process each call changed.

What a library does to its own modules when it is imported, such as new loggers, is not looked at.
"""

import contextlib
import json
import logging
import os
import pathlib
import random
import signal
import sys
import threading
import warnings

import numpy as np

changed = {}


def state():
    """What is global to the process, as far as it is imported, by name."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    found = {
        "random": random.getstate(),
        "numpy": repr(np.random.get_state()),
        "numpy errors": np.geterr(),
        "environment": dict(os.environ),
        "level": os.environ.get("TF_CPP_MIN_LOG_LEVEL"),
        "filters": list(warnings.filters),
        "signals": handlers,
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "root logger": (logging.root.level, list(logging.root.handlers)),
    }
    modules = sys.modules
    if "absl.flags" in modules:
        found["flags"] = sorted(modules["absl.flags"].FLAGS)
    if "matplotlib" in modules:
        found["matplotlib"] = dict(modules["matplotlib"].rcParams)
    if "matplotlib.pyplot" in modules:
        pyplot = modules["matplotlib.pyplot"]
        found["pyplot"] = [(n, len(pyplot.figure(n).axes)) for n in pyplot.get_fignums()]
    if "tf_keras" in modules and "keras" in modules:
        found |= keras_state(modules["tensorflow"], modules["keras"], modules["tf_keras"])
    levels = {name: logging.getLogger(name).level for name in list(logging.root.manager.loggerDict)}
    return {**found, **{f"logger {name}": level for name, level in levels.items() if level}}


def keras_state(tf, keras, tf_keras):
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context

    seeds = getattr(tf_keras.src.backend._SEED_GENERATOR, "generator", None)
    return {
        "seed of TensorFlow": (context.context()._seed, _state_of(getattr(context.context(), "_rng", None))),
        "generator of TensorFlow": tf.random.get_global_generator().state.numpy().tolist(),
        "eager": (tf.config.functions_run_eagerly(), tf.executing_eagerly(), tf.distribute.has_strategy()),
        "jit": (tf.config.optimizer.get_jit(), repr(tf.config.optimizer.get_experimental_options())),
        "seed of keras": keras.config.random_seed() if hasattr(keras.config, "random_seed") else None,
        "seeds of keras": keras.src.random.seed_generator.global_seed_generator().state.numpy().tolist(),
        "seeds of tf_keras": _state_of(seeds),
        "meaning of tf.keras": tf.keras.__version__,
        **{
            f"tracked by keras: {k}": repr(v)
            for k, v in vars(global_state.GLOBAL_STATE_TRACKER).items()
            if "uids" not in k
        },
        **{
            f"settings of {module.__name__}": (
                module.mixed_precision.global_policy().name,
                module.backend.floatx(),
                module.backend.image_data_format(),
                module.backend.epsilon(),
            )
            for module in (keras, tf_keras)
        },
        "backend": keras.backend.backend(),
    }


def _state_of(generator):
    return None if generator is None else generator.getstate()


@contextlib.contextmanager
def looked_at(name, only=None):
    """Notes what the block, which may raise, changes; only some of it where its imports change more."""
    before = state()
    with contextlib.suppress(KeyError, ValueError, SystemExit):
        yield
    after = state()
    changed[name] = [what for what in after if what in before and after[what] != before[what]]
    changed[name] += [what for what in after if what not in before and what.startswith("logger ")]
    if only:
        changed[name] = [what for what in changed[name] if what in only]


def command(workdir):
    """Before TensorFlow is imported."""
    from tf_lottery import cli

    signal.signal(signal.SIGTERM, lambda *_: None)
    words = [
        "run",
        f"--workdir={workdir / 'digits'}",
        "--config.train.steps=4",
        "--config.train.eval_every_steps=2",
    ]
    words += ["--config.prune.levels=1", "--config.network.name=mlp:8"]
    with looked_at("tf-lottery run, wrong"):
        cli.main([*words, "--config.train.steps=-1"])
    with looked_at("tf-lottery run", only=("signals", "threads", "streams", "folder", "numpy", "level")):
        assert cli.main(words) == 0
        ran.append("run")


def unusual(tf, keras, tf_keras):
    """Makes settings that are nobody's default."""
    for module in (keras, tf_keras):
        module.utils.set_random_seed(3)
        module.backend.set_epsilon(1e-6)
        module.backend.set_image_data_format("channels_first")
        module.mixed_precision.set_global_policy("mixed_bfloat16")
    keras_state(tf, keras, tf_keras)  # some of it is made, and drawn, when it is asked for
    import matplotlib.pyplot as plt

    plt.rcParams["lines.linewidth"] = 3.5
    plt.figure(7)
    np.seterr(over="ignore")
    warnings.filterwarnings("error", message="nobody says this")


@contextlib.contextmanager
def drawn_apart():
    """Takes back what a user's model draws for its weights."""
    generators = random, getattr(sys.modules["tf_keras"].src.backend._SEED_GENERATOR, "generator", random)
    before = [generator.getstate() for generator in generators]
    yield
    for generator, state_before in zip(generators, before):
        generator.setstate(state_before)


def build(keras, fails=False):
    class Layer(keras.layers.Layer):
        def call(self, x):
            if fails:
                raise KeyError("fails")
            return x

    inputs = keras.layers.Input((8,), dtype="float32")
    layers = [keras.layers.Dense(8, "relu"), keras.layers.Dropout(0.1), Layer(), keras.layers.Dense(3)]
    tensor, fails_now = inputs, fails
    fails = False
    for layer in layers:
        tensor = layer(tensor)
    model, fails = keras.Model(inputs, tensor), fails_now
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def calls(keras, workdir):
    import tf_lottery

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(120, 8)).astype(np.float32), rng.integers(0, 3, 120)
    name, short = keras.__name__, {"steps": 4, "eval_every": 2, "verbose": 0}
    model, others = build(keras), [build(keras) for _ in range(3)]
    with looked_at(f"{name}: find_ticket"):
        given = {"levels": 1, "controls": ["reinit"], "workdir": workdir / name}
        ticket = tf_lottery.find_ticket(model, x, y, **given, **short)
        ran.append(name)
    failing = build(keras, fails=True)
    with looked_at(f"{name}: find_ticket, which raises"):
        tf_lottery.find_ticket(failing, x, y, **short)
        ran.append("what cannot be")
    with looked_at(f"{name}: find_ticket without data"):
        tf_lottery.find_ticket(others.pop(), levels=1, verbose=0)
        ran.append(name)
    with looked_at(f"{name}: Ticket"):
        ticket.plot()
        ticket.save(workdir / "ticket")
        tf_lottery.Ticket.load(workdir / "ticket").apply(others.pop())
        ran.append(name)
    with looked_at(f"{name}: masks"):
        tf_lottery.prune(ticket.mask, ticket.weights, dict.fromkeys(ticket.mask, 0.1))
        tf_lottery.apply_mask(tf_lottery.strip(model), ticket.mask)
        list(tf_lottery.iterative_magnitude_pruning(others.pop(), lambda model: None, levels=1))
        ran.append(name)
    with looked_at(f"{name}: TicketTuner"):

        def space(hp):
            hp.Choice("a", [1, 2])
            with drawn_apart():
                return build(keras)

        options = {"options": lambda hp: {"layer_fractions": {}}, "trials": 1, "target_density": 0.85}
        tf_lottery.TicketTuner(space, workdir=workdir / f"{name}_tuned", **options).search(x, y, **short)
        ran.append(name)


ran = []


def main():
    workdir = pathlib.Path(sys.argv[1])
    command(workdir)
    import keras
    import tensorflow as tf
    import tf_keras

    from tf_lottery.training import loop

    loop.prefers_xla = lambda model: False  # which takes seconds to compile
    unusual(tf, keras, tf_keras)
    tf.keras.__version__  # noqa: B018 (which it is bound to at its first use)
    for module in (keras, tf_keras):
        calls(module, workdir)
    import tf_lottery

    model = build(tf_keras)
    with looked_at("wrap"):
        tf_lottery.wrap(model)
        ran.append("wrap")
    print(json.dumps({"ran": ran, "changed": changed}))


if __name__ == "__main__":
    main()
