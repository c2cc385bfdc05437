"""Which layer is which where Keras numbered them otherwise."""

import pytest

from tf_lottery.keras_api import matching


def shapes(*paths, **other):
    return dict.fromkeys(paths, (2, 3)) | other


def match(given, expected):
    return matching.renamed({path: path for path in given}, given, expected)


def test_the_numbers_of_unnamed_layers_give_way():
    found = match(
        shapes("dense_7/kernel", "dense_7/bias", "dense_10/kernel"),
        shapes("dense/kernel", "dense/bias", "dense_1/kernel"),
    )
    assert found == {
        "dense/kernel": "dense_7/kernel",
        "dense/bias": "dense_7/bias",
        "dense_1/kernel": "dense_10/kernel",
    }


def test_numbers_count_within_their_parent():
    found = match(
        shapes("block_3/dense_9/kernel", "block_4/dense_8/kernel", "dense_1/kernel"),
        shapes("block/dense_5/kernel", "block_1/dense_3/kernel", "dense/kernel"),
    )
    assert found["block/dense_5/kernel"] == "block_3/dense_9/kernel"
    assert found["block_1/dense_3/kernel"] == "block_4/dense_8/kernel"


@pytest.mark.parametrize(
    "expected",
    [
        shapes("dense/kernel"),
        shapes("dense/kernel", "conv/kernel"),
        shapes("dense/kernel", **{"dense_1/kernel": (4, 4)}),
        shapes("dense/kernel", "dense_1/bias"),
    ],
)
def test_another_architecture_keeps_its_names(expected):
    given = shapes("dense_3/kernel", "dense_4/kernel")
    assert match(given, expected) == {path: path for path in given}


def test_equal_names_are_left_alone_whatever_their_order():
    given = shapes("a_2/kernel", "a_1/kernel")
    assert match(given, shapes("a_1/kernel", "a_2/kernel")) == {path: path for path in given}


def test_names_that_look_alike_are_not_matched():
    given = shapes("a/kernel", "a_0/kernel", "dense_3/kernel", "x_1/kernel", "x_01/kernel")
    expected = shapes("a/kernel", "a_0/kernel", "dense/kernel", "x_1/kernel", "x_01/kernel")
    assert match(given, expected) == {path: path for path in given}
    assert (
        match(shapes("a/kernel", "a_0/kernel", "d_3/kernel"), shapes("a/kernel", "a_0/kernel", "d/kernel"))[
            "d/kernel"
        ]
        == "d_3/kernel"
    )
