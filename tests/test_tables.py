import math
import subprocess
import sys

import pytest

from tf_lottery.analysis.tables import difference_table, table
from tf_lottery.training.history import Result

NAN = math.nan


def row(level, step, test=NAN, *, arm="ticket", validation=NAN, loss=0.1, replicate=1):
    return Result(replicate, level, arm, 0.8**level, step, test, loss, test, validation, 1000)


def test_golden_table_with_two_controls_and_an_early_stop_not_reached():
    results = [
        row(10, 1000, 0.951, arm="shuffle"),
        row(10, 450, 0.9719),
        row(1, 900, 0.95104, arm="reinit"),
        row(10, 1000, 0.9, arm="reinit"),
        row(1, 500, 1.0),
        row(0, 700, 0.967),
    ]
    assert (
        table(results)
        == """\
                          ticket                  reinit                 shuffle
level  density %  early stop  test acc %  early stop  test acc %  early stop  test acc %
    0     100.00         700       96.70           -           -           -           -
    1      80.00         500      100.00         900       95.10           -           -
   10      10.74         450       97.19       >1000       90.00       >1000       95.10
> not reached: validation loss was still falling when training ended."""
    )


def test_golden_table_of_replicates():
    results = [row(n, 100 * n + 10 * r, 0.9 + r / 100, replicate=r) for r in (1, 2) for n in (0, 1)]
    assert (
        table(results)
        == """\
                                ticket
level  density %     early stop           test acc %
    0     100.00     15 [10 20]  91.50 [91.00 92.00]
    1      80.00  115 [110 120]  91.50 [91.00 92.00]
Means over 2 replicates, [lowest highest]."""
    )


def test_unequal_numbers_of_replicates_are_said():
    results = [row(0, 700, 0.9), row(0, 700, 0.9, replicate=2), row(1, 700, 0.9)]
    assert table(results).splitlines()[-1] == "Means over 1 to 2 replicates, [lowest highest]."


def test_one_replicate_of_two_not_reached_marks_the_mean():
    lines = table([row(0, 700, 0.9), row(0, 1000, 0.9, replicate=2)]).splitlines()
    assert lines[2].split() == ["0", "100.00", ">850", "[700", "1000]", "90.00", "[90.00", "90.00]"]
    assert lines[3:] == [
        "Means over 2 replicates, [lowest highest].",
        "> not reached: validation loss was still falling when training ended.",
    ]


def test_arms_that_a_line_has_no_room_for_stand_below():
    arms = ["ticket", *(f"control_{n}" for n in range(5))]
    rows = [row(n, 700, 0.9, arm=arm) for n in (1, 2) for arm in arms]
    lines = table(rows).splitlines()
    assert [line.split() for line in (lines[0], lines[5])] == [arms[:3], arms[3:]]
    assert lines[1] == lines[6] and lines[4] == "" and lines[2:4] == lines[7:]
    assert max(map(len, lines)) <= 110


def test_one_arm_that_is_too_wide_stands_alone():
    lines = table([row(1, 700, 0.9), row(1, 700, 0.9, arm="control_" * 20)]).splitlines()
    assert len(lines) == 7 and lines[0].split() == ["ticket"]


def test_differences_of_a_loss_and_of_steps_that_are_not_known():
    losses = {("ticket", 1): 0.1, ("ticket", 2): 0.2, ("reinit", 1): 0.3, ("reinit", 2): 0.4}
    rows = [row(1, 1000, arm=arm, loss=loss, replicate=r) for (arm, r), loss in losses.items()]
    assert difference_table(rows).splitlines() == [
        "ticket minus reinit, mean and 95 % interval of 2 pairs",
        "level  density %  early stop      min val loss",
        "    1      80.00           -  -0.2 [-0.2 -0.2]",
    ]
    assert difference_table(rows, "shuffle") == difference_table(rows[:1]) == ""


def test_levels_ascend_where_only_a_control_has_one():
    lines = table([row(0, 700, 0.9), row(2, 700, 0.9), row(1, 700, 0.9, arm="reinit")]).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["0", "1", "2"]


def test_without_test_data_the_header_says_validation():
    lines = table([row(0, 700, validation=0.9), row(1, 700, validation=0.8)]).splitlines()
    assert lines[1].endswith("early stop  final val acc %")
    assert [line.split()[-1] for line in lines[2:]] == ["90.00", "80.00"]


def test_without_accuracies_the_losses_are_shown():
    lines = table([row(0, 700, loss=0.012356), row(1, 700, loss=12.0)]).splitlines()
    assert lines[1].endswith("early stop  min val loss")
    assert [line.split()[-1] for line in lines[2:]] == ["0.01236", "12"]


def test_no_results():
    with pytest.raises(ValueError, match=r"at least one trained network\. Received: none"):
        table([])


def test_importing_needs_neither_tensorflow_nor_matplotlib():
    code = (
        "import sys, tf_lottery.analysis.tables, tf_lottery.analysis.verdict\n"
        "print([name for name in ('tensorflow', 'keras', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
