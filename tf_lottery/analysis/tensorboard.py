"""What TensorBoard shows of a search, written while it runs."""

import contextlib
import os
import time
from collections.abc import Collection, Mapping

import numpy as np

from tf_lottery import paths
from tf_lottery.analysis import dashboard, report
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Mask
from tf_lottery.training import locks, recorded
from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.events import Events, image_summary
from tf_lottery.training.history import Failure, History
from tf_lottery.training.listener import Listener

_SIDE = 1024  # pixels: a larger mask is shown in blocks
_GRAY = 0.9
_SHARE = 0.01  # of the time, at most, goes into figures
_FIRST_FIGURE = 20.0  # seconds


class TensorBoard(Listener):
    """Writes a run's events while its search runs, into `WORKDIR/tensorboard`.

    Each network is a run of TensorBoard's, `replicate_1/level_07_21.5%/ticket`. As a card
    shows one tag, its curves have two: `by_step/ticket/test_accuracy`, whose card has all
    densities of the arm, and `level_07/test_accuracy`, whose card has all arms at the level.
    Its numbers, `result/early_stop_step` and so on, are a row of the HParams tab; its mask is
    `masks/<layer>`, unless a control has that of the ticket.

    Each arm is one too, `replicate_1/by_level/ticket`: its numbers against the level,
    `by_level/early_stop_step`, and the distributions of its surviving weights at each,
    `initial_weights/<layer>` and `final_weights/<layer>`. The run `analysis/report` has the
    report as text and the figures; `layout` says how HParams and Custom Scalars look.

    A network that is trained again, gone on with or found finished replaces its events.

    Args:
        workdir: the run directory.
        arms: all that are trained.
        settings: what the networks have in common: the name of a column of HParams -> its value.

    Attributes:
        replicate: 1-based, of the networks that are heard of.
    """

    def __init__(
        self, workdir: str | os.PathLike[str], arms: Collection[str], settings: Mapping[str, str | float]
    ):
        self.replicate = 1
        self._workdir = paths.path(workdir)
        self._folder = self._workdir / "tensorboard"
        self._arms, self._settings = arms, settings
        self._network: Events | None = None  # that is trained now
        self._by_level: dict[tuple[int, str], Events] = {}
        self._ticket_mask: Mask = {}
        # HParams has a row for each trial then, and none for their networks.
        self._is_trial = (self._workdir.parent / recorded.TUNING).exists()
        self._has_layout = False
        self._figures: list = []
        self._next_figures = time.monotonic() + _FIRST_FIGURE

    def started(self, start: Start, history: History) -> None:
        self._network = Events(self._replicate_folder / _name(start))
        for index in range(len(history.steps)):
            self._write_evaluation(start, history, index)

    def evaluated(self, start: Start, history: History) -> None:
        self._write_evaluation(start, history, -1)

    def finished(self, trained: Trained) -> None:
        start, here_and_now = trained.start, self._network is not None
        if not here_and_now:
            # Of an earlier run, which may have been stopped before all was written.
            self.started(start, trained.history)
        self._write_result(trained)
        self._network.close()
        self._network = None
        self._write_at_level(trained)
        if here_and_now:
            self._write_report(draws=time.monotonic() >= self._next_figures)

    def given_up(self, start: Start, failure: Failure) -> None:
        if self._network:
            self._network.close()
            self._network = None

    def close(self) -> None:
        for events in [*self._by_level.values(), *([self._network] if self._network else [])]:
            events.close()

    def write_report(self) -> None:
        """Writes the report and its figures as they are now."""
        self._write_report(draws=True)

    @property
    def _replicate_folder(self) -> paths.Path:
        return self._folder / f"replicate_{self.replicate}"

    def _write_evaluation(self, start: Start, history: History, index: int) -> None:
        values = {name.replace("/", "_"): curve[index] for name, curve in history.curves.items()}
        groups = (f"by_step/{start.arm}", f"level_{start.level:02d}")
        tagged = {f"{group}/{name}": value for group in groups for name, value in values.items()}
        self._network.scalars(tagged, history.steps[index])

    def _write_result(self, trained: Trained) -> None:
        start, result = trained.start, trained.result(self.replicate)
        if not self._has_layout:
            self._has_layout = True
            with locks.alone(self._workdir), contextlib.closing(Events(self._folder / "layout")) as events:
                if not self._is_trial:
                    events.raw(dashboard.columns(result, self._settings, self._arms))
                events.raw(dashboard.layout(result, self._arms))
        if not self._is_trial:
            self._network.raw(dashboard.row(result, self._settings))
        values = {f"result/{name}": value for name, value in dashboard.metrics(result).items()}
        self._network.scalars(values, start.level)
        if start.is_ticket:
            self._ticket_mask = start.mask
        for path, mask in start.mask.items():
            if start.is_ticket or not np.array_equal(mask, self._ticket_mask.get(path)):
                self._network.image(f"masks/{path}", mask_image(mask), start.level)

    def _write_at_level(self, trained: Trained) -> None:
        start = trained.start
        key = self.replicate, start.arm
        if key not in self._by_level:
            for past in [other for other in self._by_level if other[0] != self.replicate]:
                self._by_level.pop(past).close()
            self._by_level[key] = Events(self._replicate_folder / "by_level" / start.arm)
        events, result = self._by_level[key], trained.result(self.replicate)
        values = {**dashboard.metrics(result), "density": result.density, "search_steps": result.search_steps}
        events.scalars({f"by_level/{name}": value for name, value in values.items()}, start.level)
        for path, mask in start.mask.items():
            events.histogram(f"initial_weights/{path}", start.state[path][mask], start.level)
            events.histogram(f"final_weights/{path}", trained.final[path][mask], start.level)

    def _write_report(self, draws: bool) -> None:
        with locks.alone(self._workdir):
            results = [network.result for network in recorded.compared(self._workdir)]
            if not results:
                return
            if draws:
                self._draw(results)
            with contextlib.closing(Events(self._folder / "analysis" / "report")) as events:
                events.text("report", report.text(results, recorded.failures(self._workdir)))
                for summary in self._figures:
                    events.raw(summary)

    def _draw(self, results: list) -> None:
        began = time.monotonic()
        from tf_lottery.analysis.figures import search, style

        figures = {"search": search.plot_search(results)}
        self._figures = []
        for name, figure in figures.items():
            self._figures.append(image_summary(f"figures/{name}", style.pixels(figure)))
        ended = time.monotonic()
        self._next_figures = ended + (ended - began) / _SHARE


def mask_image(mask: np.ndarray) -> np.ndarray:
    """Returns a mask as an image: a row for each input of the layer, a column for each unit.

    The window of a convolution goes with its inputs. What would be higher or wider than 1024
    pixels is made smaller by a whole number; a pixel is then the mean of its block.

    Args:
        mask: bool array of shape (..., units).

    Returns:
        float32 array of shape (height, width, 1): black, 0, where weights are kept, and pale
        gray, 0.9, where they are pruned, so that both show on white.

    Example:
        >>> mask_image(np.array([[True, False, True]]))[..., 0]
        array([[0. , 0.9, 0. ]], dtype=float32)
        >>> mask_image(np.arange(2048).reshape(1, -1) % 2 > 0)[:, :3, 0]
        array([[0.45, 0.45, 0.45]], dtype=float32)
    """
    image = 1 - mask.reshape(-1, mask.shape[-1]).astype(np.float32)
    for axis, length in enumerate(image.shape):
        starts = np.arange(0, length, -(-length // _SIDE))
        sizes = np.expand_dims(np.diff([*starts, length]), 1 - axis)
        image = np.add.reduceat(image, starts, axis) / sizes.astype(np.float32)
    return np.float32(_GRAY) * image[..., np.newaxis]


def _name(start: Start) -> str:
    """Returns the network's run, as the run directory names it but with the density."""
    return f"level_{start.level:02d}_{100 * masks.density(start.mask):.3g}%/{start.arm}"
