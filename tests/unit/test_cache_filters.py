"""The language that picks and sorts what takes the disk, and the names that mean one thing."""

from __future__ import annotations

import pytest

from quantui.domain.caches.filters import KEYS, SORTS, Sort, parse_filter, parse_sort
from quantui.domain.caches.items import CacheItem, Claim, DiskUse, Kind, ProcessUse
from quantui.domain.caches.naming import find, pick, told_apart
from quantui.domain.errors import ExitCode, QuantuiError

NOW = 1_800_000_000.0
DAY = 86400.0
GB = 10**9


def thing(name="llama", kind=Kind.MERGED, size=0, **known) -> CacheItem:
    known.setdefault("path", f"/home/artifacts/{name}")
    return CacheItem(kind, name, known.pop("path"), "/home/artifacts", DiskUse(size, size), **known)


def matches(text: str, item: CacheItem) -> bool:
    return parse_filter(text).matches(item, NOW)


def refused(text: str) -> QuantuiError:
    with pytest.raises(QuantuiError) as caught:
        parse_filter(text)
    assert caught.value.code == "cache.bad-filter"
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    return caught.value


def test_an_empty_filter_matches_everything():
    assert matches("", thing())
    assert matches("   ", thing())


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("size>=10GB", 10 * GB), ("size>=10G", 10 * GB), ("size>=10gb", 10 * GB),
        ("size>=10GiB", 10 * 2**30), ("size>=1.5TB", 1500 * GB), ("size>=500MB", 500 * 10**6),
        ("size>=3KiB", 3072), ("size>=7B", 7),
    ],
)  # fmt: skip
def test_sizes_are_written_as_people_write_them(text, size):
    assert matches(text, thing(size=size))
    assert not matches(text, thing(size=size - 1))


@pytest.mark.parametrize(
    ("text", "days"),
    [("12h", 0.5), ("30d", 30), ("2w", 14), ("6m", 180), ("6months", 180), ("1y", 365)],
)
def test_ages_are_hours_days_weeks_months_and_years(text, days):
    assert matches(f"used>={text}", thing(used_at=NOW - days * DAY))
    assert not matches(f"used>={text}", thing(used_at=NOW - days * DAY + 1))
    assert matches(f"made<={text}", thing(made_at=NOW - days * DAY))


def test_all_words_must_hold():
    item = thing(size=20 * GB, used_at=NOW - 40 * DAY)
    assert matches("size>10GB used>30d kind=merged", item)
    assert not matches("size>10GB used>50d kind=merged", item)


def test_an_unknown_age_is_neither_more_nor_less_than_any():
    assert not matches("used>1h", thing(used_at=None))
    assert not matches("used<1h", thing(used_at=None))
    assert matches("used=unknown", thing(used_at=None))
    assert matches("used!=unknown", thing(used_at=NOW))


def test_what_was_used_in_the_future_was_used_now():
    assert matches("used<1h", thing(used_at=NOW + DAY))


def test_frees_is_what_deleting_it_alone_gives_back():
    use = DiskUse(0, 1 * GB, (Claim("1:2", 1, 2, 9 * GB),))
    item = CacheItem(Kind.HUB, "a/b", "/hub/a", "/hub", use)
    assert matches("size=10GB frees=1GB", item)


def test_kinds_are_several_with_commas_between_them():
    assert matches("kind=merged,quantized", thing(kind=Kind.QUANTIZED))
    assert not matches("kind=merged,quantized", thing(kind=Kind.RUN))
    assert matches("kind!=merged,quantized", thing(kind=Kind.RUN))


def test_a_bare_word_is_a_part_of_a_name_whatever_its_case():
    assert matches("LLAMA", thing("Meta-Llama-3"))
    assert matches("name~llama", thing("Meta-Llama-3"))
    assert not matches("name=llama", thing("Meta-Llama-3"))
    assert not matches("qwen", thing("Meta-Llama-3"))


def test_quotes_hold_spaces_together():
    assert matches('name~"my model"', thing("this is my model"))
    assert matches('"my model"', thing("this is my model"))
    assert not matches('"my model"', thing("model my"))


def test_a_quote_that_is_not_closed_yet_holds_to_the_end():
    assert matches('name~"my mod', thing("this is my model"))


def test_profiles_are_named_by_file_or_by_whether_there_are_any():
    used = thing(profiles=("/srv/prod.toml",))
    assert matches("profile=prod.toml", used)
    assert matches("profile=/srv/prod.toml", used)
    assert matches("profile~prod", used)
    assert matches("profile=any", used)
    assert matches("profile!=none", used)
    assert matches("profile=none", thing())
    assert not matches("profile=other.toml", used)


def test_busy_is_whether_a_process_uses_it():
    busy = thing(users=(ProcessUse(1, "python", "has files of it open"),))
    assert matches("busy=yes", busy)
    assert matches("busy!=no", busy)
    assert matches("busy=no", thing())


def test_places_are_named_by_area_and_root():
    assert matches("area=artifacts root~/home", thing())
    assert matches('area="hub cache"', thing(kind=Kind.HUB))
    assert matches("files>2", thing(files=3))


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("size>", "nothing after"),
        ("size>1", "no size"),
        ("size>10GX", "no size"),
        ("size~3", "size goes with"),
        ("used>30", "no time"),
        ("used=30d", "used goes with"),
        ("kind=mer", "nearest is merged"),
        ("kind=,", "no kind"),
        ("kind>merged", "kind goes with"),
        ("busy=perhaps", "yes or no"),
        ("busy~yes", "busy goes with"),
        ("files>1.5", "whole number"),
        (">10GB", "no key"),
        ("siz>10GB", "no key 'siz'"),
    ],
)
def test_a_word_that_is_not_understood_is_named_with_what_it_takes(word, says):
    error = refused(f"kind=run {word}")
    assert word in error.what
    assert says in error.what
    assert error.fix


def test_the_nearest_key_is_offered():
    assert "Did you mean size?" in refused("siz>10GB").fix
    assert all(key in refused("xyzzy=1").fix for key in KEYS)


@pytest.mark.parametrize("text", ["size>10GB used>30d kind=merged", 'name~"a b" busy=no'])
def test_every_beginning_of_a_filter_is_understood_or_refused_in_words(text):
    for end in range(len(text) + 1):
        try:
            parse_filter(text[:end])
        except QuantuiError as error:
            assert error.code == "cache.bad-filter"


def test_sizes_sort_largest_first_and_names_from_a_to_z():
    items = [thing("b", size=1), thing("a", size=2), thing("c", size=2)]
    assert [item.name for item in parse_sort("size").apply(items)] == ["a", "c", "b"]
    assert [item.name for item in parse_sort("size:asc").apply(items)] == ["b", "a", "c"]
    assert [item.name for item in parse_sort("name").apply(items)] == ["a", "b", "c"]
    assert [item.name for item in parse_sort("name:desc").apply(items)] == ["c", "b", "a"]


@pytest.mark.parametrize("key", ["used", "made"])
def test_ages_sort_oldest_first_and_unknown_ones_last_either_way(key):
    items = [
        thing("new", **{f"{key}_at": NOW}),
        thing("unknown"),
        thing("old", **{f"{key}_at": 1.0}),
    ]
    assert [item.name for item in parse_sort(key).apply(items)] == ["old", "new", "unknown"]
    assert [item.name for item in parse_sort(f"{key}:asc").apply(items)] == [
        "new",
        "old",
        "unknown",
    ]


def test_kinds_sort_together_the_largest_first():
    items = [thing("a", Kind.RUN, 1), thing("b", Kind.HUB, 1), thing("c", Kind.HUB, 2)]
    assert [item.name for item in parse_sort("kind").apply(items)] == ["c", "b", "a"]


@pytest.mark.parametrize("text", [*SORTS, "size:asc", "name:desc"])
def test_an_order_is_written_as_it_was_read(text):
    assert str(parse_sort(text)) == text
    assert parse_sort(str(Sort())) == Sort()


@pytest.mark.parametrize(
    ("text", "fix"), [("sise", "size"), ("size:down", "size:asc"), ("", "used")]
)
def test_an_order_that_does_not_exist_is_refused(text, fix):
    with pytest.raises(QuantuiError) as caught:
        parse_sort(text)
    assert caught.value.code == "cache.bad-sort"
    assert fix in caught.value.fix


# Names

REPO = "/hub/models--owner--llama"
COMMIT, OTHER = "1a2b3c4d" + "0" * 32, "1a2b9999" + "0" * 32


def revision(commit: str, detail: str = "main") -> CacheItem:
    return CacheItem(
        Kind.REVISION, f"owner/llama @ {commit[:8]}", f"{REPO}/snapshots/{commit}", "/hub",
        DiskUse(), detail, parent=REPO,
    )  # fmt: skip


def known(*items: CacheItem) -> dict[str, CacheItem]:
    return {item.path: item for item in items}


@pytest.fixture
def things():
    return known(
        CacheItem(Kind.HUB, "owner/llama", REPO, "/hub", DiskUse()),
        revision(COMMIT),
        revision(OTHER, "v1.0, old"),
        CacheItem(Kind.HUB, "other/qwen", "/hub/models--other--qwen", "/hub", DiskUse()),
        thing("base--merged--12"),
        CacheItem(Kind.FOLDER, "mine", "/data/mine", "/data", DiskUse()),
    )


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (REPO, REPO),
        (f"{REPO}/", REPO),
        ("owner/llama", REPO),
        ("Owner/LLaMA", REPO),
        ("llama", REPO),
        ("models--owner--llama", REPO),
        ("base--merged--12", "/home/artifacts/base--merged--12"),
        ("owner/llama@1a2b3", f"{REPO}/snapshots/{COMMIT}"),
        (f"owner/llama@{COMMIT}", f"{REPO}/snapshots/{COMMIT}"),
        ("owner/llama@main", f"{REPO}/snapshots/{COMMIT}"),
        ("owner/llama@v1.0", f"{REPO}/snapshots/{OTHER}"),
        ("1a2b9999", f"{REPO}/snapshots/{OTHER}"),
        ("mine", "/data/mine"),
    ],
)
def test_a_thing_is_meant_by_its_name_its_path_or_its_revision(things, name, path):
    assert find(things, name).path == path


def test_a_name_of_several_things_is_refused_with_all_of_them(things):
    with pytest.raises(QuantuiError) as caught:
        find(things, "owner/llama@1a2b")
    assert caught.value.code == "cache.ambiguous"
    assert caught.value.exit_code == ExitCode.BAD_INPUT
    assert COMMIT in caught.value.detail[0] + caught.value.detail[1]
    assert OTHER in caught.value.detail[0] + caught.value.detail[1]


def test_a_name_of_nothing_is_not_found_and_what_is_near_is_offered(things):
    with pytest.raises(QuantuiError) as caught:
        find(things, "owner/lama")
    assert (caught.value.code, caught.value.exit_code) == ("cache.not-found", ExitCode.NOT_FOUND)
    assert "owner/llama" in caught.value.fix


def test_a_part_of_a_name_names_nothing(things):
    with pytest.raises(QuantuiError, match="merged"):
        find(things, "base")


def test_filters_among_names_narrow_them(things):
    words = told_apart(["owner/llama", "used>30d"])
    assert words.names == ("owner/llama",)
    assert pick(things, words, now=NOW) == ()
    assert pick(things, told_apart(["owner/llama", "kind=hub"]), now=NOW)[0].path == REPO


def test_a_misspelt_filter_is_not_taken_for_a_name():
    with pytest.raises(QuantuiError, match="siz"):
        told_apart(["siz>10GB"])


def test_a_filter_alone_leaves_out_revisions_and_the_users_folders(things):
    picked = {item.kind for item in pick(things, told_apart([], filters=["busy=no"]), now=NOW)}
    assert picked == {Kind.HUB, Kind.MERGED}
    named = pick(things, told_apart(["kind=revision,folder"]), now=NOW)
    assert {item.kind for item in named} == {Kind.REVISION, Kind.FOLDER}
