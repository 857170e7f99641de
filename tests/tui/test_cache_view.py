"""What the cache screen shows of an inventory: sums, places, parts, and the selection."""

from __future__ import annotations

from dataclasses import replace

from quantui.domain.caches.filters import parse_filter
from quantui.domain.caches.items import CacheItem, Claim, DiskUse, Kind
from quantui.tui.cache_view import EVERYTHING, Viewer, Wanted, mark_of, may_go, next_order


def thing(name, alone, kind=Kind.MERGED, *, claims=(), parent=None, **more):
    use = DiskUse(alone, alone, tuple(claims))
    return CacheItem(kind, name, f"/r/{name}", "/r", use, parent=parent, **more)


def known(*things):
    return {item.path: item for item in things}


def view(items, **wanted):
    return Viewer().view(Wanted(items, **wanted))


def names(shown):
    return [line.item.name for line in shown.lines]


SHARED = Claim("1:2", 1, 2, 1000)


def test_what_two_things_share_counts_once_in_a_place():
    shown = view(known(thing("a", 10, claims=[SHARED]), thing("b", 20, claims=[SHARED])))
    assert shown.places[0].name == EVERYTHING
    assert shown.places[0].on_disk == 1030
    assert (shown.matching_bytes, shown.matching_frees) == (1030, 1030)


def test_selected_together_they_free_what_neither_frees_alone():
    items = known(thing("a", 10, claims=[SHARED]), thing("b", 20, claims=[SHARED]))
    one = view(items, selected=frozenset({"/r/a"})).selected
    both = view(items, selected=frozenset(items)).selected
    assert (one.frees, one.shared) == (10, 1000)
    assert (both.frees, both.shared) == (1030, 0)


def test_where_is_told_of_things_that_only_their_folder_tells_apart():
    other = replace(thing("twin", 5, Kind.HUB), path="/s/twin", root="/s")
    merged = replace(thing("twin", 4), path="/r/merged", root="/r")
    shown = view(known(thing("twin", 10, Kind.HUB), other, thing("single", 1, Kind.HUB), merged))
    told = {line.item.path: line.where for line in shown.lines}
    assert told == {"/r/twin": "/r", "/s/twin": "/s", "/r/single": "", "/r/merged": ""}


def test_of_a_folder_as_much_is_told_as_tells_it_from_the_others():
    roots = ("/home/me/hf/hub", "/mnt/disk/hf/hub", "/mnt/second-hub")
    twins = [replace(thing("twin", 1, Kind.HUB), path=f"{root}/t", root=root) for root in roots]
    two = {line.item.root: line.where for line in view(known(*twins[1:])).lines}
    assert two == {"/mnt/disk/hf/hub": "…/hub", "/mnt/second-hub": "…/second-hub"}
    three = {line.item.root: line.where for line in view(known(*twins)).lines}
    assert three[roots[0]] == "…/me/hf/hub"
    assert three[roots[1]] == "…/disk/hf/hub"


def test_parts_are_shown_below_their_whole_once_it_is_opened():
    repo = thing("repo", 10, Kind.HUB)
    part = thing("part", 5, Kind.REVISION, parent=repo.path)
    items = known(part, repo, thing("other", 1))
    assert names(view(items)) == ["repo", "other"]
    assert names(view(items, opened=frozenset({repo.path}))) == ["repo", "part", "other"]


def test_a_filter_finds_parts_of_what_it_leaves_out():
    repo = thing("repo", 10, Kind.HUB)
    part = thing("part", 5, Kind.REVISION, parent=repo.path)
    shown = view(known(repo, part), filter=parse_filter("kind=revision"))
    assert names(shown) == ["part"]
    assert (shown.matching, shown.things) == (1, 1)


def test_what_may_not_go_and_what_is_not_shown_is_counted():
    items = known(thing("a", 10, keep="it is yours"), thing("b", 20))
    shown = view(items, selected=frozenset(items), filter=parse_filter("name~b"))
    assert (shown.selected.things, shown.selected.staying, shown.selected.hidden) == (2, 1, 1)
    assert may_go(view(items).lines) == ("/r/b",)


def test_sums_are_made_again_once_the_things_are_others():
    viewer = Viewer()
    before = viewer.view(Wanted(known(thing("a", 10))))
    after = viewer.view(Wanted(known(thing("a", 30))))
    assert (before.on_disk, after.on_disk) == (10, 30)


def test_a_part_of_a_selected_whole_goes_with_it():
    repo = thing("repo", 10, Kind.HUB)
    part = thing("part", 5, Kind.REVISION, parent=repo.path)
    assert mark_of(repo, {repo.path}, ()) == "●"
    assert mark_of(part, {repo.path}, ()) == "·"
    assert mark_of(repo, {part.path}, {repo.path}) == "◐"
    assert mark_of(repo, set(), ()) == ""


def test_the_orders_go_round():
    assert next_order("size") == "frees"
    assert next_order("name") == "size"
