"""What takes the disk, from Python: listed, freed and verified."""

from __future__ import annotations

import pytest
from fixtures import cache_things
from fixtures.cache_things import OLD, artifact, repository

import quantui
from quantui import QuantuiError, free_cache, list_cache, verify_cache
from quantui.domain.caches.deletion import Deleted, DeletionPlan
from quantui.domain.caches.items import Kind
from quantui.domain.errors import ExitCode


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    return cache_things.own_places(monkeypatch, tmp_path / "machine")


def test_things_are_listed_the_largest_first(hub):
    repository(hub, "calls/llama", kib=2048)
    artifact("base", 64)
    assert [item.kind for item in list_cache()] == [Kind.HUB, Kind.MERGED]
    assert [item.kind for item in list_cache("kind=merged size>1KB")] == [Kind.MERGED]
    assert len(list_cache(kinds=["revision"])) == 2


def test_what_is_not_understood_is_refused():
    with pytest.raises(QuantuiError, match="siz"):
        list_cache("siz>1GB")
    with pytest.raises(QuantuiError, match="merge"):
        list_cache(kinds=["merge"])


def test_a_dry_run_gives_the_plan_and_touches_nothing():
    path = artifact("base")
    plan = free_cache(path.name, dry_run=True)
    assert isinstance(plan, DeletionPlan)
    assert plan.frees > 0
    assert path.exists()


def test_things_are_freed_by_name_by_filter_and_as_they_were_listed():
    by_name, by_filter, listed = artifact("a"), artifact("b", days=40), artifact("c")
    heard = []
    report = free_cache(by_name.name, on_event=heard.append)
    assert report.freed == next(one for one in heard if isinstance(one, Deleted)).freed > 0
    assert free_cache("kind=merged used>30d").deleted[0].item.path == str(by_filter)
    assert len(free_cache(list_cache()).deleted) == 1
    assert not any(path.exists() for path in (by_name, by_filter, listed))


def test_nothing_given_frees_nothing():
    path = artifact("base")
    assert free_cache([]).deleted == ()
    assert path.exists()


def test_what_is_in_use_is_kept_and_said_so():
    path = artifact("base")
    with cache_things.open_in_a_process(path / "model.safetensors") as pid:
        report = free_cache(path.name)
    assert str(pid) in report.kept[0].why
    assert path.exists()


def test_an_item_that_is_gone_meanwhile_frees_nothing():
    path = artifact("base")
    items = list_cache()
    free_cache(path.name)
    assert free_cache(items).deleted == ()


def test_a_name_of_nothing_is_refused():
    with pytest.raises(QuantuiError) as caught:
        free_cache("nothing/such")
    assert caught.value.exit_code == ExitCode.NOT_FOUND


def test_what_is_freed_to_the_trash_is_not_lost():
    path = artifact("base")
    report = free_cache(str(path), to_trash=True)
    assert report.freed == 0
    assert report.deleted[0].trashed
    assert list_cache("kind=trash")[0].name == path.name


def test_models_are_verified(hub):
    repo = repository(hub, "calls/llama")
    assert [found.damaged for found in verify_cache()] == [False]
    blob = max((repo / "blobs").iterdir(), key=lambda one: one.stat().st_size)
    blob.write_bytes(blob.read_bytes()[:-1])
    assert [found.damaged for found in quantui.verify_cache("calls/llama")] == [True]
    assert verify_cache([]) == []
    assert verify_cache(f"calls/llama@{OLD[:8]}")[0].item.kind is Kind.REVISION
