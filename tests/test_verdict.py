import math

import pytest

from tf_lottery.analysis.aggregate import groups
from tf_lottery.analysis.verdict import judge
from tf_lottery.training.history import Result

NAN = math.nan


def row(
    level, step, test=NAN, *, arm="ticket", validation=NAN, loss=0.1, last=1000, replicate=1, density=None
):
    density = round(0.8**level, 4) if density is None else density
    return Result(replicate, level, arm, density, step, test, loss, test, validation, last)


DENSE = row(0, 700, 0.967, validation=0.96)


def test_winning_ticket_beside_its_reinit():
    verdict = judge([DENSE, row(9, 450, 0.972), row(9, 900, 0.951, arm="reinit")])
    assert (verdict.winning, verdict.level) == (9, 9)
    assert verdict.sentence == (
        "A winning ticket: level 9 keeps 13.4 % of the weights and reaches 97.20 % test accuracy, early stop "
        "at step 450 (dense: 96.70 %, step 700); re-initialized at random it reaches 95.10 %, step 900."
    )


def test_sparsest_of_several_winners_though_another_is_best():
    results = [
        row(3, 500, 0.970, validation=0.97),
        row(1, 300, 0.980, validation=0.99),
        DENSE,
        row(4, 500, 0.960, validation=0.96),
        row(1, 900, 0.951, arm="reinit"),
    ]
    verdict = judge(results)
    assert (verdict.winning, verdict.best, verdict.level) == (3, 1, 3)
    assert "level 3" in verdict.sentence
    assert "re-initialized" not in verdict.sentence  # there is no reinit at level 3


def test_equal_accuracy_and_step_is_enough_to_win():
    assert judge([DENSE, row(1, 700, 0.967)]).winning == 1
    assert judge([DENSE, row(1, 700, 0.9669)]).winning is None
    assert judge([DENSE, row(1, 701, 0.967)]).winning is None
    assert judge([DENSE, row(1, 700, 0.967, density=1.0)]).winning is None


def test_none_winning_names_the_best_and_why():
    verdict = judge([DENSE, row(1, 800, 0.960, validation=0.95), row(2, 600, 0.950, validation=0.94)])
    assert (verdict.winning, verdict.matching, verdict.best, verdict.level) == (None, None, 1, 1)
    assert verdict.sentence == (
        "No winning ticket: the best is level 1, which keeps 80 % of the weights and reaches 96.00 % test "
        "accuracy, early stop at step 800 (dense: 96.70 %, step 700); it is less accurate and later."
    )


def test_accurate_but_later_is_matching_and_does_not_win():
    verdict = judge([DENSE, row(1, 800, 0.970)])
    assert (verdict.winning, verdict.matching) == (None, 1)
    assert verdict.sentence.endswith("step 700); it is matching within 0.2 points, but later.")


@pytest.mark.parametrize("drop, matching", [(0.0, 1), (0.002, 1), (0.0021, None), (-0.01, 1)])
def test_matching_within_two_tenths_of_a_point(drop, matching):
    assert judge([DENSE, row(1, 700, 0.967 - drop)]).matching == matching


def test_ticket_without_an_accuracy_neither_matches_nor_wins():
    verdict = judge([DENSE, row(1, 500)])
    assert (verdict.winning, verdict.matching, verdict.best) == (None, None, 1)
    assert verdict.sentence.endswith("it is less accurate.")


def test_tolerance_changes_matching_and_not_winning():
    results = [DENSE, row(1, 500, 0.960)]
    assert judge(results).matching is None
    verdict = judge(results, tolerance=0.01)
    assert (verdict.winning, verdict.matching) == (None, 1)
    assert verdict.sentence.endswith("it is matching within 1 points, but less accurate.")


def test_sparsest_matching_is_named_where_it_is_not_the_best():
    results = [DENSE, row(1, 800, 0.970, validation=0.97), row(2, 900, 0.967, validation=0.96)]
    verdict = judge(results)
    assert (verdict.winning, verdict.matching, verdict.best) == (None, 2, 1)
    assert verdict.sentence.endswith("points, but later; the sparsest matching one is level 2.")


def test_ticket_whose_early_stop_was_not_reached_does_not_win():
    verdict = judge([DENSE, row(1, 500, 0.99, last=500)])
    assert verdict.winning is None
    assert "early stop at step 500 or later (dense" in verdict.sentence
    assert verdict.sentence.endswith(
        "; not judged, as validation loss was still falling when training ended: level 1."
    )


def test_unreached_sparser_rivals_are_named_beside_the_winner():
    results = [DENSE, row(1, 500, 0.97, last=500), row(2, 600, 0.97), row(3, 500, 0.97, last=500)]
    verdict = judge([*results, row(4, 1000, 0.97)])  # level 4 is later than dense in any case
    assert verdict.winning == 2
    assert verdict.sentence.endswith(
        "; not judged, as validation loss was still falling when training ended: level 3."
    )


def test_nothing_wins_against_a_dense_network_whose_early_stop_was_not_reached():
    verdict = judge([row(0, 1000, 0.967), row(1, 500, 0.99)])
    assert (verdict.winning, verdict.best) == (None, 1)
    assert verdict.sentence == (
        "No ticket can be called winning, as the dense network's validation loss was still falling when its "
        "training ended: the best is level 1, which keeps 80 % of the weights and reaches 99.00 % test "
        "accuracy, early stop at step 500 (dense: 96.70 %, step 1000 or later)."
    )


def test_unreached_reinit_is_said_to_stop_later():
    verdict = judge([DENSE, row(1, 500, 0.97), row(1, 1000, 0.95, arm="reinit")])
    assert verdict.sentence.endswith("; re-initialized at random it reaches 95.00 %, step 1000 or later.")


def test_means_over_replicates_decide():
    # The ticket is worse in replicate 1, later in replicate 2, and neither on average.
    results = [
        row(0, 800, 0.970, replicate=1),
        row(1, 500, 0.965, replicate=1),
        row(0, 600, 0.950, replicate=2),
        row(1, 700, 0.960, replicate=2),
    ]
    verdict = judge(results)
    assert verdict.winning == 1
    assert verdict.sentence == (
        "A winning ticket: level 1 keeps 80 % of the weights and reaches 96.25 [96.00 96.50] % test "
        "accuracy, early stop at step 600 [500 700] (dense: 96.00 [95.00 97.00] %, step 700 [600 800]; "
        "means over 2 replicates, [lowest highest])."
    )


def test_rounding_of_means_does_not_decide():
    # Three times 0.9012 has a mean that is one rounding below 0.9012.
    results = [row(0, 700, 0.9012), *(row(1, 700, 0.9012, replicate=r) for r in (1, 2, 3))]
    assert judge(results).winning == 1


def test_one_replicate_whose_early_stop_was_not_reached_spoils_the_mean():
    dense = [row(0, 700, 0.96, replicate=r) for r in (1, 2)]
    assert judge([*dense, row(1, 300, 0.97), row(1, 600, 0.97, replicate=2)]).winning == 1
    assert judge([*dense, row(1, 300, 0.97), row(1, 600, 0.97, replicate=2, last=600)]).winning is None


def test_without_test_data_validation_accuracy_decides():
    dense = row(0, 700, validation=0.96)
    verdict = judge([dense, row(1, 500, validation=0.97), row(2, 500, validation=0.95)])
    assert (verdict.winning, verdict.best) == (1, 1)
    assert "reaches 97.00 % final validation accuracy, early stop at step 500" in verdict.sentence


def test_regression_is_decided_by_validation_loss_without_tolerance():
    verdict = judge([row(0, 700, loss=0.5), row(1, 600, loss=0.4), row(2, 600, loss=0.501)])
    assert (verdict.winning, verdict.matching, verdict.best) == (1, 1, 1)
    assert "reaches 0.4 validation loss, early stop at step 600 (dense: 0.5, step 700)" in verdict.sentence
    none = judge([row(0, 700, loss=0.5), row(1, 600, loss=0.501)])
    assert (none.winning, none.matching) == (None, None)
    assert none.sentence.endswith("it is of higher loss.")


def test_best_is_by_validation_accuracy_and_the_sparsest_of_equals():
    def tickets(validation):
        return [row(n, 900, 0.90, validation=v, loss=n) for n, v in enumerate(validation, 1)]

    assert judge([DENSE, *tickets([0.93, 0.95, 0.95, 0.94])]).best == 3
    assert judge([DENSE, *tickets([NAN, 0.95, NAN])]).best == 2
    # Test accuracy would be the wrong thing to choose by.
    assert judge([DENSE, row(1, 900, 0.95, validation=0.8), row(2, 900, 0.90, validation=0.9)]).best == 2


def test_best_is_by_validation_loss_where_there_is_no_validation_accuracy():
    results = [row(0, 700, 0.99), row(1, 900, 0.95, loss=0.3), row(2, 900, 0.90, loss=0.2)]
    assert judge(results).best == 2


def test_nothing_was_pruned_yet():
    verdict = judge([DENSE])
    assert (verdict.winning, verdict.best, verdict.level) == (None, 0, 0)
    assert verdict.sentence == (
        "No ticket is trained yet: the dense network reaches 96.70 % test accuracy, early stop at step 700."
    )


def test_no_results():
    with pytest.raises(ValueError, match=r"at least one trained network\. Received: none"):
        judge([])


def test_no_dense_network():
    with pytest.raises(ValueError, match=r"dense.*Received: arms \['ticket', 'reinit'\].*levels \[1\]"):
        judge([row(1, 500, 0.97), row(0, 500, 0.97, arm="reinit")])


@pytest.mark.parametrize("tolerance", [-0.1, 1.5, NAN])
def test_tolerance_out_of_range(tolerance):
    with pytest.raises(ValueError, match=r"tolerance is a fraction in \[0, 1\].*Received: (-0.1|1.5|nan)"):
        judge([DENSE], tolerance=tolerance)


def test_groups_put_tickets_first_and_order_everything_else():
    results = [
        row(1, 1, arm="shuffle"),
        row(1, 2, replicate=2),
        row(1, 1, arm="reinit"),
        row(0, 3),
        row(1, 4, replicate=1),
    ]
    found = groups(results)
    assert [(arm, list(levels)) for arm, levels in found.items()] == [
        ("ticket", [0, 1]),
        ("reinit", [1]),
        ("shuffle", [1]),
    ]
    assert found["ticket"][1].values("early_stop_step") == [4, 2]
    assert found["ticket"][1].mean("early_stop_step") == 3


def test_differences_to_the_reinit_are_paired_and_have_an_interval():
    results = [
        *(row(0, 700, 0.96, replicate=r) for r in (1, 2, 3)),
        *(row(1, 500 + 100 * r, 0.96 + r / 100, replicate=r) for r in (1, 2, 3)),
        *(row(1, 800, 0.95, arm="reinit", replicate=r) for r in (1, 2, 3)),
    ]
    # Differences 2, 3, 4 points and -200, -100, 0 steps; t(0.975, 2) = 4.3027, times 1 / sqrt(3).
    assert (
        "; ticket minus reinit +3.00 points (95 % interval +0.52 to +5.48), -100 steps (-348 to +148)."
        in judge(results).sentence
    )
    late = [*results, row(1, 1000, 0.95, arm="reinit", replicate=4), row(1, 600, 0.99, replicate=4)]
    assert "steps (" not in judge(late).sentence  # the early stop of one is not known


def test_a_replicate_that_has_not_come_so_far_takes_no_part():
    # Replicate 2 has only its dense network yet, which is far worse than that of replicate 1.
    results = [row(0, 700, 0.97), row(1, 500, 0.96), row(0, 700, 0.90, replicate=2)]
    verdict = judge(results)
    assert verdict.winning is None and "(dense: 97.00 %, step 700)" in verdict.sentence
    assert judge([*results, row(1, 500, 0.98, replicate=2)]).winning == 1


def test_replicates_of_which_none_has_both():
    with pytest.raises(ValueError, match="Received: none with both"):
        judge([row(0, 700, 0.97), row(1, 500, 0.96, replicate=2)])
