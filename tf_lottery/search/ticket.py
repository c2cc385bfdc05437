"""A ticket: which weights are kept, and what they start from."""

import contextlib
import dataclasses
import json
import os
import reprlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_lottery import files
from tf_lottery.analysis import tables
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays, Mask
from tf_lottery.training.history import Result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMAT = "tf_lottery.ticket.1"
_MASK, _WEIGHTS = "mask/", "weights/"


@dataclasses.dataclass(frozen=True)
class Ticket:
    """A subnetwork and the weights to train it from (1803.03635).

    Attributes:
        mask: path -> bool array of the kernel's shape, True where a weight is kept.
        weights: path -> array, every variable of the network at `rewind_step`.
            Pruned weights are there too; `mask` says which count.
        level: how often the network was pruned, 0 or more.
        rewind_step: the training step that `weights` are of; 0 is initialization.
        method: how it was found, such as `"iterative pruning by magnitude, scope layer"`.
        verdict: one sentence on how it does beside the dense network.
        history: one dict per trained network of the search, as in results.csv.
        provenance: what made it, such as versions, seed and settings; what JSON can hold.

    Raises:
        TypeError: the mask holds other things than bools.
        ValueError: a mask does not fit its weights, or a field is of the wrong type.

    Example:
        >>> kernel = np.array([[0.5, -0.1], [0.2, 0.3]], np.float32)
        >>> ticket = Ticket({"fc/kernel": abs(kernel) >= 0.3}, {"fc/kernel": kernel}, level=1)
        >>> ticket.density
        0.5
    """

    mask: Mask
    weights: Arrays
    level: int
    rewind_step: int = 0
    method: str = ""
    verdict: str = ""
    history: tuple[dict[str, Any], ...] = ()
    provenance: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        masks.check(self.mask)
        for path, array in self.mask.items():
            if path not in self.weights or np.shape(self.weights[path]) != np.shape(array):
                raise ValueError(
                    f"A ticket needs weights of shape {np.shape(array)} for its mask of {path!r}."
                )
        for name, (expected, fits) in _DESCRIPTION.items():
            if not fits(value := getattr(self, name)):
                received = f"{reprlib.repr(value)}, of type {type(value).__name__}"
                raise ValueError(f"The {name} of a ticket is {expected}. Received: {received}.")
        object.__setattr__(self, "history", tuple(self.history))
        object.__setattr__(self, "provenance", dict(self.provenance))

    @property
    def density(self) -> float:
        """Kept / prunable, in [0, 1]."""
        return masks.density(self.mask)

    def apply(self, model: Any, *, mask_only: bool = False) -> Any:
        """Makes a Keras model of either flavour this ticket: masked, with the ticket's weights.

        Args:
            model: a built model, of the flavour that the ticket was found on or of the
                other one. It may be compiled before or after; its optimizer starts anew.
            mask_only: leaves the model its own weights, with what the mask prunes at 0.

        Returns:
            `model`, which keeps its zeros while it trains.

        Raises:
            ValueError: the ticket does not fit; names every layer that differs. The
                model is as it was.
        """
        from tf_lottery.keras_api import masked_model, matching

        weights = {path: array for path, array in self.weights.items() if masked_model.is_weight(path)}
        shapes = {path: np.shape(array) for path, array in weights.items()}
        expected = masked_model.weight_shapes(model)
        mask = matching.renamed(self.mask, shapes, expected)
        masked = masked_model.MaskedModel(model, asked=mask)
        with masked.undone_on_error():
            if not mask_only:
                masked.set_weights(matching.renamed(weights, shapes, expected))
            # What the ticket says nothing of is kept whole, whatever was masked before.
            masked.set_mask({**masks.ones(masked.shapes), **mask})
            masked.reset_optimizer()
        return model

    def summary(self) -> str:
        """Returns what the ticket is, its layers, the search that found it and its verdict, as text.

        Example:
            >>> kernels = {"fc1/kernel": np.eye(4, 3), "fc2/kernel": np.ones((3, 2))}
            >>> ticket = Ticket({path: w != 0 for path, w in kernels.items()}, kernels, 3, method="hand")
            >>> print(ticket.summary())
            Ticket of level 3: keeps 9 of 18 prunable weights (50.00 %), rewound to step 0 (initialization).
            Found by hand.
            <BLANKLINE>
            layer       shape  kept  of  density %
            fc1/kernel    4x3     3  12      25.00
            fc2/kernel    3x2     6   6     100.00
            total                 9  18      50.00
        """
        results = self._results()
        parts = [
            self._headline(),
            tables.layer_table(self.mask),
            tables.table(results) if results else "",
            self.verdict,
        ]
        return "\n\n".join(filter(None, parts))

    def plot(self) -> "Figure":
        """Draws all that the ticket knows.

        The search, where `history` tells of one; the density of each layer; the distribution of the
        weights that are kept, beside that of all; the numbers of them that go into a unit and out of one.

        Returns:
            A figure that pyplot does not know of: notebooks show it, `figure.savefig("ticket.png")`
            writes it, and nobody has to close it.

        Example:
            >>> ticket = Ticket({"fc/kernel": np.eye(3) > 0}, {"fc/kernel": np.eye(3)}, level=1)
            >>> ticket.plot().axes[0].get_xlabel()
            'weights kept (%)'
        """
        from tf_lottery.analysis.figures.ticket import plot_ticket

        return plot_ticket(self.mask, self.weights, self._results(), self._headline())

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes one safetensors file: masks, weights, and the rest as metadata.

        Args:
            path: the file, local or such as `"gs://bucket/lenet.ticket"`, whose folder is made.
                One that is there is replaced at once. The same ticket makes the same bytes.

        Raises:
            ValueError: an array is of a type that safetensors does not have, or `history`
                or `provenance` holds what JSON cannot.
            OSError: the file cannot be written.
        """
        tensors = {_MASK + name: array for name, array in self.mask.items()}
        tensors.update({_WEIGHTS + name: np.asarray(array) for name, array in self.weights.items()})
        try:
            # As they are read again: tuples are lists then, and all keys strings.
            described = json.loads(json.dumps({name: getattr(self, name) for name in _DESCRIPTION}))
            described["paths"] = list(self.weights)  # in the network's order, which the file has not
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(
                f"A ticket's history and provenance hold what JSON can: {error}. "
                "Convert arrays with .tolist(), and NumPy's numbers with .item()."
            ) from error
        files.write_tensors(path, tensors, {"format": _FORMAT, **described})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Ticket":
        """Reads what `save` wrote. Nothing in the file is executed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or is no ticket.
        """
        tensors, described = files.read_tensors(path)
        try:
            if not isinstance(described, dict) or described.pop("format", None) != _FORMAT:
                raise ValueError(f"its format is not {_FORMAT!r}.")
            if others := [name for name in tensors if not name.startswith((_MASK, _WEIGHTS))]:
                raise ValueError(f"{reprlib.repr(others)} are neither masks nor weights.")
            mask, weights = _under(_MASK, tensors), _under(_WEIGHTS, tensors)
            order = described.pop("paths", list(weights))
            is_names = isinstance(order, list) and all(isinstance(path, str) for path in order)
            if not is_names or sorted(order) != sorted(weights):
                raise ValueError("its paths are not those of its weights.")
            ordered = {path: weights[path] for path in order}
            return cls({p: mask.pop(p) for p in order if p in mask} | mask, ordered, **described)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"Cannot load a ticket from {os.fspath(path)!r}: {error}") from error

    def _headline(self) -> str:
        kept, of = masks.kept(self.mask), sum(np.size(array) for array in self.mask.values())
        start = f"step {self.rewind_step}" + ("" if self.rewind_step else " (initialization)")
        return (
            f"Ticket of level {self.level}: keeps {kept:,} of {of:,} prunable weights "
            f"({100 * self.density:.2f} %), rewound to {start}."
            + (self.method and f"\nFound by {self.method}.")
        )

    def _results(self) -> list[Result]:
        """Returns the rows of `history` that are results: a ticket made by hand may have others."""
        found, fields = [], Result.__dataclass_fields__
        for row in self.history:
            if fields.keys() <= row.keys():
                with contextlib.suppress(ValueError):
                    found.append(Result.of({name: row[name] for name in fields}))
        return found


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(row, dict) for row in value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


# The fields that are not arrays: what each has to be, for people and as a check.
_DESCRIPTION = {
    "level": ("an int of 0 or more", _is_count),
    "rewind_step": ("an int of 0 or more", _is_count),
    "method": ("a string", _is_text),
    "verdict": ("a string", _is_text),
    "history": ("a tuple of dicts, one for each trained network", _is_rows),
    "provenance": ("a mapping", _is_mapping),
}


def _under(prefix: str, tensors: Arrays) -> dict[str, np.ndarray]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
