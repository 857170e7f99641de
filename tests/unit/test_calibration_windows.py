"""How tokenized calibration texts become samples of one length."""

from __future__ import annotations

import sys
from pathlib import Path

WORKERS = str(Path(__file__).parents[2] / "quantui/engines/workers")
sys.path.insert(0, WORKERS)
import quantizing  # noqa: E402, F401
from quantizing.calibration import windows  # noqa: E402

if WORKERS in sys.path:
    sys.path.remove(WORKERS)


def texts(*lengths: int) -> list[list[int]]:
    """Texts of these lengths, every token of them another."""
    found, token = [], 1000
    for length in lengths:
        found.append(list(range(token, token + length)))
        token += length
    return found


def test_a_text_of_the_right_size_is_a_sample() -> None:
    given = texts(100, 200, 300)
    assert windows.cut_and_join(given, 3, 3, 512).samples == given


def test_a_text_that_is_too_long_is_cut_and_reported() -> None:
    (long, other) = texts(1000, 100)
    found = windows.cut_and_join([long, other], 2, 2, 512)
    assert found.samples == [long[:512], other]
    assert (found.cut, found.longest_cut) == (1, 1000)


def test_the_rest_of_a_long_text_is_used_where_samples_are_few() -> None:
    (long, other) = texts(1300, 100)
    found = windows.cut_and_join([long, other], 2, 128, 512)
    assert found.samples == [long[:512], other, long[512:1024], long[1024:]]


def test_every_window_of_a_text_begins_as_the_model_begins_texts() -> None:
    long = [7, *texts(1300)[0]]
    found = windows.cut_and_join([long], 1, 128, 512, prefix=[7])
    assert [sample[0] for sample in found.samples] == [7, 7, 7]
    assert all(len(sample) <= 512 for sample in found.samples)
    assert sum(len(sample) - 1 for sample in found.samples) == 1300


def test_many_short_texts_are_joined_to_full_windows() -> None:
    found = windows.cut_and_join(texts(*[40] * 2000), 2000, 128, 512)
    assert len(found.samples) == 128
    assert found.joined == 128
    assert all(len(sample) == 480 for sample in found.samples)
    assert found.too_short == 0


def test_few_short_texts_stay_apart() -> None:
    given = texts(*[40] * 100)
    found = windows.cut_and_join(given, 100, 128, 512)
    assert found.samples == given
    assert found.joined == 0


def test_texts_are_joined_no_more_than_makes_enough_samples() -> None:
    found = windows.cut_and_join(texts(*[40] * 256), 256, 128, 512)
    assert len(found.samples) == 128
    assert {len(sample) for sample in found.samples} == {80}


def test_what_begins_a_text_is_kept_once_in_those_joined() -> None:
    given = [[7, *text] for text in texts(*[40] * 2000)]
    found = windows.cut_and_join(given, 2000, 128, 512, prefix=[7])
    assert all(sample.count(7) == 1 and sample[0] == 7 for sample in found.samples)


def test_tiny_texts_are_joined_even_where_there_are_few() -> None:
    found = windows.cut_and_join(texts(*[5] * 10), 10, 128, 512)
    assert [len(sample) for sample in found.samples] == [20, 20]
    assert found.too_short == 2, "the last two together are too short"


def test_texts_that_are_too_short_even_together_are_left_out() -> None:
    found = windows.cut_and_join(texts(3, 4), 2, 128, 512)
    assert found.samples == []
    assert found.too_short == 2


def test_fewer_samples_are_the_first_of_more() -> None:
    given = texts(*[300] * 200)
    more = windows.cut_and_join(given, 200, 64, 512).samples
    assert windows.cut_and_join(given, 200, 16, 512).samples == more[:16]


def test_texts_are_read_no_further_than_needed() -> None:
    read = []

    def source():
        for text in texts(*[300] * 10_000):
            read.append(text)
            yield text

    windows.cut_and_join(source(), 10_000, 16, 512)
    assert len(read) < 100


def test_another_seed_gives_another_order_and_the_same_seed_the_same() -> None:
    assert windows.shuffled(50, 1) == windows.shuffled(50, 1)
    assert windows.shuffled(50, 1) != windows.shuffled(50, 2)
    assert sorted(windows.shuffled(50, 3)) == list(range(50))
