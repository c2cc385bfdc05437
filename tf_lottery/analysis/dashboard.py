"""How TensorBoard lays out a search: the columns and rows of HParams, the charts of Custom Scalars."""

import math
import re
from collections.abc import Collection, Iterable, Mapping

from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import summary as custom_scalar
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2, summary_v2

from tf_lottery.training.history import Result

_KINDS = {
    str: api_pb2.DATA_TYPE_STRING,
    bool: api_pb2.DATA_TYPE_BOOL,
    int: api_pb2.DATA_TYPE_FLOAT64,
    float: api_pb2.DATA_TYPE_FLOAT64,
}
_METRICS = (
    "early_stop_step",
    "test_accuracy_at_early_stop",
    "final_test_accuracy",
    "final_validation_accuracy",
    "final_training_accuracy",
    "min_validation_loss",
    "test_accuracy_before_training",
)


def metrics(result: Result) -> dict[str, float]:
    """Returns name -> value of what is measured on a network, in the order of HParams' columns."""
    values = {name: getattr(result, name) for name in _METRICS}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def row(result: Result, settings: Mapping[str, str | float]) -> Summary:
    """Returns the proto that makes a network's run a row of HParams, whose metrics are `result/<name>`."""
    # Without a name of its own a row goes by its run, which is unique.
    return summary_v2.hparams_pb({**_place(result), **settings}, trial_id="")


def columns(result: Result, settings: Mapping[str, str | float], arms: Collection[str]) -> Summary:
    """Returns the proto of HParams' columns.

    Args:
        result: of any network.
        settings: what the networks have in common.
        arms: all that are trained.
    """
    # TensorBoard puts those that differ first, and both kinds in alphabetical order.
    infos = [_info(name, value, differs=True) for name, value in _place(result).items()]
    infos += [_info(name, value) for name, value in settings.items()]
    next(info for info in infos if info.name == "arm").domain_discrete.extend(arms)
    return _experiment(infos, "result", metrics(result))


def trial_row(values: Mapping[str, str | float]) -> Summary:
    """Returns the proto that makes a trial's run a row of HParams, whose metrics are `trial/<name>`."""
    return summary_v2.hparams_pb(dict(values), trial_id="")


def trial_columns(values: Mapping[str, str | float], measured: Iterable[str]) -> Summary:
    """Returns the proto of HParams' columns for the trials of a tuning.

    Args:
        values: name -> any value of each hyperparameter.
        measured: the metrics.
    """
    infos = [_info(name, value, differs=True) for name, value in values.items()]
    return _experiment(infos, "trial", measured)


def layout(result: Result, arms: Iterable[str]) -> Summary:
    """Returns the proto of Custom Scalars: the search by level, then every arm at all densities.

    Args:
        result: of any network.
        arms: all that are trained.
    """
    known = metrics(result)
    by_level = {
        "early-stop step": ["early_stop_step"],
        "test accuracy, at early stop and at the end": ["test_accuracy_at_early_stop", "final_test_accuracy"],
        "validation loss at early stop": ["min_validation_loss"],
    }
    search = [
        _chart(title, [f"by_level/{name}" for name in names if name in known])
        for title, names in by_level.items()
        if known.keys() & names
    ]
    curves = ["test_accuracy", "validation_loss"] if "final_test_accuracy" in known else ["validation_loss"]
    categories = [layout_pb2.Category(title="search, by level", chart=search)]
    for arm in arms:
        charts = [_chart(curve.replace("_", " "), [f"by_step/{arm}/{curve}"]) for curve in curves]
        categories.append(layout_pb2.Category(title=f"{arm}, all densities", chart=charts))
    return custom_scalar.pb(layout_pb2.Layout(category=categories))


def _place(result: Result) -> dict[str, str | float]:
    return {name: getattr(result, name) for name in ("arm", "density", "level", "replicate")}


def _experiment(infos: Iterable[api_pb2.HParamInfo], group: str, measured: Iterable[str]) -> Summary:
    shown = [
        api_pb2.MetricInfo(
            name=api_pb2.MetricName(tag=f"{group}/{name}"), display_name=name.replace("_", " ")
        )
        for name in measured
    ]
    experiment = api_pb2.Experiment(hparam_infos=infos, metric_infos=shown)
    content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(experiment=experiment))
    value = Summary.Value(tag=metadata.EXPERIMENT_TAG, metadata=content, tensor=metadata.NULL_TENSOR)
    return Summary(value=[value])


def _info(name: str, value: str | float, differs: bool = False) -> api_pb2.HParamInfo:
    return api_pb2.HParamInfo(name=name, type=_KINDS[type(value)], differs=differs)


def _chart(title: str, tags: Iterable[str]) -> layout_pb2.Chart:
    lines = layout_pb2.MultilineChartContent(tag=[f"^{re.escape(tag)}$" for tag in tags])
    return layout_pb2.Chart(title=title, multiline=lines)
