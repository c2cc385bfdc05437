"""Finding a thing by its name, with an error that helps."""

import difflib
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
_LONGEST = 100  # bytes; most filesystems have 255, and some is put behind it


def find(name: str, table: Mapping[str, T], kind: str) -> T:
    """Returns `table[name]`.

    Args:
        name: what the user asked for.
        table: name -> thing.
        kind: the word for such a thing in the error, such as `"criterion"`.

    Raises:
        ValueError: there is no such name; says which is closest and which there are.

    Example:
        >>> find("magnitud", {"magnitude": 1, "random": 2}, "criterion")
        Traceback (most recent call last):
            ...
        ValueError: Unknown criterion 'magnitud'. Did you mean 'magnitude'? There are: magnitude, random.
    """
    if not isinstance(name, str) or name not in table:
        raise ValueError(unknown(name, table, kind))
    return table[name]


def name_of(function: Callable[..., Any], kind: str) -> str:
    """Returns the name that a user's function goes by in files and tables.

    Raises:
        TypeError: it has none, as a `functools.partial` has none.
        ValueError: no folder can have that name.
    """
    name = getattr(function, "__name__", None)
    if name is None:
        raise TypeError(f"A {kind} goes by its name, and {function!r} has no __name__: write a def for it.")
    return of_folder(name, kind)


def of_folder(name: str, kind: str) -> str:
    """Returns `name`, if a folder of that name lies where it is made, and in no other folder.

    Raises:
        ValueError: it is empty, longer than 100 bytes, begins with a dot, or has a slash or what cannot
            be printed.

    Example:
        >>> of_folder("../../etc", "control")
        Traceback (most recent call last):
            ...
        ValueError: A control has a folder of its name: 1 to 100 printable letters without '/', and no dot \
first. Received '../../etc'.
    """
    plain = isinstance(name, str) and name.isprintable() and "/" not in name and name[:1] not in ("", ".")
    if not plain or len(name.encode()) > _LONGEST:
        raise ValueError(
            f"A {kind} has a folder of its name: 1 to {_LONGEST} printable letters without '/', and no dot "
            f"first. Received {reprlib.repr(name)}."
        )
    return name


def unknown(name: str, known: Iterable[str], kind: str) -> str:
    """Returns the message for an unknown name: what is closest, and what there is."""
    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"Unknown {kind} {name!r}.{hint} There are: {', '.join(known)}."
