"""Numbers that are not finite: the arm is given up, the others go on, and the run says so."""

import re

import numpy as np
import pytest

from tf_lottery import cli
from tf_lottery.analysis import report
from tf_lottery.experiments import workdirs
from tf_lottery.experiments.experiment import Experiment, recorded_config
from tf_lottery.keras_api.flavour import FLAVOURS
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.search.imp import iterative_pruning
from tf_lottery.search.plan import Plan
from tf_lottery.tickets import masks
from tf_lottery.training import recorded
from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.history import Failure, History
from tf_lottery.training.loop import Loop
from tf_lottery.training.runs import RunDirectory
from tf_lottery.training.trainer import NonFiniteError, Trainer

pytestmark = pytest.mark.usefixtures("no_xla")
TINY = {"network.name": "mlp:16,16,16,16", "train.steps": 20, "train.eval_every_steps": 10, "prune.levels": 2}
HUGE = "noise:" + 9 * "9"  # after five layers, more than float32 holds
# The learning rate explodes once the dense network is trained: at step 25, when its ticket goes on from 20.
EXPLODES = {"train.decay_steps": 25, "train.decay_factor": 1e30, "prune.rewinding": "fine_tuning"}
EXPLODES |= {"network.name": "mlp:16"}
GIVEN_UP = (
    "Given up, and with a ticket the levels after it (lower the learning rate, or look for NaN in data):"
)


def run(workdir, **entries):
    words = [f"--config.{name}={value}" for name, value in (TINY | entries).items()]
    return cli.main(["run", *words, f"--workdir={workdir}"])


def names(networks):
    return [(n.level, n.arm) for n in networks]


def contents(workdir):
    suffixes = (".safetensors", ".json", ".npz", ".csv")
    files = (path for path in workdir.rglob("*") if path.suffix in suffixes)
    return {path: path.stat().st_mtime_ns for path in files if path.name not in ("environment.json",)}


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_control_is_given_up_and_the_others_are_as_without_it(tmp_path, capsys, flavour):
    with_it, without = tmp_path / "with", tmp_path / "without"
    assert run(with_it, flavour=flavour, controls=f"{HUGE},reinit") == 0
    out = capsys.readouterr().out
    assert out.count("given up: the validation loss is nan at step 0; no evaluation was good\n") == 2
    assert GIVEN_UP in out and f"  level 2  {HUGE}: the validation loss is nan at step 0; no" in out
    assert run(without, flavour=flavour) == 0
    assert (with_it / "results.csv").read_bytes() == (without / "results.csv").read_bytes()
    assert names(recorded.failures(with_it)) == [(1, HUGE), (2, HUGE)]
    assert cli.main(["report", "--verify", str(with_it)]) == 0


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_ticket_is_given_up_and_the_search_ends_after_its_controls(tmp_path, capsys, flavour):
    assert run(tmp_path, flavour=flavour, **EXPLODES) == 0
    assert re.search("level  1  ticket  81.[0-9]+%  given up: the ", capsys.readouterr().out)
    assert names(recorded.results(tmp_path)) == [(0, "ticket"), (1, "reinit")]
    (failure,) = recorded.failures(tmp_path)
    assert (failure.level, failure.arm, failure.step, failure.last_good) == (1, "ticket", 30, 20)
    before = contents(tmp_path)
    assert run(tmp_path, flavour=flavour, **EXPLODES) == 0  # nothing is left to do
    after = contents(tmp_path)
    written = sorted(path.name for path in before if after[path] != before[path])
    assert written == ["config.json", "results.csv", "ticket.safetensors"]
    # As for `--jobs`, which would start processes for ever for what can never come.
    config = recorded_config(tmp_path)
    assert workdirs.claims(config, str(tmp_path)).unfinished() == []
    config.prune.levels = 5
    assert workdirs.claims(config, str(tmp_path)).unfinished() == []


def test_the_run_may_be_told_to_stop_and_then_to_go_on(tmp_path, capsys):
    told = {"controls": f"{HUGE},reinit"}
    assert run(tmp_path, **told, **{"train.on_nan": "stop"}) == 1
    assert "at step 0 of level 1, arm 'noise:999" in capsys.readouterr().err
    assert names(recorded.results(tmp_path)) == [(0, "ticket"), (1, "ticket")]
    assert recorded.failures(tmp_path) == []
    assert run(tmp_path, **told) == 0
    assert len(recorded.results(tmp_path)) == 5
    assert run(tmp_path, **told, **{"train.on_nan": "stop"}) == 1  # what was given up is tried again


def test_a_dense_network_that_is_given_up(tmp_path, capsys):
    assert run(tmp_path, **{"train.learning_rate": 1e30}) == 1
    out = capsys.readouterr().out
    assert "No network is trained yet." in out
    assert (
        f"{GIVEN_UP}\n  level 0  ticket: the loss is nan at step 10; the last good evaluation was at step 0."
        in out
    )
    assert cli.main(["report", str(tmp_path)]) == 0
    assert GIVEN_UP in capsys.readouterr().out


def test_an_unknown_way(tmp_path, capsys):
    assert run(tmp_path, **{"train.on_nan": "skipp"}) == 1
    assert "Unknown way to go on after NaN 'skipp'. Did you mean 'skip'?" in capsys.readouterr().err


def test_analyses_leave_out_what_was_given_up(tmp_path):
    assert run(tmp_path, controls=f"{HUGE},reinit") == 0
    experiment = Experiment.of_run(tmp_path)
    finished = experiment.finished(experiment.directory(tmp_path).replicate(1))
    assert names(trained.start for trained in finished) == [
        (0, "ticket"),
        (1, "ticket"),
        (1, "reinit"),
        (2, "ticket"),
        (2, "reinit"),
    ]


def train_but(given_up):
    """Returns what stands in for training, and gives up a network."""

    def train(start):
        if (start.level, start.arm) == given_up:
            return None
        states = {step: start.state for step in start.snapshots}
        return Trained(start, dict(start.state), History([start.step + 10]), states)

    return train


@pytest.mark.parametrize(
    ("schedule", "given_up", "trained"),
    [
        ("iterative", (0, "ticket"), []),
        ("iterative", (1, "ticket"), [(0, "ticket"), (1, "copy")]),
        ("iterative", (1, "copy"), [(0, "ticket"), (1, "ticket"), (2, "ticket"), (2, "copy")]),
        ("one_shot", (2, "ticket"), [(0, "ticket"), (1, "ticket"), (1, "copy"), (2, "copy")]),
        ("early_bird", (2, "search"), [(0, "ticket"), (1, "ticket"), (1, "copy")]),
    ],
)
@pytest.mark.filterwarnings("ignore:The mask of level")
def test_what_a_search_trains_without_a_network(schedule, given_up, trained):
    initial = {"a/kernel": np.arange(1.0, 13).reshape(3, 4)}
    copy = {"copy": lambda found: (found.mask, found.rewound)}
    plan = Plan(2, {"a/kernel": 0.25}, schedule=schedule, controls=copy)
    found = iterative_pruning(
        plan, train_but(given_up), initial, masks.ones({"a/kernel": (3, 4)}), lambda seed: initial
    )
    assert names(network.start for network in found) == trained


@pytest.mark.parametrize("arm", ["ticket", "search"])
def test_a_replicate_holds_all_that_can_ever_come(tmp_path, arm):
    store = RunDirectory(tmp_path, {}).open().replicate(1)
    networks = [(0, "ticket"), (1, "ticket"), (1, "reinit"), (2, "ticket"), (2, "reinit")]
    for level, name in networks[:3]:
        (store.path / f"level_{level:02d}" / name).mkdir(parents=True)
        (store.path / f"level_{level:02d}" / name / "result.json").touch()
    assert not store.holds(networks)
    store.save_failure(Failure(2, arm, 10, "The loss is nan", 0))
    assert store.holds(networks) == (arm == "search")  # else the control of that level is to come
    store.save_failure(Failure(2, "reinit", 10, "The loss is nan", None))
    assert store.holds(networks)


def test_a_weight_that_the_loss_does_not_show(make_model, data):
    masked = MaskedModel(make_model())
    loop = Loop(masked.model, data, {"validation": data}, batch_size=16, chunk=4, jit=False)
    state = {path: array.copy() for path, array in masked.fresh_state.items()}
    state["fc1/bias"][0] = -np.inf  # the unit is dead, and its gradient 0
    train = Trainer(masked, loop, steps=20, eval_every=10, order_key=(0, 1))
    with pytest.raises(
        NonFiniteError, match="A weight is NaN or infinite at step 0 of level 3.*no evaluation was"
    ):
        train(Start(3, "reinit", masks.ones(masked.shapes), state))


def test_the_next_arm_is_trained_as_if_the_one_before_had_not_been(make_model, data):
    finals = []
    for spoiled in (True, False):
        masked = MaskedModel(make_model(batch_norm=True))
        loop = Loop(masked.model, data, {"validation": data}, batch_size=16, chunk=4, jit=False)
        train = Trainer(masked, loop, steps=20, eval_every=10, order_key=(0, 1), on_nan="skip")
        ones, state = masks.ones(masked.shapes), dict(masked.fresh_state)
        if spoiled:
            huge = {path: array * 1e38 if path.endswith("kernel") else array for path, array in state.items()}
            with np.errstate(over="ignore"):
                assert train(Start(0, "ticket", ones, huge)) is None
        finals.append(train(Start(0, "ticket", ones, state)))
    np.testing.assert_equal(finals[0].final, finals[1].final)
    np.testing.assert_equal(finals[0].history, finals[1].history)


def test_the_report_names_the_replicate_where_there_are_several():
    failures = [
        Failure(2, "reinit", 30, "The loss is inf", 20, 1),
        Failure(1, "ticket", 5, "The loss is nan", None, 2),
    ]
    assert report.given_up(failures) == (
        f"{GIVEN_UP}\n"
        "  replicate 1  level 2  reinit: the loss is inf at step 30; the last good evaluation was at step 20."
        "\n"
        "  replicate 2  level 1  ticket: the loss is nan at step 5; no evaluation was good."
    )
    assert report.given_up([]) == ""
