"""Tensors without values: what torch's rearrangements do to the regions they are made of."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

WORKERS = str(Path(__file__).parents[2] / "quantui/engines/workers")
sys.path.insert(0, WORKERS)
from model_description.patchwork import Patch, Patchwork, UnsupportedError  # noqa: E402

if WORKERS in sys.path:
    sys.path.remove(WORKERS)


def matrix(name: str = "m", rows: int = 4, columns: int = 3) -> Patchwork:
    return Patchwork.stored(name, (rows, columns))


def test_a_stored_tensor_is_one_whole_piece():
    assert matrix().described((4, 3)) == [
        {
            "source": "m",
            "source_start": [0, 0],
            "start": [0, 0],
            "shape": [4, 3],
            "transposed": False,
        }
    ]


def test_a_piece_of_a_stack_leaves_out_the_axis_that_stacking_added():
    pieces = Patchwork.stack([matrix("a"), matrix("b")]).described((2, 4, 3))
    assert [(p["source"], p["start"], p["shape"]) for p in pieces] == [
        ("a", [0, 0, 0], [4, 3]),
        ("b", [1, 0, 0], [4, 3]),
    ]


def test_chunks_are_cut_as_torch_cuts_them():
    sizes = [part.shape[0] for part in matrix(rows=7).chunk(3)]
    assert sizes == [3, 3, 1]
    (piece,) = matrix(rows=7).chunk(3)[1].described((3, 3))
    assert piece["source_start"] == [3, 0]


def test_chunks_of_a_concatenation_reach_across_its_parts():
    joined = Patchwork.cat([matrix("a"), matrix("b", rows=2)])
    pieces = joined.chunk(2)[1].described((3, 3))
    assert [(p["source"], p["source_start"], p["start"], p["shape"]) for p in pieces] == [
        ("a", [3, 0], [0, 0], [1, 3]),
        ("b", [0, 0], [1, 0], [2, 3]),
    ]


def test_a_chunk_of_a_transpose_is_read_along_the_other_axis():
    (piece,) = matrix().transpose(0, 1).chunk(3)[1].described((1, 4))
    assert piece == {
        "source": "m",
        "source_start": [0, 1],
        "start": [0, 0],
        "shape": [1, 4],
        "transposed": True,
    }


def test_a_slice_of_a_stored_stack_leaves_out_the_axis_that_it_lost():
    (piece,) = Patchwork.stored("s", (2, 4, 3)).chunk(2)[1].squeeze().described((4, 3))
    assert piece["source_start"] == [1, 0, 0]
    assert piece["shape"] == [4, 3]


def test_axes_in_another_order_are_not_described():
    with pytest.raises(UnsupportedError, match="axes"):
        Patchwork.stored("s", (2, 4, 3)).transpose(0, 1).described((4, 2, 3))


@pytest.mark.parametrize(
    ("starts", "why"),
    [
        (((0, 0),), "gap"),
        (((0, 0), (0, 0)), "overlap"),
        (((0, 0), (1, 0)), "overlap"),
        (((0, 0), (3, 0)), "outside"),
    ],
)
def test_regions_that_do_not_cover_the_tensor_are_not_described(starts, why):
    patches = [Patch("m", (0, 0), (0, 1), start, (2, 3)) for start in starts]
    with pytest.raises(UnsupportedError, match=why):
        Patchwork((4, 3), patches).described((4, 3))


def test_another_shape_than_the_parameters_is_not_described():
    with pytest.raises(UnsupportedError, match="shape"):
        matrix().described((3, 4))


def test_parts_that_torch_would_not_join_are_not_joined():
    with pytest.raises(UnsupportedError):
        Patchwork.stack([matrix(), matrix(rows=5)])
