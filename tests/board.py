"""What is in a TensorBoard folder, by TensorBoard's own readers."""

import io
import json

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing import data_provider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.custom_scalar.custom_scalars_plugin import CustomScalarsPlugin
from tensorboard.plugins.hparams import api_pb2, backend_context, get_experiment, list_session_groups
from tensorboard.util import tensor_util

_ALL = {"scalars": 0, "images": 0, "histograms": 0, "text": 0}  # none is left out


class Board:
    """Reads the events of all runs below a folder."""

    def __init__(self, folder):
        self._events = EventMultiplexer(tensor_size_guidance=_ALL)
        self._events.AddRunsFromDirectory(str(folder)).Reload()
        provider = data_provider.MultiplexerDataProvider(self._events, str(folder))
        self._context = TBContext(logdir=str(folder), data_provider=provider)

    def runs(self):
        return set(self._events.Runs())

    def tags(self, run):
        """The tags of a run, but for those of HParams and Custom Scalars, which nobody sees."""
        tags = self._events.GetAccumulator(run).Tags()["tensors"]
        return {tag for tag in tags if not tag.startswith(("_hparams_", "custom_scalars"))}

    def runs_with(self, tag):
        """The runs that are on the card of a tag."""
        return {run for run in self.runs() if tag in self.tags(run)}

    def points(self, run, tag):
        """Step and value, in the order of the file."""
        events = self._events.Tensors(run, tag)
        return [(event.step, tensor_util.make_ndarray(event.tensor_proto)) for event in events]

    def curve(self, run, tag):
        return [(step, value.item()) for step, value in self.points(run, tag)]

    def image(self, run, tag):
        """The step, and the pixels of the only image of that tag."""
        [(step, (width, height, png))] = self.points(run, tag)
        pixels = np.asarray(Image.open(io.BytesIO(png)))
        assert (int(height), int(width)) == pixels.shape[:2]
        return step, pixels

    def everything(self):
        """Run -> tag -> all points, for comparisons."""
        return {
            run: {
                tag: [(step, value.tolist()) for step, value in self.points(run, tag)]
                for tag in self.tags(run)
            }
            for run in self.runs()
        }

    def columns(self):
        """HParams' experiment: which columns its table has."""
        return self._ask(get_experiment.Handler, api_pb2.GetExperimentRequest())

    def rows(self, *columns):
        """HParams' table, as its tab asks for it: run -> (hyperparameters, metrics), in order.

        The columns are `api_pb2.ColParams`: what to sort and filter by.
        """
        every = [api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_SUCCESS]
        request = api_pb2.ListSessionGroupsRequest(
            slice_size=1000, allowed_statuses=every, col_params=columns
        )
        found = {}
        for group in self._ask(list_session_groups.Handler, request).session_groups:
            values = {name: getattr(v, v.WhichOneof("kind")) for name, v in group.hparams.items()}
            found[group.name] = values, {metric.name.tag: metric.value for metric in group.metric_values}
        return found

    def layout(self):
        """The categories of Custom Scalars: title -> title of a chart -> its regular expressions."""
        layout = json.loads(CustomScalarsPlugin(self._context).layout_impl(RequestContext(), ""))
        return {
            category["title"]: {chart["title"]: chart["multiline"]["tag"] for chart in category["chart"]}
            for category in layout["category"]
        }

    def _ask(self, handler, request):
        return handler(RequestContext(), backend_context.Context(self._context), "", request).run()
