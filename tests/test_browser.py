"""TensorBoard in a browser: what somebody who opens it on the default run gets to see."""

import re

import browser
import pytest

from tf_lottery import cli
from tf_lottery.analysis import report
from tf_lottery.training import recorded

SHORT = ["--config.flavour=keras", "--config.train.steps=100"]  # of the default run
LAYERS = {"fc1": [300, 64], "fc2": [100, 300], "output": [10, 100]}  # width and height of their masks


def train(workdir, levels):
    """Runs the default experiment, in short, up to that level; returns its results."""
    assert cli.main(["run", *SHORT, f"--config.prune.levels={levels}", f"--workdir={workdir}"]) == 0
    return recorded.results(workdir)


def run_of(result):
    """What TensorBoard calls the network."""
    density = {0: "100", 1: "80.2", 2: "64.3"}[result.level]
    return f"replicate_1/level_{result.level:02d}_{density}%/{result.arm}"


def rows(page):
    """The cells of the table of HParams, row by row, without its head."""
    return [row.text.split("\n") for row in page.find("tr")[1:]]


def expect_hparams(page, results, name):
    page.open("hparams")
    networks = {run_of(result) for result in results}
    page.wait(lambda: {row[0] for row in rows(page)} == networks, name)
    assert {"arm", "density", "level", "early stop step", "test accuracy at early stop"} <= set(page.texts())
    cells = {row[0]: row for row in rows(page)}
    for result in results:
        shown = cells[run_of(result)]
        assert shown[1] == result.arm and shown[5] == "magnitude"
        assert float(shown[2]) == pytest.approx(result.density, abs=1e-4)
        assert [float(cell) for cell in shown[3:5]] == [result.level, 1]
        assert float(shown[6]) == pytest.approx(result.early_stop_step, abs=0.1)
        assert float(shown[7]) == pytest.approx(result.test_accuracy_at_early_stop, abs=1e-4)


def expect_card(page, tag, runs):
    """There is one card with that tag, and it shows just those runs."""
    page.open("timeseries", f"?tagFilter=^{tag}$")

    def shown():
        return [re.findall(r"^replicate_.*$", card.text, re.M) for card in page.find("scalar-card")]

    page.wait(lambda: list(map(sorted, shown())) == [sorted(runs)], tag.replace("/", "_"))


def expect_report(page, results, name):
    table, verdict = report.text(results).split("\n\n")
    page.open("text")
    page.wait_for(["report", "analysis/report", table.strip(), verdict], name)


@pytest.mark.timeout(600)
def test_tensorboard_shows_the_default_run(tmp_path):
    results = train(tmp_path / "run", levels=1)
    with browser.looking_at(tmp_path / "run" / "tensorboard", tmp_path) as page:
        expect_hparams(page, results, "hparams_at_first")
        expect_report(page, results, "text_at_first")
        results = train(tmp_path / "run", levels=2)  # TensorBoard looks on
        assert len(results) == 5
        networks = [run_of(result) for result in results]
        arms = ["replicate_1/by_level/ticket", "replicate_1/by_level/reinit"]

        page.open("timeseries")
        groups = ["by_level", "by_step", "level_00", "level_01", "level_02", "masks", "final_weights"]
        page.wait_for(
            [*groups, "/early_stop_step", "/test_accuracy_at_early_stop", *arms, *networks], "groups"
        )
        tickets = [run_of(result) for result in results if result.arm == "ticket"]
        expect_card(page, "by_step/ticket/test_accuracy", tickets)
        expect_card(page, "level_02/test_accuracy", networks[3:])
        expect_card(page, "by_level/early_stop_step", arms)

        page.open("scalars")
        tags = ["by_level/early_stop_step", "by_step/ticket/test_accuracy", "by_step/reinit/validation_loss"]
        page.wait_for([*tags, *arms, *networks, "level_01", "level_02"], "scalars")

        page.open("custom_scalars")
        page.wait_for(
            ["search, by level", "ticket, all densities", "reinit, all densities"], "custom_scalars"
        )

        page.open("images")
        page.wait_for(["figures/search", *(f"masks/{layer}/kernel" for layer in LAYERS), *tickets], "images")
        masks = sorted(3 * list(LAYERS.values()))
        page.wait(lambda: sorted(page.size(image) for image in page.find("img"))[:9] == masks, "masks")

        expect_report(page, results, "text")
        expect_hparams(page, results, "hparams")
        reinit = next(box for box in page.find("paper-checkbox") if box.text == "reinit")
        page.click(reinit)
        page.wait(lambda: {row[0] for row in rows(page)} == set(tickets), "hparams_of_tickets")
