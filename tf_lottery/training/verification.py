"""Whether all files of a run directory are there, and as they were written."""

import os
from collections.abc import Iterator

from tf_lottery import files, paths
from tf_lottery.training import recorded
from tf_lottery.training.recorded import CONFIG, DELETE, FAILURE, RESULT, TABLE, RunDirectoryError

_READERS = {".safetensors": files.read_tensors, ".json": files.read_json, ".npz": files.read_arrays}
_RECORDS = {RESULT: recorded.read_result, FAILURE: recorded.read_failure}
_OF_A_NETWORK = ("start.safetensors", "end.safetensors", "mask.safetensors", "curves.npz")


def verify(workdir: str | os.PathLike[str]) -> int:
    """Reads every file of a run that is read again, and holds it against the checksum in it.

    `results.csv` is held against the results that it is made of. Figures, times and what is for
    TensorBoard are not looked at: nothing depends on them.

    Returns:
        How many files there are.

    Raises:
        RunDirectoryError: some are damaged or missing; names them all, and what to do about each.
    """
    folder = paths.path(workdir).expanduser()
    table = _table(folder)  # before the results, of which a run that goes on writes more
    found = [path for path in _walk(folder) if path.suffix in _READERS]
    needed = [path.parent / name for path in found if path.name == RESULT for name in _OF_A_NETWORK]
    # A run that goes on removes a checkpoint when its network is finished.
    there = [path for path in dict.fromkeys([*found, *needed]) if path in needed or path.exists()]
    wrong = [line for path in there if (line := _complaint(folder, path))]
    # Of damaged results there are no rows to hold it against.
    wrong += [] if wrong else _complaints_of_table(folder, table)
    if wrong:
        raise RunDirectoryError(
            f"Of {len(found) + 1} files in {str(folder)!r} {len(wrong)} cannot be relied on:\n  "
            + "\n  ".join(wrong)
        )
    return len(found) + 1


def _walk(folder: paths.Path) -> Iterator[paths.Path]:
    """Yields the files below a folder, without hidden ones: locks, and what a dead process left."""
    for path in sorted(folder.glob("*")):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _complaint(folder: paths.Path, path: paths.Path) -> str | None:
    try:
        _READERS[path.suffix](path)
        if path.name in _RECORDS:
            _RECORDS[path.name](path)
        return None
    except (FileNotFoundError, ValueError) as error:
        return f"{str(error).rstrip('.')}. {_remedy(folder, path)}"
    except OSError as error:  # the file itself may be sound
        return f"{str(path)!r} cannot be read: {error.strerror}."


def _remedy(folder: paths.Path, path: paths.Path) -> str:
    if path.parent.parent.parent.parent == folder:  # of a network
        return DELETE.format(str(path.parent))
    if path == folder / CONFIG:
        return "It cannot be made again: choose another workdir."
    return DELETE.format(str(path))


def _table(folder: paths.Path) -> list[bytes] | None:
    path = folder / TABLE
    return path.read_bytes().splitlines() if path.exists() else None


def _complaints_of_table(folder: paths.Path, lines: list[bytes] | None) -> list[str]:
    path, results = folder / TABLE, recorded.results(folder)
    header, *rows = recorded.table(results).encode().splitlines()
    # Between a network and its row a process may be killed: of each replicate one is not in it then.
    late = len({result.replicate for result in results})
    there = [header] if lines is None else lines
    if there[:1] == [header] and set(there[1:]) <= set(rows) and len(rows) - len(there[1:]) <= late:
        return []
    return [f"{str(path)!r} is not what the results make. {DELETE.format(str(path))}"]
