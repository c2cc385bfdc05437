"""The folder of a tuning: whose it is, what was searched, and that one process at a time has it."""

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tf_lottery import files, paths
from tf_lottery.training import identity, locks, recorded
from tf_lottery.training.recorded import RunDirectoryError, explaining

_LOCK, _REFERENCE_LOCK = ".tuning.lock", ".reference.lock"
_EXTENDABLE = ("trials",)  # more of them may be asked for later


class TuningDirectory:
    """The folder in which the run directories of trials lie.

    Args:
        path: the folder, on any filesystem that TensorFlow reads; made once it is opened.

    Raises:
        RunDirectoryError: it is a file, or a bucket, or holds a run.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = paths.path(path).expanduser().absolute()
        if not self.path.parent.name and isinstance(self.path, paths.RemotePath):
            raise RunDirectoryError(f"{str(self.path)!r} is a bucket. Name a folder in it.")
        if self.path.exists() and not self.path.is_dir():
            raise RunDirectoryError(f"{str(self.path)!r} is a file. Choose another workdir.")
        if (self.path / recorded.CONFIG).exists():
            raise RunDirectoryError(f"{str(self.path)!r} holds a run. Choose another workdir.")

    def check(self, settings: Mapping[str, Any]) -> None:
        """Looks whether a tuning of these settings can go on here; changes nothing.

        Raises:
            RunDirectoryError: the folder belongs to a tuning of other settings.
        """
        path = self.path / recorded.TUNING
        if not path.exists():
            return
        with explaining("Choose another workdir."):
            now = json.loads(json.dumps(settings))
            differences = identity.differences(files.read_json(path), now, _EXTENDABLE)
        if differences:
            raise RunDirectoryError(
                f"{str(self.path)!r} belongs to another tuning:\n  "
                + "\n  ".join(differences)
                + "\nChoose another workdir, or what that tuning was called with."
            )

    @contextlib.contextmanager
    def open(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Takes the folder for this process.

        Raises:
            RunDirectoryError: another process has it, or as `check`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locks.held(self.path / _LOCK))
            except locks.InUse as error:
                raise RunDirectoryError(
                    f"{str(self.path)!r} is in use by another tuning ({error.holder}). Wait for it, or "
                    "choose another workdir; for several processes, set KERASTUNER_TUNER_ID, _ORACLE_IP and "
                    "_ORACLE_PORT in each."
                ) from error
            self.check(settings)
            files.write_json(self.path / recorded.TUNING, settings)
            yield

    def one_at_a_time(self) -> contextlib.AbstractContextManager[Callable[[], bool]]:
        """Waits for the lock to train the reference under: the next process finds it done."""
        return locks.held(self.path / _REFERENCE_LOCK, wait=math.inf)


def described(space: Any) -> dict[str, Any]:
    """Returns the hyperparameters of a KerasTuner space by name, as JSON can hold them.

    Example:
        >>> import keras_tuner
        >>> hp = keras_tuner.HyperParameters()
        >>> _ = hp.Choice("scope", ["layer", "global"])
        >>> described(hp)["scope"]["values"]
        ['layer', 'global']
    """
    found: dict[str, Any] = {}
    for entry in space.get_config()["space"]:
        config = dict(entry["config"])
        name = config.pop("name")
        while name in found:  # on several conditions
            name += "'"
        found[name] = {"kind": entry["class_name"], **config}
    return found
