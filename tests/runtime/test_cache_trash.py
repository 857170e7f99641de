"""Moving things away and back: what comes back is what went, and nothing is ever overwritten."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest
from fixtures.cache_deletions import carried_out, deleted, planned
from fixtures.cache_things import artifact, open_in_a_process, own_places

from quantui.domain.caches.items import Kind
from quantui.domain.errors import QuantuiError
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.caches.inventory import collect
from quantui.runtime.caches.trash import last_trashed, restore, trashed_in


@pytest.fixture(autouse=True)
def _places(tmp_path, monkeypatch):
    own_places(monkeypatch, tmp_path)


def content(folder):
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(thing):
    with pytest.raises(QuantuiError) as error:
        restore(thing)
    return error.value.code


def test_what_was_moved_away_comes_back_as_it_was():
    folder = artifact("owner/base")
    before = content(folder)

    done = deleted(folder, to_trash=True)

    (gone,) = done.report.deleted
    assert done.report.freed == gone.freed == 0
    assert not folder.exists()
    assert Path(gone.trashed).is_dir()
    assert restore(gone.trashed) == folder
    assert content(folder) == before
    assert not (folder.parent / ".quantui-trash").exists()
    assert collect(kinds=[Kind.MERGED]).items[str(folder)].kind is Kind.MERGED


def test_the_trash_is_listed_with_what_it_was():
    folder = artifact("owner/base")
    name = collect(kinds=[Kind.MERGED]).items[str(folder)].name
    deleted(folder, to_trash=True)

    (item,) = collect(kinds=[Kind.TRASH]).items.values()

    assert (item.kind, item.name) == (Kind.TRASH, name)
    assert restore(item) == folder


def test_undo_finds_all_that_went_together_last():
    first, second, third = (artifact(f"owner/{name}") for name in ("one", "two", "three"))
    deleted(first, to_trash=True)
    deleted(second, third, to_trash=True)

    last = last_trashed()

    assert {Path(one.path) for one in last} == {second, third}
    assert {restore(one) for one in last} == {second, third}
    assert [Path(one.path) for one in last_trashed()] == [first]


def test_nothing_is_overwritten_and_what_went_stays_in_the_trash():
    folder = artifact("owner/base")
    (gone,) = deleted(folder, to_trash=True).report.deleted
    folder.mkdir()

    assert refused(gone.trashed) == "trash.taken"

    assert list(folder.iterdir()) == []
    folder.rmdir()
    assert restore(gone.trashed) == folder


def test_what_is_half_deleted_does_not_come_back():
    folder = artifact("owner/base")
    for number in range(20):
        (folder / f"shard-{number}").write_bytes(b"x")
    asked = iter(range(1000))
    deleted(folder, cancelled=lambda: next(asked) > 10)
    (left,) = trashed_in(folder.parent)

    assert last_trashed() == ()
    assert refused(left.folder) == "trash.half"


def test_emptying_frees_it_and_then_there_is_no_way_back():
    folder = artifact("owner/base")
    (gone,) = deleted(folder, to_trash=True).report.deleted
    item = collect(kinds=[Kind.TRASH]).items[gone.trashed]

    done = deleted(gone.trashed)

    assert done.report.freed == item.use.on_disk
    assert refused(gone.trashed) == "trash.gone"


def test_what_another_process_works_on_is_left_to_it():
    folder = artifact("owner/base")
    (gone,) = deleted(folder, to_trash=True).report.deleted
    plan = planned(gone.trashed)
    token = os.open(gone.trashed, os.O_RDONLY)
    fcntl.flock(token, fcntl.LOCK_EX)

    assert refused(gone.trashed) == "trash.busy"
    assert "Another process is working on it" in carried_out(plan).why[gone.trashed].replace(
        gone.trashed, "it"
    )
    os.close(token)
    assert restore(gone.trashed) == folder


def test_what_a_process_has_open_is_not_moved():
    folder = artifact("owner/base")
    plan = planned(folder, to_trash=True)
    with open_in_a_process(folder / "more.safetensors"):
        done = carried_out(plan)
    assert "in use" in done.why[str(folder)]
    assert folder.is_dir()


@pytest.mark.parametrize("path", ["/etc", "{root}/../escape", "{root}", "{root}/.quantui-trash/x"])
def test_a_note_that_points_elsewhere_brings_nothing_there(tmp_path, path):
    folder = artifact("owner/base")
    (gone,) = deleted(folder, to_trash=True).report.deleted
    note = Path(gone.trashed) / "what.json"
    what = json.loads(note.read_text())
    what["path"] = path.format(root=folder.parent)
    note.write_text(json.dumps(what))

    assert refused(gone.trashed) == "cache.outside"
    assert (Path(gone.trashed) / "it" / "quantui.json").is_file()


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"format": 1, "path": 3}'])
def test_what_says_nothing_of_itself_is_half_deleted_and_can_be_emptied(text):
    folder = artifact("owner/base")
    (gone,) = deleted(folder, to_trash=True).report.deleted
    (Path(gone.trashed) / "what.json").write_text(text)

    assert [one.half for one in trashed_in(folder.parent)] == [True]
    assert refused(gone.trashed) == "trash.half"
    assert deleted(gone.trashed).gone == [gone.trashed]


def test_a_move_that_did_not_come_to_pass_is_tidied_away():
    folder = artifact("owner/base")
    token = ArtifactStore().root / ".quantui-trash" / "20260101T000000Z-00000000"
    token.mkdir(parents=True)
    (token / "what.json").write_text("{}")
    assert collect(kinds=[Kind.TRASH]).items == {}

    deleted(folder)

    assert not token.parent.exists()


def test_a_name_that_is_no_text_comes_back():
    folder = artifact("owner/base")
    strange = Path(os.fsdecode(os.fsencode(folder) + b"-\xff"))
    folder.rename(strange)
    (gone,) = deleted(strange, to_trash=True).report.deleted

    assert restore(gone.trashed) == strange
    assert strange.is_dir()
