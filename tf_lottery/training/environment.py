"""What a run is made with: versions, machine and process."""

import contextlib
import os
import platform
import socket
from importlib import metadata
from typing import Any

_PACKAGES = ("tf_lottery", "tensorflow", "keras", "tf_keras", "tensorflow-model-optimization", "numpy")


def describe() -> dict[str, Any]:
    """Returns versions, platform, host and process, as JSON can hold them."""
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
