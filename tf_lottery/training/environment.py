"""What a run is made with: versions, machine and process."""

import contextlib
import os
import platform
import socket
import sys
from importlib import metadata
from typing import Any

_PACKAGES = ("tensorflow", "keras", "tf_keras", "tensorflow-model-optimization", "numpy")


def versions() -> dict[str, str]:
    """Returns package -> version, of Python too; without packages that are not installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    # What runs may be a source tree that is not installed, beside another that is.
    return found | {"tf_lottery": sys.modules["tf_lottery"].__version__}


def describe() -> dict[str, Any]:
    """Returns versions, platform, host and process, as JSON can hold them."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
    }
