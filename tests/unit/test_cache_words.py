"""Sizes, ages, plans and reports as every face words them."""

from __future__ import annotations

import pytest

from quantui.domain.caches.deletion import Deleted, DeletionPlan, DeletionReport, Kept, Staying
from quantui.domain.caches.items import CacheItem, DiskUse, Kind, ProcessUse, Rebuild
from quantui.domain.caches.words import (
    KIND_WORDS,
    aged,
    ago,
    area_of,
    budget_words,
    counted,
    joined,
    plan_words,
    rebuilt,
    report_words,
    shown,
    sized,
    state_of,
    summed,
    titled,
)

GIB = 2**30


def thing(name="llama", kind=Kind.MERGED, size=GIB, root="/home/artifacts", **known) -> CacheItem:
    return CacheItem(kind, name, f"{root}/{name}", root, DiskUse(size, size), **known)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"), (512, "512 B"), (4096, "4.0 KiB"), (99 * 2**20, "99.0 MiB"),
        (14 * GIB, "14.00 GiB"), (1.5 * 2**40, "1.50 TiB"), (3000 * 2**40, "3000.00 TiB"),
        (None, "unknown"),
    ],
)  # fmt: skip
def test_sizes_are_in_the_unit_that_reads_best(count, text):
    assert sized(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5, "now"), (61, "1 min"), (7200, "2 h"), (3 * 86400, "3 d"), (59 * 86400, "59 d"),
        (61 * 86400, "2 months"), (729 * 86400, "24 months"), (800 * 86400, "2 y"),
    ],
)  # fmt: skip
def test_ages_are_in_the_largest_whole_unit(seconds, text):
    assert aged(seconds) == text


def test_a_time_that_is_unknown_or_to_come_is_said_so():
    assert ago(None, 100.0) == "unknown"
    assert ago(200.0, 100.0) == "just now"
    assert ago(0.0, 7200.0) == "2 h ago"


def test_every_kind_has_words_and_a_place():
    assert set(KIND_WORDS) == set(Kind)
    assert all(area_of(thing(kind=kind)) for kind in Kind)


def test_an_unfinished_engine_belongs_to_the_engines():
    assert area_of(thing(kind=Kind.UNFINISHED, root="/home/engines")) == "engines"
    assert area_of(thing(kind=Kind.UNFINISHED)) == "artifacts"


def test_one_and_many_are_counted():
    assert counted(1, Kind.RUN) == "1 run"
    assert counted(1204, Kind.RUN) == "1,204 runs"
    assert summed([thing(), thing(), thing(kind=Kind.RUN)]) == "2 merged models, 1 run"
    assert joined(["a", "b", "c"]) == "a, b and c"


def test_names_cannot_reach_the_terminal():
    hostile = "evil\x1b[31m\nname\udcff\u202e"
    assert shown(hostile) == "evil name�"
    assert "\x1b" not in titled(thing(hostile))
    assert "\x1b" not in state_of(thing(detail=hostile, profiles=(f"/p/{hostile}",)))
    assert "\x1b" not in rebuilt(Rebuild(hostile))


def test_how_it_comes_back_says_the_download_and_the_time():
    assert rebuilt(Rebuild("download a/b again", download=14 * GIB)) == (
        "download a/b again (14.00 GiB)"
    )
    assert rebuilt(Rebuild("fetched again", download=GIB)) == "fetched again (1.00 GiB to download)"
    told = "installed in 20 s, at most 0.31 GiB to download"
    assert rebuilt(Rebuild(told, download=int(0.31 * GIB))) == told
    assert rebuilt(Rebuild("made from a/b", seconds=242.0)) == "made from a/b; it took 4 min 02 s"
    assert rebuilt(Rebuild("made from a/b in 4 min 02 s", seconds=242.0)).count("4 min") == 1
    assert "nothing is known" in rebuilt(None)


def test_a_row_says_who_uses_it_and_for_which_profile():
    users = tuple(ProcessUse(pid, "python", "works in it") for pid in (7, 9))
    told = state_of(thing(users=users, profiles=("/srv/prod.toml",), detail="awq"))
    assert told == "in use by process 7 and 1 more; for prod.toml; awq"


def test_a_plan_says_what_goes_and_what_stays_because_it_is_shared():
    plan = DeletionPlan((thing(), thing("b")), (), 2 * GIB, GIB)
    assert (
        plan_words(plan)
        == "2 merged models: frees 2.00 GiB; 1.00 GiB stay, shared with other things."
    )
    trash = DeletionPlan((thing(),), (), 0, 0, to_trash=True)
    assert "freed only when the trash is emptied" in plan_words(trash)
    assert plan_words(DeletionPlan((), (), 0, 0)) == "There is nothing to delete."
    assert plan_words(DeletionPlan((), (Staying(thing(), "in use"),), 0, 0)) == "Nothing would go."


def test_a_report_sets_what_was_freed_beside_what_was_planned():
    plan = DeletionPlan((thing(),), (), GIB, 0)
    report = DeletionReport((Deleted(thing(), GIB),), (), GIB)
    assert report_words(report, plan) == "Deleted 1 merged model: 1.00 GiB freed, as planned."
    less = DeletionReport((Deleted(thing(), GIB // 4),), (), GIB // 4)
    assert (
        report_words(less, plan) == "Deleted 1 merged model: 256.0 MiB freed of 1.00 GiB planned."
    )


def test_a_report_says_what_stayed_and_what_was_not_begun():
    plan = DeletionPlan((thing("a"), thing("b"), thing("c")), (), 3 * GIB, 0)
    kept = Kept(thing("b"), "in use", GIB)
    report = DeletionReport((Deleted(thing("a"), GIB),), (kept,), 2 * GIB, cancelled=True)
    assert report_words(report, plan) == (
        "Deleted 1 merged model: 2.00 GiB freed of 3.00 GiB planned; 1 merged model stayed; "
        "cancelled, 1 not begun."
    )


def test_a_report_of_nothing_whole_says_what_is_gone_all_the_same():
    plan = DeletionPlan((thing(),), (), GIB, 0)
    assert report_words(DeletionReport((), (), 0), plan) == "Nothing was deleted."
    begun = DeletionReport((), (Kept(thing(), "stopped", GIB // 4),), GIB // 4, cancelled=True)
    assert "whole; 256.0 MiB freed of 1.00 GiB planned" in report_words(begun, plan)


def test_the_budget_says_how_far_it_is_used():
    assert budget_words(GIB, None) == "no budget set; 1.00 GiB would count"
    assert budget_words(GIB, 4 * GIB) == "1.00 GiB of the budget of 4.00 GiB (25%)"
    assert budget_words(6 * GIB, 4 * GIB).endswith("(150%, 2.00 GiB over it)")
    assert budget_words(GIB, 0).endswith("of a budget of nothing")
