"""The plan of a deletion: what it frees, what several things share, and what stays and why."""

from __future__ import annotations

import os
import random

import pytest

from quantui.domain.caches.deletion import freed_by, on_disk, outermost, plan_deletion
from quantui.domain.caches.items import CacheItem, Claim, DiskUse, Kind, ProcessUse

MB = 1_000_000


def thing(path, *claims, alone=MB, kind=Kind.MERGED, parent=None, **known):
    return CacheItem(
        kind, path, path, "/root", DiskUse(alone, alone, claims), parent=parent, **known
    )


def inventory(*items):
    return {item.path: item for item in items}


def plan(*chosen, everything=None, **options):
    return plan_deletion(chosen, inventory(*(everything or chosen)), **options)


def busy(how="has files of it open", pid=7):
    return (ProcessUse(pid, "vllm", how),)


def test_what_a_thing_alone_holds_is_freed():
    made = plan(thing("a"), thing("b"))
    assert (made.frees, made.shared) == (2 * MB, 0)


def test_what_others_hold_too_stays_and_is_told():
    made = plan(thing("a", Claim("1:2", 1, 2, 5 * MB)))
    assert (made.frees, made.shared) == (MB, 5 * MB)


def test_the_last_who_hold_it_free_it_together_and_once():
    one, other = (thing(name, Claim("1:2", 1, 2, 5 * MB)) for name in "ab")
    made = plan(one, other)
    assert (made.frees, made.shared) == (7 * MB, 0)


def test_where_the_numbers_differ_the_largest_counts():
    one, other = thing("a", Claim("1:2", 1, 2, MB)), thing("b", Claim("1:2", 1, 3, MB))
    assert plan(one, other).frees == 2 * MB


def test_what_shares_extents_is_never_freed():
    assert plan(thing("a", Claim("reflink:1:2", 1, 2, 5 * MB))).frees == MB


def test_a_repository_goes_with_its_revisions_which_count_once():
    repo = thing("r", kind=Kind.HUB, alone=9 * MB)
    parts = [thing(f"r/{n}", kind=Kind.REVISION, parent="r", alone=4 * MB) for n in range(2)]
    made = plan(repo, *parts)
    assert made.goes == (repo,)
    assert made.frees == 9 * MB
    assert on_disk([repo, *parts]) == 9 * MB


def test_revisions_free_what_they_share_when_all_who_hold_it_go():
    parts = [
        thing(f"r/{n}", Claim("1:9", 1, 2, 6 * MB), kind=Kind.REVISION, parent="r")
        for n in range(2)
    ]
    assert plan(parts[0]).frees == MB
    assert plan(*parts).frees == 8 * MB


@pytest.mark.parametrize("part_is_chosen", [True, False])
def test_a_repository_with_a_part_in_use_stays_whole(part_is_chosen):
    repo = thing("r", kind=Kind.HUB)
    used = thing("r/1", kind=Kind.REVISION, parent="r", users=busy())
    free = thing("r/2", kind=Kind.REVISION, parent="r")
    chosen = (repo, used, free) if part_is_chosen else (repo,)
    made = plan(*chosen, everything=(repo, used, free))
    assert made.goes == ()
    assert [one.item for one in made.stays] == [repo]
    assert made.stays[0].why == "in use: vllm (process 7) has files of it open"
    assert made.frees == 0


def test_a_revision_goes_though_another_is_in_use():
    repo = thing("r", kind=Kind.HUB)
    used = thing("r/1", kind=Kind.REVISION, parent="r", users=busy())
    free = thing("r/2", kind=Kind.REVISION, parent="r")
    assert plan(free, everything=(repo, used, free)).goes == (free,)


def test_a_folder_that_stays_lets_the_models_in_it_go():
    outer = thing("/m", kind=Kind.FOLDER, keep="it holds other models")
    inner = thing("/m/x", kind=Kind.FOLDER, parent="/m")
    innermost = thing("/m/x/y", kind=Kind.FOLDER, parent="/m/x")
    made = plan(outer, inner, innermost)
    assert made.goes == (inner,)
    assert [one.item for one in made.stays] == [outer]


def test_several_users_are_counted_and_the_first_is_named():
    users = (*busy("was started with it", 7), *busy(pid=7), *busy(pid=8), *busy(pid=9))
    made = plan(thing("a", users=users))
    assert made.stays[0].why == ("in use: vllm (process 7) was started with it, and 2 more")


def test_what_may_not_be_deleted_says_why():
    assert plan(thing("a", keep="it is uv's own")).stays[0].why == "it is uv's own"


def test_moving_away_frees_nothing_and_takes_only_what_can_come_back():
    stays, goes = thing("a"), thing("b", trashable=True)
    made = plan(stays, goes, to_trash=True)
    assert (made.goes, made.frees, made.shared) == ((goes,), 0, 0)
    assert made.stays[0].why == "it cannot be moved away and back, only deleted"
    again = plan(thing("t", kind=Kind.TRASH, trashable=True), to_trash=True)
    assert again.stays[0].why == "it is in the trash already"


def test_a_thing_chosen_twice_goes_once():
    one = thing("a")
    assert plan(one, one).goes == (one,)
    assert plan(one, one).frees == MB


def test_frees_of_any_choice_are_the_inodes_that_nobody_else_holds():
    seed = os.environ.get("QUANTUI_CHAOS_SEED", "1")
    print("seed", seed)
    drawn = random.Random(seed)
    for _ in range(200):
        holders = {
            inode: drawn.sample(range(6), drawn.randint(1, 4))
            for inode in range(drawn.randint(1, 9))
        }
        sizes = {inode: drawn.randint(1, 99) for inode in holders}
        things = []
        for number in range(6):
            alone, claims = 0, []
            for inode, who in holders.items():
                if who == [number]:
                    alone += sizes[inode]
                elif number in who:
                    claims.append(Claim(str(inode), 1, len(who), sizes[inode]))
            things.append(thing(str(number), *claims, alone=alone))
        chosen = drawn.sample(range(6), drawn.randint(0, 6))
        freed = sum(sizes[inode] for inode, who in holders.items() if set(who) <= set(chosen))
        held = sum(sizes[inode] for inode, who in holders.items() if set(who) & set(chosen))
        picked = [things[number] for number in chosen]
        assert freed_by(picked) == freed
        assert on_disk(picked) == held
        assert len(outermost(picked)) == len(picked)
