"""A run directory: every trained network of a search, so that it can go on and be looked at."""

import contextlib
import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from tf_lottery import files, paths
from tf_lottery.tickets import masks
from tf_lottery.training import environment, identity, locks, recorded
from tf_lottery.training.arms import Arrays, Start, Trained
from tf_lottery.training.history import SEARCH, TICKET, Failure
from tf_lottery.training.progress import Progress, by_step, in_order, snapshots_of
from tf_lottery.training.recorded import CONFIG, DELETE, FAILURE, RESULT, TABLE, RunDirectoryError, explaining

_CHECKPOINT, _SNAPSHOTS, _START = "checkpoint.safetensors", "snapshots.safetensors", "start.safetensors"
_A_LOOK = 0.2  # seconds


class InUseError(RunDirectoryError):
    """Other processes work on all of a run that there is to work on."""

    def __init__(self, workdir: paths.Path, holders: str):
        super().__init__(
            f"{str(workdir)!r} is in use by another run ({holders}). Wait for it, or choose another workdir."
        )


class RunDirectory:
    """The folder of one run, which several processes may work in: each on replicates of its own.

    Args:
        path: the folder, on any filesystem that TensorFlow reads; made where there is none.
        config: what determines the results, as JSON can hold it. A folder that was
            made with another one is refused.
        extendable: dotted names of entries that may grow, for they only add networks
            to a run, such as `"prune.levels"`.
        checkpoint_seconds: how often an unfinished training is written down.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        config: Mapping[str, Any],
        *,
        extendable: Collection[str] = (),
        checkpoint_seconds: float = 20.0,
    ):
        self.path = paths.path(path).expanduser()
        self.checkpoint_seconds = checkpoint_seconds
        self.last_written = time.monotonic()
        self._config = json.loads(json.dumps(config))
        self._extendable = extendable

    def check(self) -> None:
        """Looks whether the folder can be opened; changes nothing in it.

        Raises:
            RunDirectoryError: it belongs to another config, or it is no folder.
        """
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"{str(self.path)!r} is a file. Choose another workdir.")
        self._check_config()

    def open(self) -> "RunDirectory":
        """Makes the folder, or goes on in it; refuses it as `check` does."""
        files.make_folder(self.path)
        with locks.alone(self.path):
            self._check_config()
            _remove_leftovers(self.path, "", "figures/")
            files.write_json(self.path / "environment.json", environment.describe())
            files.write_json(self.path / CONFIG, self._config)
        return self

    def replicate(self, number: int) -> "ReplicateStore":
        """Returns the store of a 1-based replicate."""
        return ReplicateStore(self, number)

    def write_results(self) -> None:
        """Writes results.csv anew: a header, then one row per finished network."""
        with locks.alone(self.path):  # so that who writes last has seen all
            _remove_leftovers(self.path, "")
            files.write_text(self.path / TABLE, recorded.table(recorded.results(self.path)))

    def _check_config(self) -> None:
        path = self.path / CONFIG
        if not path.exists():
            if any(self.path.glob("replicate_*")):
                raise RunDirectoryError(
                    f"{str(self.path)!r} holds networks, but no config.json that says of which run. "
                    "Choose another workdir."
                )
            return
        with explaining("Choose another workdir."):
            differences = identity.differences(files.read_json(path), self._config, self._extendable)
        if differences:
            raise RunDirectoryError(
                f"{str(self.path)!r} belongs to a run with another config:\n  "
                + "\n  ".join(differences)
                + "\nChoose another workdir, or the config of that run."
            )


class ReplicateStore:
    """Keeps and finds the trained networks of one replicate: a `trainer.Store`."""

    def __init__(self, run: RunDirectory, replicate: int):
        self._run = run
        self.replicate = replicate
        self.path = run.path / f"replicate_{replicate}"
        self._is_lost: Callable[[], bool] = lambda: False

    @contextlib.contextmanager
    def claimed(self) -> Iterator["ReplicateStore"]:
        """Has the replicate for the time of the block; no other process works on it meanwhile.

        Raises:
            InUseError: another process works on it.
        """
        files.make_folder(self.path)
        with contextlib.ExitStack() as stack:
            try:
                # The time that another process takes to look who has it.
                self._is_lost = stack.enter_context(locks.held(self.path / locks.LOCK, wait=_A_LOOK))
            except locks.InUse as error:
                raise InUseError(self._run.path, error.holder) from error
            _remove_leftovers(self.path, "", "level_*/*/")
            for path in (*self._find(_CHECKPOINT), *self._find(FAILURE)):
                if path.with_name(RESULT).exists():
                    path.unlink()
            yield self

    def holder(self) -> str | None:
        """Returns which process works on it, if any."""
        return locks.holder(self.path / locks.LOCK)

    def sign_of_life(self) -> float | None:
        """Returns when the process that works on it last showed that it lives; None if none does."""
        return locks.sign_of_life(self.path / locks.LOCK)

    def holds(self, networks: Iterable[tuple[int, str]]) -> bool:
        """Whether all these networks, of a level and an arm each, are trained, or will never be.

        Those that were given up will not, nor those of levels whose mask would have come from one of them.
        """
        given_up = {(failure.level, failure.arm) for failure in recorded.failures_in(self.path)}
        # A ticket is pruned to the mask of the next level; arm `search` is trained for that of its own.
        ends = [level + (arm == TICKET) for level, arm in given_up if arm in (TICKET, SEARCH)]
        due = (network for network in networks if network[0] < min(ends, default=math.inf))
        return all(network in given_up or (self._folder(*network) / RESULT).exists() for network in due)

    def initial(self, state: Arrays) -> Arrays:
        """Returns the initial state kept here; keeps `state` where there is none yet."""
        path = self.path / "initial.safetensors"
        if path.exists():
            with explaining("The run cannot go on without it: choose another workdir."):
                return in_order(files.read_tensors(path)[0], state)
        files.write_tensors(path, state, None)
        return state

    def file(self, start: Start, name: str) -> paths.Path:
        """Returns where a file of a network is to be written.

        Raises:
            RunDirectoryError: as of `save`.
        """
        self._check_writable()
        return self._folder(start.level, start.arm) / name

    def _folder(self, level: int, arm: str) -> paths.Path:
        return self.path / f"level_{level:02d}" / arm

    def _find(self, name: str) -> Iterator[paths.Path]:
        return self.path.glob(f"level_*/*/{name}")

    def failure(self, start: Start) -> Failure | None:
        """Returns why the network was given up, if it was."""
        path = self._folder(start.level, start.arm) / FAILURE
        return recorded.read_failure(path) if path.exists() else None

    def save_failure(self, failure: Failure) -> None:
        self._check_writable()
        folder = self._folder(failure.level, failure.arm)
        entries = {**dataclasses.asdict(failure), "replicate": self.replicate}
        (folder / _CHECKPOINT).unlink(missing_ok=True)
        files.write_json(folder / FAILURE, entries)

    def load(self, start: Start) -> Trained | None:
        from tf_lottery.keras_api.masked_model import network_weights

        folder = self._folder(start.level, start.arm)
        if not (folder / RESULT).exists():
            return None
        snapshots = folder / _SNAPSHOTS
        with explaining(DELETE.format(str(folder))):
            mask, _ = files.read_tensors(folder / "mask.safetensors")
            trained = Trained(
                start,
                files.read_tensors(folder / "end.safetensors")[0],
                recorded.read_history(folder),
                snapshots_of(files.read_tensors(snapshots)[0], start.state) if start.snapshots else {},
            )
            began, _ = files.read_tensors(folder / _START)
        for what, same in (
            ("mask", masks.equal(mask, start.mask)),
            ("start", masks.equal(began, network_weights(start.masked_state))),
        ):
            if not same:
                raise RunDirectoryError(
                    f"The {what} in {str(folder)!r} is not the one that this run comes to. Choose another "
                    "workdir."
                )
        return trained

    def load_progress(self, start: Start) -> Progress | None:
        path = self._folder(start.level, start.arm) / _CHECKPOINT
        if not path.exists():
            return None
        with explaining(DELETE.format(str(path))):
            return Progress.of(*files.read_tensors(path), start.state)

    def wants_progress(self) -> bool:
        return time.monotonic() - self._run.last_written >= self._run.checkpoint_seconds

    def save_progress(self, start: Start, progress: Progress) -> None:
        files.write_tensors(self.file(start, _CHECKPOINT), *progress.tensors())
        self._run.last_written = time.monotonic()

    def save(self, trained: Trained) -> None:
        """Writes a network's files, result.json last: its presence says that all is there.

        Raises:
            RunDirectoryError: the folder is gone, or another process may have taken the replicate over.
        """
        from tf_lottery.keras_api.masked_model import network_weights

        self._check_writable()
        folder, history = self._folder(trained.start.level, trained.start.arm), trained.history
        start = network_weights(trained.start.masked_state)
        files.write_tensors(folder / _START, start, None)
        files.write_tensors(folder / "end.safetensors", trained.final, None)
        # The file has its tensors in an order of its own; what looks at layers wants the network's.
        files.write_tensors(folder / "mask.safetensors", trained.start.mask, list(trained.start.mask))
        if trained.snapshots:
            files.write_tensors(folder / _SNAPSHOTS, by_step(trained.snapshots), None)
        curves = {name: np.array(curve) for name, curve in history.curves.items()}
        numbers = {"steps": np.array(history.steps), "classes_predicted": np.array(history.classes_predicted)}
        files.write_arrays(folder / "curves.npz", {**numbers, **curves})
        result = dataclasses.asdict(trained.result(self.replicate))
        # JSON knows no NaN.
        files.write_json(folder / RESULT, {k: None if v != v else v for k, v in result.items()})
        for name in (_CHECKPOINT, FAILURE):
            (folder / name).unlink(missing_ok=True)
        self._run.write_results()
        self._run.last_written = time.monotonic()

    def _check_writable(self) -> None:
        """Looks whether the folder is still there, and this process's, before it is written in.

        Raises:
            RunDirectoryError: it is not.
        """
        if not (self._run.path / CONFIG).exists():
            raise RunDirectoryError(
                f"The run directory {str(self._run.path)!r} was removed while it was worked in. Bring it "
                "back, or start the same command again: it makes it anew."
            )
        if self._is_lost():
            raise RunDirectoryError(
                f"This process was not heard of for minutes, and others may have taken {str(self.path)!r} "
                "over for that of a dead one. Start the same command again: it goes on from what is done."
            )


def _remove_leftovers(folder: paths.Path, *parts: str) -> None:
    """Removes what a process that was killed left half-written."""
    for part in parts:
        for path in folder.glob(part + files.TEMPORARY):
            path.unlink()
