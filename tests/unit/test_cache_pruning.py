"""What prune chooses: what is of no use, what is old, and more by regret, until budget and free space are met."""

from __future__ import annotations

import os
import random

import pytest

from quantui.domain.caches.deletion import freed_by, on_disk, plan_deletion
from quantui.domain.caches.freeing import Freeing
from quantui.domain.caches.items import (
    CacheDisk,
    CacheItem,
    Claim,
    DiskUse,
    Kind,
    ProcessUse,
    Rebuild,
)
from quantui.domain.caches.pruning import Pruned, PruneRules, budget_used, by_regret, prune

NOW = 1_800_000_000.0
DAY = 86400.0
GB = 10**9
NOTHING = PruneRules()
AGAIN = Rebuild("download it again")
LOST = Rebuild("nothing makes it again", possible=False)
BUSY = (ProcessUse(42, "vllm", "was started with it"),)


def thing(name, kind=Kind.HUB, size=GB, days=0.0, **known) -> CacheItem:
    """A thing that was last used ``days`` ago and can be downloaded again."""
    known.setdefault("rebuild", AGAIN)
    known.setdefault("used_at", NOW - days * DAY)
    known.setdefault("use", DiskUse(size, size))
    root = known.pop("root", "/data")
    return CacheItem(kind, name, f"{root}/{name}", root, known.pop("use"), **known)


def revision(name, repo, *, detached=False, days=0.0, size=GB, **known) -> CacheItem:
    return thing(
        name, Kind.REVISION, size, days, parent=f"/data/{repo}", detached=detached, **known
    )


def known(*items: CacheItem) -> dict[str, CacheItem]:
    return {item.path: item for item in items}


def pruned(*items: CacheItem, rules: PruneRules = NOTHING, free: int = 0) -> Pruned:
    disks = [CacheDisk(1, ("/data",), free, 1000 * GB)]
    return prune(known(*items), rules, now=NOW, disks=disks)


def names(found: Pruned) -> list[str]:
    return [one.item.name for one in found.chosen]


# Of no use any more


@pytest.mark.parametrize(
    ("kind", "days", "goes"),
    [
        (Kind.INCOMPLETE, 0.5, False),
        (Kind.INCOMPLETE, 1.5, True),
        (Kind.UNFINISHED, 6, False),
        (Kind.UNFINISHED, 8, True),
        (Kind.BROKEN, 6, False),
        (Kind.BROKEN, 8, True),
        (Kind.TRASH, 6, False),
        (Kind.TRASH, 8, True),
        (Kind.HUB, 4000, False),
        (Kind.MERGED, 4000, False),
        (Kind.RUN, 4000, False),
    ],
)
def test_without_rules_only_what_nobody_goes_on_with_goes(kind, days, goes):
    found = pruned(thing("it", kind, days=days, trashable=True))
    assert names(found) == (["it"] if goes else [])
    assert all(one.why for one in found.chosen)


def test_what_says_nothing_of_its_age_stays():
    kinds = (Kind.INCOMPLETE, Kind.UNFINISHED, Kind.BROKEN)
    items = [thing(str(kind), kind, used_at=None) for kind in kinds]
    assert names(pruned(*items)) == []


def test_what_is_half_deleted_goes_at_once():
    assert names(pruned(thing("half", Kind.TRASH, trashable=False))) == ["half"]


def test_how_long_trash_is_kept_is_a_rule():
    item = thing("it", Kind.TRASH, days=2, trashable=True)
    assert names(pruned(item, rules=PruneRules(trash_older_than=DAY))) == ["it"]


def test_a_revision_that_lost_its_name_goes_once_another_has_it():
    repo = thing("repo", size=2 * GB)
    old, new = revision("old", "repo", detached=True, days=9), revision("new", "repo")
    assert names(pruned(repo, old, new)) == ["old"]


def test_a_revision_that_was_asked_for_by_its_commit_stays():
    repo = thing("repo", days=9)
    assert names(pruned(repo, revision("only", "repo", detached=True, days=9))) == []
    named, fresh = revision("new", "repo"), revision("fresh", "repo", detached=True, days=1)
    assert names(pruned(repo, named, fresh)) == []


@pytest.mark.parametrize(
    "held",
    [{"users": BUSY}, {"profiles": ("/srv/prod.toml",)}, {"keep": "it is uv's own"}],
)
def test_what_somebody_holds_stays_however_useless_or_old(held):
    rules = PruneRules(older_than=DAY, budget=0, keep_free=10**15)
    items = [thing(str(kind), kind, days=4000, **held) for kind in (Kind.UNFINISHED, Kind.HUB)]
    assert names(pruned(*items, rules=rules)) == []


def test_a_repository_stays_whole_where_a_part_of_it_is_held():
    rules = PruneRules(older_than=DAY, budget=0)
    for held in ({"users": BUSY}, {"profiles": ("/srv/prod.toml",)}):
        repo = thing("repo", days=50)
        assert names(pruned(repo, revision("r", "repo", days=50, **held), rules=rules)) == []


def test_a_repository_that_is_being_downloaded_stays():
    rules = PruneRules(older_than=DAY, budget=0)
    part = thing("part", Kind.INCOMPLETE, days=0.1, parent="/data/repo")
    assert names(pruned(thing("repo", days=50), part, rules=rules)) == []


# Old


def test_older_than_takes_what_can_be_had_again_and_was_not_used_for_so_long():
    rules = PruneRules(older_than=30 * DAY)
    found = pruned(
        thing("old", days=31),
        thing("new", days=29),
        thing("lost", Kind.MERGED, days=99, rebuild=LOST),
        thing("unclear", Kind.MERGED, days=99, rebuild=None),
        thing("mine", Kind.FOLDER, days=99),
        thing("record", Kind.RUN, days=99, rebuild=LOST),
        thing("unknown", used_at=None),
        rules=rules,
    )
    assert names(found) == ["old"]
    assert "31 d" in found.chosen[0].why


def test_records_of_runs_go_only_where_they_are_named():
    item = thing("record", Kind.RUN, days=99, rebuild=LOST)
    rules = PruneRules(older_than=30 * DAY, kinds=frozenset({Kind.RUN}))
    assert names(pruned(item, rules=rules)) == ["record"]


def test_kinds_limit_everything():
    rules = PruneRules(older_than=DAY, budget=0, kinds=frozenset({Kind.MERGED}))
    items = [thing("hub", days=50), thing("merged", Kind.MERGED, days=50)]
    items += [thing("unfinished", Kind.UNFINISHED, days=50)]
    assert names(pruned(*items, rules=rules)) == ["merged"]


def test_a_part_goes_with_its_whole_and_is_not_named_again():
    rules = PruneRules(older_than=30 * DAY)
    repo, part = thing("repo", days=50), thing("p", Kind.INCOMPLETE, days=50, parent="/data/repo")
    assert names(pruned(repo, part, rules=rules)) == ["repo"]


# Room


def test_what_was_unused_for_longest_goes_first():
    items = known(thing("a", days=3), thing("b", days=30), thing("c", days=300))
    assert [item.name for item in by_regret(items, now=NOW)] == ["c", "b", "a"]


def test_what_took_an_hour_to_make_outlasts_what_took_a_minute():
    items = known(
        thing("quantized", Kind.QUANTIZED, days=40, rebuild=Rebuild("made", seconds=3600)),
        thing("merged", Kind.MERGED, days=30, rebuild=Rebuild("made", seconds=60)),
    )
    assert [item.name for item in by_regret(items, now=NOW)] == ["merged", "quantized"]


def test_what_is_small_is_not_worth_its_trouble():
    items = known(thing("small", size=4096, days=300), thing("large", days=100))
    assert [item.name for item in by_regret(items, now=NOW)] == ["large", "small"]


def test_trash_and_leftovers_go_before_anything_of_use():
    items = known(
        thing("old", days=4000),
        thing("part", Kind.INCOMPLETE, days=2),
        thing("thrown", Kind.TRASH, days=0, trashable=True),
    )
    assert [item.name for item in by_regret(items, now=NOW)] == ["thrown", "part", "old"]


def test_what_nothing_makes_again_and_what_is_the_users_is_never_given_up():
    items = known(
        thing("lost", Kind.MERGED, days=50, rebuild=LOST),
        thing("unclear", Kind.MERGED, days=50, rebuild=None),
        thing("mine", Kind.FOLDER, days=50),
        thing("record", Kind.RUN, days=50, rebuild=LOST),
    )
    assert by_regret(items, now=NOW) == ()


def test_a_budget_takes_no_more_than_it_needs():
    items = [thing("a", days=300), thing("b", days=200), thing("c", days=100)]
    found = pruned(*items, rules=PruneRules(budget=int(2.5 * GB)))
    assert names(found) == ["a"]
    assert "last used 10 months ago" in found.chosen[0].why
    assert found.shortfalls == ()


def test_a_budget_that_is_kept_takes_nothing():
    assert names(pruned(thing("a", days=300), rules=PruneRules(budget=GB))) == []


def test_what_turns_out_not_to_be_needed_stays():
    items = [thing("s", size=GB, days=900), thing("m", size=2 * GB, days=800)]
    items += [thing("l", size=20 * GB, days=10)]
    found = pruned(*items, rules=PruneRules(budget=3 * GB))
    assert names(found) == ["l"]


def test_the_users_folders_do_not_count_against_the_budget():
    items = [thing("mine", Kind.FOLDER, size=50 * GB), thing("a", days=9)]
    assert budget_used(items) == GB
    assert names(pruned(*items, rules=PruneRules(budget=GB))) == []


def test_free_space_is_made_on_each_disk_by_what_lies_on_it():
    here, there = thing("here", days=900), thing("there", days=10, root="/fast")
    disks = [CacheDisk(1, ("/data",), 50 * GB, 99 * GB), CacheDisk(2, ("/fast",), GB, 99 * GB)]
    rules = PruneRules(keep_free=2 * GB)
    found = prune(known(here, there), rules, now=NOW, disks=disks)
    assert names(found) == ["there"]


def test_shared_bytes_count_once_all_who_hold_them_go():
    def holder(name: str, days: float) -> CacheItem:
        return thing(name, days=days, use=DiskUse(0, 1, (Claim("1:2", 1, 2, 5 * GB),)))

    items = [holder("a", 300), holder("b", 200), thing("c", days=1, size=9 * GB)]
    found = pruned(*items, rules=PruneRules(budget=9 * GB))
    assert sorted(names(found)) == ["a", "b"]


def test_a_goal_out_of_reach_says_by_how_much_and_why():
    items = [
        thing("a", days=300),
        thing("busy", users=BUSY),
        thing("used", size=2 * GB, profiles=("/srv/prod.toml",)),
        thing("lost", Kind.MERGED, rebuild=LOST),
    ]
    found = pruned(*items, rules=PruneRules(budget=GB))
    assert names(found) == ["a"]
    (short,) = found.shortfalls
    assert short.missing == 3 * GB
    assert "budget" in short.goal
    assert "used by profiles" in short.why
    assert "in use by running processes" in short.why
    assert "not to be had again" in short.why


def test_what_others_hold_too_is_named_where_a_goal_is_missed():
    item = thing("engine", Kind.ENGINE, days=9, use=DiskUse(0, GB, (Claim("1:2", 1, 2, 4 * GB),)))
    (short,) = pruned(item, rules=PruneRules(budget=GB)).shortfalls
    assert short.missing == 3 * GB
    assert "of what goes, which others hold too" in short.why


def test_a_disk_that_others_fill_is_said_to_be():
    (short,) = pruned(thing("a"), rules=PruneRules(keep_free=5 * GB), free=GB).shortfalls
    assert short.missing == 3 * GB
    assert "/data" in short.goal
    assert "not in this list" in short.why


def test_a_repository_takes_the_place_of_its_parts_that_go_anyway():
    old = revision("old", "repo", detached=True, days=99, size=GB)
    new = revision("new", "repo", days=99, size=3 * GB)
    found = pruned(thing("repo", size=4 * GB, days=99), old, new, rules=PruneRules(budget=0))
    assert names(found) == ["repo"]
    assert found.shortfalls == ()


# Over random things


@pytest.fixture(scope="module")
def dice():
    seed = int(os.environ["QUANTUI_CHAOS_SEED"])
    print(f"seed {seed}")
    return random.Random(seed)


def random_things(dice: random.Random) -> dict[str, CacheItem]:
    kinds = [kind for kind in Kind if kind not in (Kind.REVISION, Kind.INCOMPLETE)]
    items = []
    for number in range(dice.randint(0, 25)):
        claims = tuple(
            Claim(f"c{dice.randint(0, 5)}", dice.randint(1, 2), dice.randint(2, 5), GB)
            for _ in range(dice.randint(0, 2))
        )
        items.append(
            thing(
                f"t{number}",
                dice.choice(kinds),
                days=dice.uniform(0, 400),
                root=dice.choice(["/data", "/fast"]),
                use=DiskUse(0, dice.randint(0, 5 * GB), tuple({c.key: c for c in claims}.values())),
                rebuild=dice.choice([AGAIN, LOST, None, Rebuild("made", seconds=dice.uniform(1, 9999))]),
                users=dice.choice([(), (), (), BUSY]),
                profiles=dice.choice([(), (), (), ("/srv/p.toml",)]),
                trashable=dice.choice([True, False]),
            )
        )  # fmt: skip
    for repo in [item for item in items if item.kind is Kind.HUB]:
        for number in range(dice.randint(0, 3)):
            items.append(
                CacheItem(
                    Kind.REVISION, f"{repo.name}r{number}", f"{repo.path}/{number}", repo.root,
                    DiskUse(0, dice.randint(0, GB)), parent=repo.path,
                    used_at=NOW - dice.uniform(0, 30) * DAY, rebuild=AGAIN,
                    detached=dice.choice([True, False]), users=dice.choice([(), (), BUSY]),
                )
            )  # fmt: skip
    return known(*items)


def test_over_random_things_nothing_that_is_held_goes_and_goals_are_met_or_said_missed(dice):
    for _ in range(200):
        items = random_things(dice)
        rules = PruneRules(
            older_than=dice.choice([None, 30 * DAY]),
            budget=dice.choice([None, dice.randint(0, 50 * GB)]),
            keep_free=dice.choice([None, dice.randint(0, 40 * GB)]),
        )
        disks = [CacheDisk(1, ("/data",), 9 * GB, 99 * GB), CacheDisk(2, ("/fast",), GB, 99 * GB)]
        found = prune(items, rules, now=NOW, disks=disks)
        for one in found.chosen:
            parts = [part for part in items.values() if part.parent == one.item.path]
            assert one.why
            assert not any(each.users or each.profiles for each in (one.item, *parts))
            assert one.item.kind is not Kind.FOLDER
            assert one.item.parent not in {each.path for each in found.items}
        assert plan_deletion(found.items, items).stays == ()
        if rules.budget is not None and not any("budget" in each.goal for each in found.shortfalls):
            assert budget_used(items.values()) - freed_by(found.items) <= rules.budget
        for disk in disks:
            goes = [item for item in found.items if item.root in disk.roots]
            met = disk.free_bytes + freed_by(goes) >= (rules.keep_free or 0)
            missed = any(disk.roots[0] in each.goal for each in found.shortfalls)
            assert met != missed


def test_bytes_counted_one_by_one_are_those_counted_together(dice):
    for _ in range(200):
        items = [item for item in random_things(dice).values() if item.parent is None]
        freeing = Freeing([lambda _: True])
        for item in items:
            freeing.add(item)
        assert freeing.freed(0) == freed_by(items)
        gone = dice.sample(items, dice.randint(0, len(items)))
        for item in gone:
            freeing.remove(item)
        for item in gone:
            freeing.add(item)
        assert freeing.freed(0) == freed_by(items) <= on_disk(items)
