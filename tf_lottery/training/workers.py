"""The processes that train one network together, each with its own devices: the chief and the others.

All of them run the same program and take the same decisions from the same numbers. What
only one of them can know, what a run directory holds and when the next checkpoint is due,
the chief knows, and tells the others.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.numpy
import tensorflow as tf

from tf_lottery import paths
from tf_lottery.training import identity
from tf_lottery.training.arms import Arrays, Start, Trained
from tf_lottery.training.history import Failure, History
from tf_lottery.training.progress import Progress
from tf_lottery.training.replicas import Replicas
from tf_lottery.training.runs import ReplicateStore

_DESCRIBED = "described"
_BLOCK = 2**16  # int32 numbers that are told at once


class Workers:
    """Who trains with this process.

    Args:
        strategy: that of the model.

    Attributes:
        count: how many processes there are.
        index: which this one is, from 0 on.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self._strategy = strategy
        self.count, self.index = 1, 0
        if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy) and strategy.cluster_resolver:
            cluster, task = strategy.cluster_resolver.cluster_spec(), strategy.cluster_resolver
            chiefs = len(cluster.task_indices("chief")) if "chief" in cluster.jobs else 0
            self.count = chiefs + len(cluster.task_indices("worker"))
            self.index = (chiefs if task.task_type == "worker" else 0) + task.task_id
        self._sum = tf.function(self._sum)

    @property
    def is_chief(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def told(self, known: Callable[[], bytes]) -> bytes:
        """Returns on every worker what `known` returns on the chief, where alone it is called."""
        if self.count == 1:
            return known()
        message = known() if self.is_chief else b""
        length = int(self._block(np.array([len(message)], np.int64).view(np.int32))[:2].view(np.int64)[0])
        numbers = np.frombuffer(message + bytes(-len(message) % 4), np.int32)
        blocks = [self._block(numbers[i : i + _BLOCK]) for i in range(0, -(-length // 4), _BLOCK)]
        return b"".join(block.tobytes() for block in blocks)[:length]

    def agree(self, settings: Mapping[str, Any]) -> None:
        """Looks whether all workers have the same settings, as JSON can hold them.

        Raises:
            ValueError: this one has others than the chief; shows the difference.
        """
        if self.count == 1:
            return
        own = json.dumps(settings)
        differences = identity.differences(
            json.loads(self.told(lambda: own.encode())), json.loads(own), extendable=()
        )
        if differences:
            raise ValueError(
                "The chief, the first of the workers, was started with other settings than this one:\n  "
                + "\n  ".join(differences)
                + "\nStart all workers with the same command."
            )

    def share(self, store: ReplicateStore | None, replicate: int) -> "ReplicateStore | SharedStore":
        """Returns the chief's store for all workers; of a single process, its own.

        Args:
            store: that of the chief; None on the others.
            replicate: 1-based, the number of the store.
        """
        return store if self.count == 1 else SharedStore(self, store, replicate)

    def follow(self, stores: Iterator[ReplicateStore]) -> "Iterator[ReplicateStore | SharedStore]":
        """Yields for all workers, one after the other, what the chief takes from `stores`."""
        while True:
            store = next(stores, None) if self.is_chief else None
            number = int(self.told(lambda store=store: b"%d" % (store.replicate if store else 0)))
            if not number:
                return
            yield self.share(store, number)

    def _block(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the chief's numbers, with zeros up to a block."""
        block = np.zeros(_BLOCK, np.int32)
        block[: len(numbers)] = numbers if self.is_chief else 0
        placed = Replicas(self._strategy).place(lambda replica: np.zeros_like(block) if replica else block)
        return self._sum(placed).numpy()

    def _sum(self, placed: Any) -> tf.Tensor:
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, placed, axis=None)


class SharedStore:
    """A `trainer.Store` that the chief has, and that answers every worker.

    Args:
        workers: who is told.
        store: that of the chief; None on the others.
        replicate: 1-based.
    """

    def __init__(self, workers: Workers, store: ReplicateStore | None, replicate: int):
        self.replicate = replicate
        self._workers = workers
        self._store = store

    def file(self, start: Start, name: str) -> paths.Path:
        """Returns where a file of a network is to be written; on the chief alone."""
        return self._store.file(start, name)

    def initial(self, state: Arrays) -> Arrays:
        """Returns the initial state that the chief keeps, which is `state` at first."""
        return self._told(lambda: Progress(self._store.initial(state), History()), state).state

    def load(self, start: Start) -> Trained | None:
        def known() -> Progress | None:
            trained = self._store.load(start)
            return trained and Progress(trained.final, trained.history, trained.snapshots)

        found = self._told(known, start.state)
        return found and Trained(start, found.state, found.history, found.snapshots)

    def failure(self, start: Start) -> Failure | None:
        def known() -> bytes:
            failure = self._store.failure(start)
            return json.dumps(dataclasses.asdict(failure)).encode() if failure else b""

        told = self._workers.told(known)
        return Failure(**json.loads(told)) if told else None

    def save_failure(self, failure: Failure) -> None:
        if self._store:
            self._store.save_failure(failure)

    def load_progress(self, start: Start) -> Progress | None:
        return self._told(lambda: self._store.load_progress(start), start.state)

    def wants_progress(self) -> bool:
        # Every worker has to read the model's variables then, for some are spread over all.
        return bool(self._workers.told(lambda: b"yes" if self._store.wants_progress() else b""))

    def save_progress(self, start: Start, progress: Progress) -> None:
        if self._store:
            self._store.save_progress(start, progress)

    def save(self, trained: Trained) -> None:
        if self._store:
            self._store.save(trained)

    def _told(self, known: Callable[[], Progress | None], like: Arrays) -> Progress | None:
        message = self._workers.told(lambda: _packed(known()))
        return Progress.of(*_unpacked(message), like) if message else None


def _packed(progress: Progress | None) -> bytes:
    if progress is None:
        return b""
    tensors, described = progress.tensors()
    return safetensors.numpy.save(
        {**tensors, _DESCRIBED: np.frombuffer(json.dumps(described).encode(), np.uint8)}
    )


def _unpacked(message: bytes) -> tuple[Arrays, dict[str, Any]]:
    tensors = safetensors.numpy.load(message)
    return tensors, json.loads(tensors.pop(_DESCRIBED).tobytes())
