"""How fast training is, measured side by side: `python tools/benchmark.py COMMAND [--FLAG=VALUE ...]`.

  speed    who takes how long for a step: this loop, Keras, TF-MOT, PyTorch, matrix products alone
  scaling  the same as width and batch grow: this loop, Keras, matrix products alone
  masking  what masks cost: masked and dense in one process, in short turns
  xla      networks of each kind with XLA and without, beside what the loop chooses on this machine
  search   a whole search by the driver: seconds for each level, and what they are spent on

Contenders take turns, each in a process of its own; ratios are of one round each, their medians and
quartiles over all. A table is printed, and --json=FILE writes all numbers. PyTorch and
lottery-ticket-pruner take part where they are installed: pip install -e '.[benchmark]'.

The paper's whole protocol on MNIST, from a folder with its four IDX files:

  python tools/benchmark.py search --steps=50000 --data=DIR --notest_curves
"""

import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app, flags
from benchmarks import masking, search, speed, works, xla

_WORK = flags.DEFINE_enum("work", "lenet", list(works.WORKS), "speed, masking: the network.")
_ROUNDS = flags.DEFINE_integer("rounds", 15, "all but search: turns of each.", lower_bound=1)
_WIDTHS = flags.DEFINE_multi_integer(
    "width", [100, 300, 1000, 3000], "scaling: units, at batch 60.", lower_bound=1
)
_BATCHES = flags.DEFINE_multi_integer(
    "batch", [16, 256, 1024, 4096], "scaling: examples, at 300 units.", lower_bound=1
)
_LEVELS = flags.DEFINE_integer("levels", 20, "search: prunings.", lower_bound=1)
_STEPS = flags.DEFINE_integer("steps", 2000, "search: training steps of each network.", lower_bound=100)
_DATA = flags.DEFINE_string("data", "", "search: folder with MNIST's IDX files; empty for images at random.")
_TEST_CURVES = flags.DEFINE_bool("test_curves", True, "search: evaluate the test data each time as well.")
_FLAVOUR = flags.DEFINE_enum("flavour", "tf_keras", ["tf_keras", "keras"], "search: the Keras of the model.")
_WORKDIR = flags.DEFINE_string("workdir", "", "search: where the run is kept; empty for nowhere.")
_JSON = flags.DEFINE_string("json", "", "File to write all numbers to.")

_SCALING = ("tf_lottery", "Keras fit", "products, OpenBLAS", "products, XLA")
_PACKAGES = (
    "tensorflow",
    "keras",
    "tf_keras",
    "tensorflow-model-optimization",
    "torch",
    "lottery-ticket-pruner",
    "numpy",
)


def _speed() -> tuple[dict[str, Any], str]:
    report = speed.measure(_WORK.value, _ROUNDS.value)
    return report, speed.text(report)


def _scaling() -> tuple[dict[str, Any], str]:
    sizes = [(width, 60) for width in _WIDTHS.value] + [(300, batch) for batch in _BATCHES.value]
    reports = [speed.measure(f"mlp:{width}:{batch}", _ROUNDS.value, _SCALING) for width, batch in sizes]
    return {"sizes": reports}, "\n\n".join(map(speed.text, reports))


def _masking() -> tuple[dict[str, Any], str]:
    report = masking.measure(_WORK.value, _ROUNDS.value)
    return report, masking.text(report)


def _xla() -> tuple[dict[str, Any], str]:
    report = xla.measure(_ROUNDS.value)
    return report, xla.text(report)


def _search() -> tuple[dict[str, Any], str]:
    with tempfile.TemporaryDirectory() as temporary:
        report = search.measure(
            _WORKDIR.value or temporary,
            _DATA.value,
            levels=_LEVELS.value,
            steps=_STEPS.value,
            test_curves=_TEST_CURVES.value,
            flavour=_FLAVOUR.value,
        )
    return report, search.text(report)


_COMMANDS: dict[str, Callable[[], tuple[dict[str, Any], str]]] = {
    "speed": _speed,
    "scaling": _scaling,
    "masking": _masking,
    "xla": _xla,
    "search": _search,
}


def _machine() -> dict[str, Any]:
    with open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def main(words: list[str]) -> None:
    if len(words) != 2 or words[1] not in _COMMANDS:
        raise app.UsageError(f"Name one command: {', '.join(_COMMANDS)}.")
    try:
        machine = _machine()
        if _JSON.value:  # what cannot be written is said before the work, which may take an hour
            open(_JSON.value, "a").close()
        report, text = _COMMANDS[words[1]]()
        versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
        print(f"{text}\n\n{machine['processor']}, {machine['cores']} cores; {versions}", flush=True)
        if _JSON.value:
            with open(_JSON.value, "w") as file:
                json.dump({"machine": machine, **report}, file, indent=2)
    except (ValueError, OSError) as error:
        sys.exit(f"benchmark: {error}")


if __name__ == "__main__":
    app.run(main)
