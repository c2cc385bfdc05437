"""Where networks are trained: `tf.distribute` strategies by name."""

import functools
import json
import os
import signal
import sys
import threading
from types import ModuleType
from typing import TYPE_CHECKING

from tf_lottery import names
from tf_lottery.training import rendezvous

if TYPE_CHECKING:  # the names are known without TensorFlow
    import tensorflow as tf

START_SECONDS = 600  # in which all workers have to be there


def make(name: str = "auto", tpu: str = "") -> "tf.distribute.Strategy":
    """Returns a strategy. Models made under its `scope()` are trained on its devices.

    GPUs take memory as they need it from here on. `"multi_worker"` has to come before anything
    else that TensorFlow does in the process.

    Args:
        name: one of `STRATEGIES`: `"default"`, TensorFlow's own, the first GPU or else the CPU;
            `"one_device"`, the same as a strategy; `"mirrored"`, all GPUs of this machine, or its
            logical CPUs; `"multi_worker"`, those of all machines that the environment variable
            TF_CONFIG names; `"tpu"`; or `"auto"`, the largest of these that is there.
        tpu: the TPU's name or address; of this machine's own, `"local"`.

    Raises:
        ValueError: an unknown name, or what it needs is not there; says how to get it.
        ConnectionError: a worker or the TPU cannot be reached.
    """
    import tensorflow as tf

    if tpu and name not in ("auto", "tpu"):
        raise ValueError(
            f"The strategy {name!r} has no use for the TPU {tpu!r}: leave one of them out. With a TPU, the "
            "strategy is 'tpu' by itself."
        )
    return names.find(_by_itself(tf, tpu) if name == "auto" else name, _MAKERS, "strategy")(tf, tpu)


def workers() -> tuple[list[str], int]:
    """Returns the addresses of the processes that TF_CONFIG says train together, and which this one is.

    The chief comes first. Without TF_CONFIG there are none.

    Raises:
        ValueError: TF_CONFIG is not what TensorFlow defines; shows what is.
    """
    try:
        config = json.loads(os.environ.get("TF_CONFIG") or "{}")
        cluster, task = config.get("cluster", {}), config.get("task", {"type": "worker", "index": 0})
        chiefs, others = cluster.get("chief", []), cluster.get("worker", [])
        index = task["index"] + (len(chiefs) if task["type"] == "worker" else 0)
        addresses = [*chiefs, *others]
        if task["type"] not in ("chief", "worker") or not 0 <= index < max(1, len(addresses)):
            raise ValueError(f"the task {task} is not in the cluster")
        if any(not address.rpartition(":")[2].isdecimal() for address in addresses):
            raise ValueError(f"an address without a port among {', '.join(addresses)}")
        return addresses, index
    except (ValueError, AttributeError, TypeError, KeyError) as error:
        raise ValueError(f"TF_CONFIG cannot be used: {error}. Expected: {_TF_CONFIG}") from error


def is_of_workers(name: str, tpu: str = "") -> bool:
    """Whether that strategy, as `make` takes it, is the one of all processes that TF_CONFIG names."""
    return name == "multi_worker" or (name == "auto" and not tpu and len(workers()[0]) > 1)


def _by_itself(tf: ModuleType, tpu: str) -> str:
    if tpu:
        return "tpu"
    if is_of_workers("auto"):
        return "multi_worker"
    return "mirrored" if len(tf.config.list_physical_devices("GPU")) > 1 else "default"


def _default(tf: ModuleType, tpu: str) -> "tf.distribute.Strategy":
    _grow_memory(tf)
    return tf.distribute.get_strategy()


def _one_device(tf: ModuleType, tpu: str) -> "tf.distribute.Strategy":
    _grow_memory(tf)
    return tf.distribute.OneDeviceStrategy("GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0")


@functools.cache  # TensorFlow mixes up what two of them exchange
def _mirrored(tf: ModuleType, tpu: str) -> "tf.distribute.Strategy":
    _grow_memory(tf)
    kind = "GPU" if tf.config.list_physical_devices("GPU") else "CPU"
    return tf.distribute.MirroredStrategy([device.name for device in tf.config.list_logical_devices(kind)])


@functools.cache  # a process can have but one
def _multi_worker(tf: ModuleType, tpu: str) -> "tf.distribute.Strategy":
    addresses, index = workers()
    if len(addresses) < 2:
        raise ValueError(
            "The strategy 'multi_worker' takes the addresses of its workers from the environment: set "
            f"TF_CONFIG in each process, to {_TF_CONFIG}"
        )
    rendezvous.wait_for(addresses, addresses[index], START_SECONDS, _say_who_is_missing)
    _grow_memory(tf)
    heard = signal.getsignal(signal.SIGTERM)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise ValueError(
            f"The strategy 'multi_worker' has to be made before anything else that TensorFlow does: {error}"
        ) from error
    finally:
        # TensorFlow's own handler keeps the process alive.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, heard)


def _say_who_is_missing(addresses: list[str]) -> None:
    print(f"Waiting for the workers {', '.join(addresses)}.", file=sys.stderr, flush=True)


@functools.cache
def _tpu(tf: ModuleType, tpu: str) -> "tf.distribute.Strategy":
    if not tpu:
        raise ValueError(
            "The strategy 'tpu' has to be told which: --tpu=NAME, or on a TPU's own machine --tpu=local."
        )
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        if tpu != "local":
            tf.config.experimental_connect_to_cluster(resolver)
        tf.tpu.experimental.initialize_tpu_system(resolver)
        return tf.distribute.TPUStrategy(resolver)
    except (ValueError, RuntimeError, OSError, tf.errors.OpError) as error:
        raise ConnectionError(f"There is no TPU {tpu!r} to be reached from here: {error}") from error


def _grow_memory(tf: ModuleType) -> None:
    """Lets GPUs be shared: TensorFlow would take all of their memory at once."""
    for gpu in tf.config.list_physical_devices("GPU"):
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except RuntimeError:  # it is in use already
            return


_TF_CONFIG = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}, '
    "with an index of its own in each."
)
_MAKERS = {
    "default": _default,
    "one_device": _one_device,
    "mirrored": _mirrored,
    "multi_worker": _multi_worker,
    "tpu": _tpu,
}
STRATEGIES = ("auto", *_MAKERS)
