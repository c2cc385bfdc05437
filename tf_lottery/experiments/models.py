"""From a config to the model that is trained: network, optimizer, loss and masks."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

from tf_lottery import names
from tf_lottery.experiments import augmentation, datasets, learning_rates, networks
from tf_lottery.experiments.config import ExperimentConfig, TrainConfig
from tf_lottery.keras_api import flavour
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.tickets import seeds

_NOT_BY_NAME = ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")  # these are made of others


def build(config: ExperimentConfig, data: datasets.Data) -> MaskedModel:
    """Builds and compiles the network of an experiment, in TF-MOT's wrappers where it is of tf_keras.

    Args:
        config: the experiment, as `config.validate` allows it.
        data: its data; the network has their shape and classes.

    Raises:
        ValueError: the network, its initializer or the optimizer cannot be made.
    """
    keras, train = flavour.keras_module(config.flavour), config.train
    with flavour.precision(keras, train.precision):
        return MaskedModel(_compiled(config, data, keras))


def _compiled(config: ExperimentConfig, data: datasets.Data, keras: ModuleType) -> Any:
    train, front = config.train, None
    if train.augment == "crop_flip":
        front = augmentation.crop_flip(keras)(seeds.seed(config.seed, "augment"), name="augment")
    model = networks.build(
        config.network.name,
        keras,
        data.shape,
        data.classes,
        config.network.initializer,
        train.weight_decay,
        front,
    )
    if config.flavour == "tf_keras":
        from tf_lottery.keras_api import tfmot_wrappers

        model = tfmot_wrappers.wrap(model)
    model.compile(
        optimizer=optimizer(train, keras),
        loss=loss(train, keras, data.classes),
        metrics=["accuracy"],
    )
    return model


def plain(config: ExperimentConfig, data: datasets.Data) -> Any:
    """Builds the network of an experiment for inference alone: a Keras model that needs no tf_lottery.

    It has the layers and paths of `build`'s, and neither wrappers and masks nor augmentation, penalties and
    an initializer of its own; it computes in float32, as which all weights are kept.

    Args:
        config: the experiment.
        data: its data; the network has their shape and classes.
    """
    keras = flavour.keras_module(config.flavour)
    with flavour.precision(keras, "float32"):
        return networks.build(config.network.name, keras, data.shape, data.classes)


def loss(train: TrainConfig, keras: ModuleType, classes: int) -> Callable[[Any, Any], Any]:
    """Returns the loss of a config: crossentropy of labels, from 0 on, and logits."""
    smoothing = train.label_smoothing
    if not smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def smoothed_crossentropy(labels: Any, logits: Any) -> Any:
        import tensorflow as tf

        targets = tf.one_hot(tf.cast(tf.reshape(labels, [-1]), tf.int32), classes)
        return keras.losses.categorical_crossentropy(
            targets, logits, from_logits=True, label_smoothing=smoothing
        )

    return smoothed_crossentropy


def optimizer(train: TrainConfig, keras: ModuleType) -> Any:
    """Makes the optimizer of a config, with its learning-rate schedule where there is one.

    Raises:
        ValueError: Keras has no optimizer of that name.
    """
    classes = {
        key.lower(): cls
        for key, cls in vars(keras.optimizers).items()
        if isinstance(cls, type) and issubclass(cls, keras.optimizers.Optimizer) and key not in _NOT_BY_NAME
    }
    cls = names.find(train.optimizer, classes, "optimizer")
    rate = train.learning_rate
    if train.warmup_steps or train.decay_steps:
        schedule = learning_rates.warmup_and_decay(keras)
        rate = schedule(rate, train.warmup_steps, train.decay_steps, train.decay_factor)
    return cls(learning_rate=rate, **({"momentum": train.momentum} if train.momentum else {}))
