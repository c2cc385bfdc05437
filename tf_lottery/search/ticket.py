"""A ticket: which weights are kept, and what they start from."""

import dataclasses
import hashlib
import json
import os
from typing import Any

import numpy as np

from tf_lottery import files
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays, Mask

_FORMAT = "tf_lottery.ticket.1"
_MASK, _WEIGHTS = "mask/", "weights/"


@dataclasses.dataclass(frozen=True)
class Ticket:
    """A subnetwork and the weights to train it from (1803.03635).

    Attributes:
        mask: path -> bool array, True where a weight is kept.
        weights: path -> array, every variable of the network at `rewind_step`.
            Pruned weights are there too; `mask` says which count.
        level: how often the network was pruned.
        rewind_step: the training step that `weights` are of; 0 is initialization.
        method: how it was found, such as `"iterative pruning, criterion magnitude"`.
        verdict: one sentence on how it does beside the dense network.
        history: one dict per trained network of the search, as in results.csv.
    """

    mask: Mask
    weights: Arrays
    level: int
    rewind_step: int = 0
    method: str = ""
    verdict: str = ""
    history: tuple[dict[str, Any], ...] = ()

    def __post_init__(self) -> None:
        masks.check(self.mask)
        for path, array in self.mask.items():
            if path not in self.weights or np.shape(self.weights[path]) != np.shape(array):
                raise ValueError(
                    f"A ticket needs weights of shape {np.shape(array)} for its mask of {path!r}."
                )

    @property
    def density(self) -> float:
        """Kept / prunable, in [0, 1]."""
        return masks.density(self.mask)

    def apply(self, model: Any) -> Any:
        """Masks a compiled Keras model of either flavour and sets its weights to the ticket's.

        Returns:
            `model`, which keeps its zeros while it trains.

        Raises:
            ValueError: the ticket does not fit; names every layer that differs. The
                model keeps the weights that it had.
        """
        from tf_lottery.keras_api.masked_model import MaskedModel

        masked = MaskedModel(model)
        try:
            masked.set_weights(self.weights)
            masked.set_mask(self.mask)
        except ValueError:
            masked.restore(masked.fresh_state)
            raise
        masked.reset_optimizer()
        return model

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file: masks, weights, and the rest as metadata."""
        tensors = {_MASK + name: array for name, array in self.mask.items()}
        tensors.update({_WEIGHTS + name: np.asarray(array) for name, array in self.weights.items()})
        described = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("mask", "weights")
        }
        digest = _digest(tensors, described)
        files.write_tensors(path, tensors, {"format": _FORMAT, "digest": digest, **described})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Reads what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or is no ticket.
        """
        tensors, described = files.read_tensors(path)
        if not isinstance(described, dict) or described.pop("format", None) != _FORMAT:
            raise ValueError(f"{os.fspath(path)!r} is no ticket: its format is not {_FORMAT!r}.")
        if described.pop("digest", None) != _digest(tensors, described):
            raise ValueError(f"{os.fspath(path)!r} is damaged: its digest is not that of its content.")
        try:
            described["history"] = tuple(described["history"])
            return cls(mask=_under(_MASK, tensors), weights=_under(_WEIGHTS, tensors), **described)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{os.fspath(path)!r} is no ticket: {error}") from error


def _digest(tensors: Arrays, described: dict[str, Any]) -> str:
    """SHA-256 of names, types, shapes and values: one byte that changes on the disk is found."""
    sha = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        sha.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _under(prefix: str, tensors: Arrays) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
