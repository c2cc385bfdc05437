"""Standard error without what TensorFlow prints on every machine."""

import contextlib
import os
import re
import sys
from collections.abc import Iterator

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
# What TensorFlow's C++ prints on every machine, or on every one without a GPU.
_NOISE = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog|I0000 |"
    rb"[EW]0000 .*(Unable to register cu|computation placer already registered|"
    rb"failed call to cuInit: .*(\(303\)|CUDA_ERROR_NO_DEVICE))"
)


@contextlib.contextmanager
def dropped() -> Iterator[None]:
    """Drops what TensorFlow prints on every machine while the block imports it and it looks for devices.

    A child process reads standard error meanwhile and passes on everything else, at once:
    also the last words of a TensorFlow that brings this process down.
    """
    if "tensorflow" in sys.modules:
        yield
        return
    given = os.environ.get(_LEVEL)
    os.environ.setdefault(_LEVEL, "2")  # TensorFlow reads it once
    stderr = os.dup(2)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _pass_on(reader, writer, stderr)
    os.close(reader)
    os.dup2(writer, 2)
    os.close(writer)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.waitpid(child, 0)
        if given is None:
            del os.environ[_LEVEL]


def _pass_on(reader: int, writer: int, stderr: int) -> None:
    try:
        os.close(writer)
        with open(reader, "rb") as lines:
            for line in lines:
                if not _NOISE.match(line):
                    os.write(stderr, line)
    finally:
        os._exit(0)
