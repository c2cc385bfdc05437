"""A run directory: every trained network of a search, so that it can go on and be looked at."""

import contextlib
import csv
import dataclasses
import io
import json
import os
import pathlib
import platform
import socket
import time
from collections.abc import Collection, Iterator, Mapping
from importlib import metadata
from typing import Any

import filelock
import numpy as np

from tf_lottery import files
from tf_lottery.keras_api.masked_model import network_weights
from tf_lottery.training.arms import Arrays, Start, Trained
from tf_lottery.training.history import TICKET, History, Result
from tf_lottery.training.trainer import Progress

_PACKAGES = ("tf_lottery", "tensorflow", "keras", "tf_keras", "tensorflow-model-optimization", "numpy")
_STATE, _SNAPSHOT, _CURVE = "state/", "snapshot/", "curve/"


class RunDirectoryError(ValueError):
    """A run directory that cannot be used: in use, of another run, or damaged."""


class RunDirectory:
    """The folder of one run, locked while it is open.

    Args:
        path: the folder; made where there is none.
        config: what determines the results, as JSON can hold it. A folder that was
            made with another one is refused.
        extendable: dotted names of entries that may differ: those that only add
            networks to a run, such as `"prune.levels"`.
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
        self.path = pathlib.Path(path).expanduser()
        self._checkpoint_seconds = checkpoint_seconds
        self._last_checkpoint = time.monotonic()
        self._config = json.loads(json.dumps(config))
        self._extendable = extendable

    @contextlib.contextmanager
    def open(self) -> Iterator["RunDirectory"]:
        """Takes the folder for this process.

        Raises:
            RunDirectoryError: another process has it, or it belongs to another config.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(self.path / ".lock")
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise RunDirectoryError(
                f"{str(self.path)!r} is in use by another run ({self._holder()}). Wait for it, or choose "
                "another --workdir."
            ) from None
        try:
            self._check_config()
            self._remove_leftovers()
            files.write_json(self.path / "config.json", self._config)
            files.write_json(self.path / "environment.json", _environment())
            yield self
        finally:
            lock.release()

    def replicate(self, number: int) -> "ReplicateStore":
        """Returns the store of a 1-based replicate."""
        return ReplicateStore(self, number)

    def wants_checkpoint(self) -> bool:
        return time.monotonic() - self._last_checkpoint >= self._checkpoint_seconds

    def checkpoint_written(self) -> None:
        self._last_checkpoint = time.monotonic()

    def write_results(self) -> None:
        """Writes results.csv anew from every finished network."""
        files.write_text(self.path / "results.csv", results_csv(load_results(self.path)))

    def _check_config(self) -> None:
        path = self.path / "config.json"
        if not path.exists():
            return
        before, now = _flat(json.loads(path.read_text())), _flat(self._config)
        differences = [
            f"  {name}: {before.get(name)!r} there, {now.get(name)!r} now"
            for name in dict.fromkeys([*before, *now])
            if before.get(name) != now.get(name) and name not in self._extendable
        ]
        if differences:
            raise RunDirectoryError(
                f"{str(self.path)!r} belongs to a run with another config:\n" + "\n".join(differences) + "\n"
                "Choose another --workdir, or the config of that run."
            )

    def _remove_leftovers(self) -> None:
        # Files half-written by a process that was killed.
        for path in self.path.rglob(files.TEMPORARY):
            path.unlink()

    def _holder(self) -> str:
        try:
            held = json.loads((self.path / "environment.json").read_text())
            return f"process {held['pid']} on {held['host']}"
        except (OSError, ValueError, KeyError):
            return "it does not say which"


class ReplicateStore:
    """Keeps and finds the trained networks of one replicate: a `trainer.Store`."""

    def __init__(self, run: RunDirectory, replicate: int):
        self._run = run
        self.replicate = replicate
        self.path = run.path / f"replicate_{replicate}"

    def initial(self, state: Arrays) -> Arrays:
        """Returns the initial state kept here; keeps `state` where there is none yet."""
        path = self.path / "initial.safetensors"
        if path.exists():
            return files.read_tensors(path)[0]
        files.write_tensors(path, state, None)
        return state

    def folder(self, start: Start) -> pathlib.Path:
        return self.path / f"level_{start.level:02d}" / start.arm

    def load(self, start: Start) -> Trained | None:
        folder = self.folder(start)
        if not (folder / "result.json").exists():
            return None
        mask, _ = files.read_tensors(folder / "mask.safetensors")
        if any(not np.array_equal(mask[path], array) for path, array in start.mask.items()):
            raise RunDirectoryError(f"The mask in {str(folder)!r} is not the one that this run comes to.")
        curves = files.read_arrays(folder / "curves.npz")
        snapshot = folder / "snapshot.safetensors"
        return Trained(
            start,
            files.read_tensors(folder / "end.safetensors")[0],
            History(
                [int(step) for step in curves.pop("steps")],
                {name: curve.tolist() for name, curve in curves.items()},
            ),
            files.read_tensors(snapshot)[0] if snapshot.exists() else None,
        )

    def load_progress(self, start: Start) -> Progress | None:
        path = self.folder(start) / "checkpoint.safetensors"
        if not path.exists():
            return None
        tensors, steps = files.read_tensors(path)
        curves = {name: curve.tolist() for name, curve in _under(_CURVE, tensors).items()}
        snapshot = _under(_SNAPSHOT, tensors)
        return Progress(_under(_STATE, tensors), History(steps, curves), snapshot or None)

    def wants_progress(self) -> bool:
        return self._run.wants_checkpoint()

    def save_progress(self, start: Start, progress: Progress) -> None:
        tensors = {_STATE + name: array for name, array in progress.state.items()}
        tensors |= {_SNAPSHOT + name: array for name, array in (progress.snapshot or {}).items()}
        tensors |= {_CURVE + name: np.array(curve) for name, curve in progress.history.curves.items()}
        path = self.folder(start) / "checkpoint.safetensors"
        files.write_tensors(path, tensors, progress.history.steps)
        self._run.checkpoint_written()

    def save(self, trained: Trained) -> None:
        """Writes a network's files, result.json last: its presence says that all is there."""
        folder, history = self.folder(trained.start), trained.history
        start = network_weights(trained.start.masked_state)
        files.write_tensors(folder / "start.safetensors", start, None)
        files.write_tensors(folder / "end.safetensors", trained.final, None)
        files.write_tensors(folder / "mask.safetensors", trained.start.mask, None)
        if trained.snapshot is not None:
            files.write_tensors(folder / "snapshot.safetensors", trained.snapshot, None)
        curves = {name: np.array(curve) for name, curve in history.curves.items()}
        files.write_arrays(folder / "curves.npz", {"steps": np.array(history.steps), **curves})
        files.write_json(folder / "result.json", dataclasses.asdict(trained.result(self.replicate)))
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        self._run.write_results()
        self._run.checkpoint_written()


def load_results(workdir: str | os.PathLike[str]) -> list[Result]:
    """Returns the results of a run's finished networks by replicate and level, tickets first."""
    found = pathlib.Path(workdir).glob("replicate_*/level_*/*/result.json")
    results = [Result(**json.loads(path.read_text())) for path in found]
    return sorted(results, key=lambda r: (r.replicate, r.level, r.arm != TICKET, r.arm))


def results_csv(results: list[Result]) -> str:
    """Returns the text of results.csv: a header, then one row per trained network."""
    text = io.StringIO()
    columns = [field.name for field in dataclasses.fields(Result)]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(dataclasses.asdict(result) for result in results)
    return text.getvalue()


def _under(prefix: str, tensors: Arrays) -> Arrays:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(config, dict):
        return {prefix: config}
    return {
        name: value
        for key, entry in config.items()
        for name, value in _flat(entry, f"{prefix}.{key}" if prefix else key).items()
    }


def _environment() -> dict[str, Any]:
    versions = {}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
