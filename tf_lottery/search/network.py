"""What criteria may ask of a network: gradients, its flow, and masks that it learns."""

import contextlib
import functools
from collections.abc import Iterator, Mapping

import numpy as np

from tf_lottery.keras_api import prunable
from tf_lottery.keras_api.masked_model import Arrays, MaskedModel
from tf_lottery.search import flow, gates, gradients
from tf_lottery.tickets import seeds
from tf_lottery.training.inputs import Source

Weights = Mapping[str, np.ndarray]


class KerasNetwork:
    """Computes on a Keras model at given weights and mask, and leaves the model as it was.

    Each method takes `weights`, path -> array of all the network's own variables, and `mask`,
    path -> bool array of the prunable ones, and returns path -> array of the prunable ones' shapes.
    What it returns depends on these and on `key` alone. Afterwards the model's variables, random states,
    optimizer and mask are as before, bit for bit, where the method raises too.

    Args:
        masked: the model.
        train: the training data; None where there are none, which is enough for `flow`.
        key: the examples that are drawn, dropout and the noise of gates depend on it.
        steps: how many steps gates are trained for, where a mask is learned; an attribute too.
        batch_size: examples in such a step; a stream brings its own.
    """

    def __init__(self, masked: MaskedModel, train: Source | None, *, key: tuple, steps: int, batch_size: int):
        self.steps = steps
        self._masked = masked
        self._train = train
        self._key = key
        self._batch_size = batch_size
        self._learners: dict[gates.Gates, gates.Learner] = {}

    def gradient(self, weights: Weights, mask: Weights, examples: int) -> Arrays:
        """Returns the mean gradient of the loss over training examples, at w m.

        The loss is in training mode, that is with the statistics of each batch of up to 1000 examples,
        as SNIP's authors have it (1810.02340), and with regularizers.

        Args:
            weights: see the class.
            mask: see the class. Pruned weights have a gradient too, that at 0.
            examples: how many are drawn at random without replacement; of a stream, the first.

        Raises:
            ValueError: there are no training data, or the loss cannot be computed by the
                model's `compute_loss`.
        """
        batches = self._draw(examples)
        with self._at(weights, mask):
            return gradients.gradient(self._masked, batches)

    def squared_gradient(self, weights: Weights, mask: Weights, examples: int) -> Arrays:
        """Returns the mean over examples of the squared gradient of each one's own loss (1801.05787).

        In inference mode: a single example has no batch statistics. Arguments and errors are
        those of `gradient`.
        """
        batches = self._draw(examples)
        with self._at(weights, mask):
            return self._squared_gradient(batches)

    def hessian_gradient(self, weights: Weights, mask: Weights, examples: int) -> Arrays:
        """Returns H g: the loss's Hessian by the prunable weights times its gradient (2002.07376).

        Both are of the same examples. Pruned weights do not move: their entries of g count as 0.
        Arguments and errors are those of `gradient`.
        """
        batches = self._draw(examples)
        with self._at(weights, mask):
            found = gradients.gradient(self._masked, batches)
        direction = {path: np.where(mask[path], array, 0) for path, array in found.items()}
        with self._at(weights, mask):
            return gradients.hessian_product(self._masked, batches, direction)

    def flow(self, weights: Weights, mask: Weights) -> Arrays:
        """Returns dR/dw of the network of absolute weights, without data (SynFlow, 2006.05467).

        R is the sum of the outputs for an input of ones; activations are linear, batch
        normalization is that of inference, its parameters and statistics absolute too.

        Raises:
            ValueError: the network cannot be scored so; see `search.flow.by_weights`.
        """
        with self._at(flow.absolute(weights), mask):
            return flow.by_weights(self._masked)

    def supermask(self, weights: Weights, mask: Weights) -> Arrays:
        """Returns the logits of a mask that is learned while all weights stay as they are (1905.01067).

        Above 0 where a weight is kept. A gate is open with probability sigmoid(logit). The paper
        trains the logits with SGD of rate 100; here it is Adam of rate 0.1 for `steps` steps.

        Raises:
            ValueError: as `gradient`.
        """
        return self._learn(gates.SUPERMASK, weights, mask)

    def l0(self, weights: Weights, mask: Weights) -> Arrays:
        """Returns log alpha of hard-concrete gates that are learned along with the weights (1712.01312).

        It is shifted to be above 0 exactly where the gate without noise is, where a weight is kept. The
        weights, from `weights` on, are trained by the model's own optimizer, the gates by Adam of
        rate 0.01. What is added to the loss is 5 times the density that is expected.

        Raises:
            ValueError: as `gradient`.
        """
        return self._learn(gates.L0, weights, mask)

    @functools.cached_property
    def _squared_gradient(self) -> gradients.SquaredGradient:
        return gradients.SquaredGradient(self._masked)

    def _learn(self, kind: gates.Gates, weights: Weights, mask: Weights) -> Arrays:
        train = self._looks_at_data()
        state = self._masked.state()
        try:
            with self._at(weights, mask):
                if kind not in self._learners:
                    learner = gates.Learner(
                        kind, self._masked, train, key=self._key, batch_size=self._batch_size
                    )
                    self._learners[kind] = learner
                return self._learners[kind].learn(self.steps)
        finally:
            self._masked.restore(state)  # the optimizer's part of it

    def _draw(self, examples: int) -> list[gradients.Examples]:
        return gradients.draw(self._looks_at_data(), examples, *self._key)

    def _looks_at_data(self) -> Source:
        if self._train is None:
            raise ValueError(
                "This criterion looks at training data: give x and y (find_ticket) or data=(x, y) "
                "(iterative_magnitude_pruning)."
            )
        gradients.check_loss(self._masked.model)
        return self._train

    @contextlib.contextmanager
    def _at(self, weights: Weights, mask: Weights) -> Iterator[None]:
        masked, rng = self._masked, seeds.generator(*self._key, "random states")
        own = {path: slot.variable for path, slot in prunable.slots(masked.model).items()}
        values = {path: np.array(variable.numpy()) for path, variable in own.items()}
        mask_before = masked.mask()
        try:
            masked.set_weights(weights)
            masked.set_mask(mask)
            for path, value in values.items():
                if path.endswith(prunable.SEED):
                    own[path].assign(rng.integers(2**31, size=value.shape).astype(value.dtype))
            yield
        finally:
            masked.set_mask(mask_before)
            for path, value in values.items():
                own[path].assign(value)
            masked.model.reset_metrics()
