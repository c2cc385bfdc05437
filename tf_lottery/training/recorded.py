"""What a run directory holds, to be looked at: its trained networks, finished or not yet all."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tf_lottery import files, paths
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.history import SEARCH, TICKET, Failure, History, Result

DELETE = "Delete {!r}: the same command makes it again."
RESULT, FAILURE, CONFIG, TABLE = "result.json", "failure.json", "config.json", "results.csv"
TUNING = "tuning.json"  # beside the run directories of a tuning's trials

Path = str | os.PathLike[str]


class RunDirectoryError(ValueError):
    """A run directory that cannot be used: in use, of another run, damaged, or none at all."""


@dataclasses.dataclass(frozen=True)
class Recorded:
    """A trained network in a run directory. Its arrays are read from the files at each call.

    Attributes:
        folder: where its files are.
        result: its row of results.csv.
        shapes: path -> shape of the kernels, as the first mask that is read has them: the same for all
            networks of a run.

    Raises:
        RunDirectoryError: a file is missing or damaged; names it.
    """

    folder: paths.Path
    result: Result
    shapes: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    def mask(self) -> Arrays:
        """Returns path -> bool array, True where a weight is kept, in the network's order."""
        with explaining(DELETE.format(str(self.folder))):
            tensors, order = files.read_tensors(self.folder / "mask.safetensors")
            mask = {path: tensors[path] for path in order}
            masks.check(mask)
            shapes = {path: array.shape for path, array in mask.items()}
            self.shapes.update({} if self.shapes else shapes)
            if self.shapes != shapes:
                raise ValueError(f"The mask in {str(self.folder)!r} is of other layers than the others.")
            return mask

    def start(self) -> Arrays:
        """Returns path -> array, every variable before training, with pruned weights at 0 (or frozen)."""
        return self._tensors("start")

    def end(self) -> Arrays:
        """Returns path -> array, every variable after the last step."""
        return self._tensors("end")

    def history(self) -> History:
        """Returns the metrics on the evaluation grid."""
        with explaining(DELETE.format(str(self.folder))):
            return read_history(self.folder)

    def _tensors(self, name: str) -> Arrays:
        if not self.shapes:
            self.mask()
        path = self.folder / f"{name}.safetensors"
        with explaining(DELETE.format(str(self.folder))):
            tensors, _ = files.read_tensors(path)
            for kernel, shape in self.shapes.items():
                array = tensors.get(kernel)
                if array is None or array.shape != shape or "float" not in array.dtype.name:
                    raise ValueError(f"{str(path)!r} has no weights {kernel!r} of shape {shape}.")
            return tensors


def networks(workdir: Path) -> list[Recorded]:
    """Returns a run's finished networks by replicate and level, tickets first.

    Raises:
        RunDirectoryError: a result is damaged; names the file.
    """
    found, shapes = paths.path(workdir).glob(f"replicate_*/level_*/*/{RESULT}"), {}
    return sorted((Recorded(path.parent, read_result(path), shapes) for path in found), key=_place)


def compared(workdir: Path) -> list[Recorded]:
    """Returns what `networks` does without those that were trained only to find a mask.

    Raises:
        RunDirectoryError: a result is damaged; names the file.
    """
    return [network for network in networks(workdir) if network.result.arm != SEARCH]


def results(workdir: Path) -> list[Result]:
    """Returns the results of a run's finished networks by replicate and level, tickets first.

    Raises:
        RunDirectoryError: a result is damaged; names the file.
    """
    return [network.result for network in networks(workdir)]


def failures(workdir: Path) -> list[Failure]:
    """Returns the networks of a run that were given up, by replicate and level.

    Raises:
        RunDirectoryError: what tells of one is damaged; names the file.
    """
    folders = paths.path(workdir).glob("replicate_*")
    found = (failure for folder in folders for failure in failures_in(folder))
    return sorted(found, key=lambda failure: (failure.replicate, failure.level, failure.arm))


def failures_in(replicate: paths.Path) -> Iterator[Failure]:
    """Yields the networks of one replicate, by its folder, that were given up and not trained since.

    Raises:
        RunDirectoryError: as of `failures`.
    """
    for path in replicate.glob(f"level_*/*/{FAILURE}"):
        if not path.with_name(RESULT).exists():
            yield read_failure(path)


def table(results: Iterable[Result]) -> str:
    """Returns results as CSV: a header, then a row for each."""
    columns = [field.name for field in dataclasses.fields(Result)]
    return files.csv_text(columns, map(dataclasses.asdict, results))


def runs_in(workdir: Path) -> dict[str, paths.Path]:
    """Returns name -> run directory: of a study its experiments, of a run itself by the name `""`.

    Raises:
        RunDirectoryError: there is no run.
    """
    folder = paths.path(workdir).expanduser()
    if (folder / CONFIG).exists():
        return {"": folder}
    found = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))}
    if not found:
        raise RunDirectoryError(
            f"There is no run in {str(folder)!r}: a run directory holds a {CONFIG}. Name the workdir of "
            "'tf-lottery run' or of find_ticket."
        )
    return found


def config(workdir: Path) -> dict[str, Any]:
    """Returns what determines a run's results.

    Raises:
        RunDirectoryError: the file is missing or damaged.
    """
    with explaining("It cannot be made again: choose another workdir."):
        return files.read_json(paths.path(workdir).expanduser() / CONFIG)


def read_history(folder: paths.Path) -> History:
    """Reads the curves of one network.

    Raises:
        FileNotFoundError: there are none.
        ValueError: the file is damaged, or holds no curves.
    """
    path = folder / "curves.npz"
    curves = files.read_arrays(path)
    steps, classes = (curves.pop(name, np.array([])) for name in ("steps", "classes_predicted"))
    is_grid = (
        steps.dtype.kind == "i" and steps.ndim == 1 and steps.size and (np.diff(steps, prepend=-1) > 0).all()
    )
    fit = all(curve.dtype.kind == "f" and curve.shape == steps.shape for curve in curves.values())
    if not is_grid or not fit or np.isnan(curves.get("validation/loss", math.nan)).all():
        raise ValueError(f"{str(path)!r} holds no curves over ascending steps, with a validation loss.")
    if classes.dtype.kind != "i" or classes.ndim or classes < 0:
        raise ValueError(f"{str(path)!r} does not say how many classes were predicted.")
    return History(steps.tolist(), {name: curve.tolist() for name, curve in curves.items()}, int(classes))


@contextlib.contextmanager
def explaining(remedy: str) -> Iterator[None]:
    """Says what to do about a file that is missing, damaged or not what it should be."""
    try:
        yield
    except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDirectoryError(f"{error} {remedy}") from error


def _place(network: Recorded) -> tuple:
    result = network.result
    return result.replicate, result.level, result.arm != TICKET, result.arm


def read_result(path: paths.Path) -> Result:
    """Reads the result of one network.

    Raises:
        RunDirectoryError: it is damaged, or of another network than its folder.
    """
    with explaining(DELETE.format(str(path.parent))):
        return _in_place(Result.of(files.read_json(path)), path)


def read_failure(path: paths.Path) -> Failure:
    """Reads why a network was given up.

    Raises:
        RunDirectoryError: it is damaged, or of another network than its folder.
    """
    with explaining(DELETE.format(str(path.parent))):
        return _in_place(Failure.of(files.read_json(path)), path)


def _in_place(read: Result | Failure, path: paths.Path) -> Any:
    """Returns what was read of a network, if it is of the one whose folder it lies in."""
    place = f"replicate_{read.replicate}", f"level_{read.level:02d}", read.arm
    if place != (path.parent.parent.parent.name, path.parent.parent.name, path.parent.name):
        raise ValueError(f"{str(path)!r} is of another network: {'/'.join(place)!r}.")
    return read
