"""Lottery tickets in Keras: find them, keep them, and hold them against controls.

    ticket = tf_lottery.find_ticket(model, x, y, epochs=20, levels=10)

Importing this module imports no TensorFlow; what is used from it does.
"""

import importlib
from types import ModuleType
from typing import Any

import wrapt

__version__ = "0.1.0"

_HOMES = {
    "CONTROLS": "tf_lottery.tickets.controls",
    "CRITERIA": "tf_lottery.tickets.scores",
    "REWINDINGS": "tf_lottery.tickets.rewinding",
    "Rewinding": "tf_lottery.tickets.rewinding",
    "SCHEDULES": "tf_lottery.search.schedules",
    "SCOPES": "tf_lottery.tickets.allocation",
    "Ticket": "tf_lottery.search.ticket",
    "TicketTuner": "tf_lottery.search.ticket_tuner",
    "apply_mask": "tf_lottery.keras_api.masked_model",
    "compact": "tf_lottery.keras_api.compaction",
    "density": "tf_lottery.tickets.masks",
    "find_ticket": "tf_lottery.search.find_ticket",
    "iterative_magnitude_pruning": "tf_lottery.search.imp",
    "prune": "tf_lottery.tickets.pruning",
    "strip": "tf_lottery.keras_api.holding",
    "wrap": "tf_lottery.keras_api.tfmot_wrappers",
}

__all__ = sorted(_HOMES)

# Module -> the function that tells a Keras of the class that files ask it for.
_IN_FILES = {
    "keras_api.holding": "register",
    "experiments.augmentation": "crop_flip",
    "experiments.initializers": "signed_constant",
    "experiments.learning_rates": "warmup_and_decay",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tf_lottery' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


@wrapt.when_imported("keras")
@wrapt.when_imported("tf_keras")
def _register(keras: ModuleType) -> None:
    """Lets `load_model` bring back masks and what else is ours, whichever of the two is imported first."""
    for module, register in _IN_FILES.items():
        getattr(importlib.import_module(f"tf_lottery.{module}"), register)(keras)
