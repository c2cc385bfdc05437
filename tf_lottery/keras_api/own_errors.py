"""Errors of the user's own code, as they were raised there.

What fails in a layer, a loss or a `train_step` comes out of Keras and TensorFlow as another
exception, whose message is longer and whose type may be another. What fails in Python that
TensorFlow calls from a data set or a graph comes out as an error of TensorFlow's.
"""

import ast
import contextlib
import re
import types
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

_REWRITTEN = "in user code:"  # how AutoGraph begins
_FROM_PYTHON = re.compile(
    r"(?P<name>\w+): (?P<message>.*?)\nTraceback \(most recent call last\):\n(?P<trace>.*script_ops\.py.*)",
    re.DOTALL,
)


class undoing:  # noqa: N801 (read as a word of the `with` statement)
    """Undoes on the way out of a block that raises, and raises what the user's code raised.

    A generator that is closed has not failed: nothing is undone.

    Args:
        undo: what to call.
    """

    def __init__(self, undo: Callable[[], None]):
        self._undo = undo

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if error is None or isinstance(error, GeneratorExit):
            return
        found = own(error)
        with beside(found):
            self._undo()
        if found is error:
            return
        before = found.__cause__, found.__context__, found.__suppress_context__
        try:
            raise found
        finally:  # which ends without what was made of it
            found.__cause__, found.__context__, found.__suppress_context__ = before


@contextlib.contextmanager
def beside(error: BaseException | None) -> Iterator[None]:
    """Makes what goes wrong in the block a note of an error that is on its way already, if one is."""
    try:
        yield
    except Exception as further:
        if error is None:
            raise
        error.add_note(f"After it, this went wrong: {type(further).__name__}: {further}")


def own(error: BaseException) -> BaseException:
    """Returns what the user's code raised where `error` was put in its place, else `error`.

    It is the very object, with what Keras and AutoGraph had to say as a note. Only of what TensorFlow called
    from a data set or a graph nothing is left but words: then it is a new one of that type, with that
    message alone, whose cause is `error`.

    Example:
        >>> @tf.function
        ... def step(x):
        ...     raise KeyError("loss")
        >>> try:
        ...     step(1)
        ... except KeyError as error:
        ...     print(str(error).splitlines()[0], own(error).args)
        in user code: ('loss',)
    """
    found = error
    while (inner := _inside(found)) is not None:
        found = inner
    if isinstance(found, tf.errors.OpError):
        return _told(found) or error
    if found is not error and not _is_stop(error):
        found.add_note(str(error))
    return found


def _inside(error: BaseException) -> BaseException | None:
    """Returns what `error` was put in the place of."""
    inner = error.__context__
    if _is_stop(error):
        return error.__cause__
    if inner is None or error.__cause__ is not None or not error.__suppress_context__:
        return None
    by_keras = "_keras_call_info_injected" in vars(error)
    by_autograph = all(hasattr(e, "ag_error_metadata") for e in (error, inner)) and _REWRITTEN in str(error)
    return inner if by_keras or by_autograph else None


def _is_stop(error: BaseException) -> bool:
    """Whether a generator, which may not raise StopIteration, has raised this in its place."""
    return isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration)


def _told(error: tf.errors.OpError) -> BaseException | None:
    """Returns what TensorFlow tells of an error in Python that it called; None if it tells of none."""
    told = _FROM_PYTHON.search(error.message)
    if told is None:
        return None
    name, message = told["name"], told["message"]
    # The traceback ends with the full name, which tells apart classes of one name.
    ends = re.findall(rf"\n\n((?:\S+\.)?{name})(?=: |\n)", told["trace"])
    kinds = {kind for kind in _subclasses(BaseException) if _full_name(kind) == ends[-1]} if ends else set()
    if len(kinds) != 1:
        return None
    kind = kinds.pop()
    arguments = _arguments(kind, message)
    try:
        # Not by its own __init__, which may ask for more than there is.
        found = kind.__new__(kind, *arguments)
        str(found)
    except Exception:
        return None
    found.__cause__ = error
    return found


def _full_name(kind: type) -> str:
    module = kind.__module__
    return kind.__qualname__ if module in ("builtins", "__main__") else f"{module}.{kind.__qualname__}"


def _subclasses(kind: type) -> Iterator[type]:
    for subclass in type.__subclasses__(kind):
        yield subclass
        yield from _subclasses(subclass)


def _arguments(kind: type[BaseException], message: str) -> tuple[Any, ...]:
    """Returns the arguments of which Python makes the message."""
    try:
        literal = ast.literal_eval(message)
    except (ValueError, SyntaxError):
        return (message,) if message else ()
    if kind.__str__ is KeyError.__str__ and not isinstance(literal, tuple):
        return (literal,)  # whose message is how a key is written
    several = isinstance(literal, tuple) and len(literal) > 1 and repr(literal) == message
    return literal if several else (message,)
