"""Deleting in the cache screen: the plan, the question, what is refused, the report, the way back."""

from __future__ import annotations

import threading

import pytest
from fixtures.cache_things import (
    NEW,
    OLD,
    artifact,
    names,
    open_in_a_process,
    opened,
    own_places,
    repository,
    settled,
    title,
)
from fixtures.pilots import screen_text, wait_until
from fixtures.plain_wizard import PlainWizard

from quantui.domain.caches.words import sized
from quantui.tui.screens.cache import CacheScreen
from quantui.tui.screens.cache_plan import CachePlan
from quantui.tui.screens.cache_progress import CacheProgress


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch):
    return own_places(monkeypatch, tmp_path)


async def planned(pilot):
    """The plan, once it was looked at again."""
    await pilot.press("d")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, CachePlan))
    await wait_until(pilot, lambda: pilot.app.screen.plan is not None)
    await pilot.pause()


async def ended(pilot):
    """The report."""
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, CacheProgress))
    await wait_until(pilot, lambda: pilot.app.screen.job.seen)
    await pilot.pause()


async def test_the_plan_says_what_goes_how_it_comes_back_and_the_bytes():
    artifact("first", 1000)
    artifact("second", 2000)
    async with PlainWizard().run_test(size=(120, 30)) as pilot:
        await opened(pilot)
        await pilot.press("a")
        await planned(pilot)
        text = screen_text(pilot)
        assert "delete 2 things?" in text
        assert "Frees 3.0 MiB: 2 merged models." in text
        assert "made from" in text
        assert "The disk then has" in text


async def test_keeping_everything_is_what_enter_does():
    path = artifact("kept")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await planned(pilot)
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, CacheScreen))
        assert path.is_dir()
        assert pilot.app.screen.kept.job is None


async def test_without_a_selection_the_highlighted_thing_is_meant():
    artifact("large", 500)
    artifact("small", 10)
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await planned(pilot)
        assert [item.name.split("--")[0] for item in pilot.app.screen.plan.goes] == ["large"]


async def test_what_is_deleted_is_gone_from_the_disk_and_the_table_and_the_bytes_are_told():
    path, other = artifact("gone", 1000), artifact("other", 10)
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await pilot.press("space")
        await planned(pilot)
        frees = pilot.app.screen.plan.frees
        await pilot.press("x")
        await ended(pilot)
        assert pilot.app.screen.job.report.freed == frees
        assert f"Deleted 1 merged model: {sized(frees)} freed" in screen_text(pilot)
        assert f"really freed {sized(frees)}, planned {sized(frees)}" in screen_text(pilot)
        assert not path.exists()
        assert other.is_dir()
        await pilot.press("escape")
        await settled(pilot)
        assert [name.split("--")[0] for name in names(pilot)] == ["other"]
        assert "selected" not in title(pilot)


async def test_what_was_moved_to_the_trash_comes_back_with_u():
    path = artifact("back", 100)
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await planned(pilot)
        await pilot.press("t")
        await ended(pilot)
        assert "freed when the trash is emptied" in screen_text(pilot)
        assert not path.exists()
        await pilot.press("escape")
        await settled(pilot)
        await wait_until(pilot, lambda: [line.item.kind for line in pilot.app.screen.table.rows])
        assert pilot.app.screen.table.rows[0].item.kind == "trash"
        await pilot.press("u")
        await wait_until(pilot, path.is_dir)
        await settled(pilot)
        await wait_until(pilot, lambda: pilot.app.screen.table.rows[0].item.kind == "merged")


async def test_the_report_brings_back_too():
    path = artifact("back", 100)
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        await planned(pilot)
        await pilot.press("t")
        await ended(pilot)
        await pilot.press("u")
        await wait_until(pilot, path.is_dir)


async def test_with_nothing_in_the_trash_there_is_nothing_to_undo():
    artifact("there")
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        await opened(pilot)
        assert pilot.app.screen.check_action("undo", ()) is None


async def test_what_a_process_uses_stays_and_the_process_is_named():
    path = artifact("served", 100)
    artifact("free", 10)
    async with PlainWizard().run_test(size=(120, 30)) as pilot:
        await opened(pilot)
        await pilot.press("a")
        # It was not in use when the disk was looked at.
        with open_in_a_process(path / "more.safetensors") as pid:
            await planned(pilot)
            assert f"process {pid}" in screen_text(pilot)
            await pilot.press("x")
            await ended(pilot)
            assert path.is_dir()
            assert [one.item.name.split("--")[0] for one in pilot.app.screen.job.done] == ["free"]


async def test_with_only_what_is_in_use_there_is_nothing_to_agree_to():
    path = artifact("served")
    async with PlainWizard().run_test(size=(100, 30)) as pilot:
        with open_in_a_process(path / "more.safetensors"):
            await opened(pilot)
            await planned(pilot)
            assert "Nothing of it may go now." in screen_text(pilot)
            await pilot.press("x", "t")
            assert isinstance(pilot.app.screen, CachePlan)


async def test_a_revision_of_the_hub_goes_and_what_the_other_shares_stays(hub):
    folder = repository(hub, "pilot/model", kib=512)
    async with PlainWizard().run_test(size=(120, 30)) as pilot:
        await opened(pilot)
        await pilot.press("right")
        await wait_until(pilot, lambda: len(names(pilot)) == 3)
        rows = pilot.app.screen.table.rows
        old = next(at for at, line in enumerate(rows) if OLD in line.item.path)
        await pilot.press(*["down"] * old, "space")
        await planned(pilot)
        assert "stay on the disk: other things hold them too" in screen_text(pilot)
        assert pilot.app.screen.moved.goes == ()
        await pilot.press("x")
        await ended(pilot)
        assert not (folder / "snapshots" / OLD).exists()
        assert (folder / "snapshots" / NEW / "weights.bin").read_bytes()


# --- while it goes on


@pytest.fixture
def gate(monkeypatch):
    """The real deletion, which waits before its second thing until this is set."""
    from quantui.runtime.caches import deleting

    opened_ = threading.Event()
    real = deleting.delete

    def gated(plan, **kwargs):
        for number, event in enumerate(real(plan, **kwargs)):
            yield event
            if number == 0:
                opened_.wait(30)

    monkeypatch.setattr(deleting, "delete", gated)
    yield opened_
    opened_.set()


async def deleting(pilot):
    """Two things are being deleted."""
    await opened(pilot)
    await pilot.press("a")
    await planned(pilot)
    await pilot.press("x")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, CacheProgress))


async def test_escape_asks_while_it_goes_on(gate):
    artifact("first")
    artifact("second")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await deleting(pilot)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "Deleting goes on" in screen_text(pilot))
        await pilot.press("w")
        assert isinstance(pilot.app.screen, CacheProgress)
        gate.set()
        await ended(pilot)
        assert "Deleted 2 merged models" in screen_text(pilot)


async def test_it_is_stopped_and_says_what_was_not_begun(gate):
    first, second = artifact("first"), artifact("second")
    async with PlainWizard().run_test(size=(80, 24)) as pilot:
        await deleting(pilot)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "Deleting goes on" in screen_text(pilot))
        await pilot.press("x")
        gate.set()
        await ended(pilot)
        assert pilot.app.screen.job.report.cancelled
        assert "cancelled" in screen_text(pilot)
        assert first.is_dir() or second.is_dir()


async def test_it_goes_on_when_the_screen_is_left_and_is_shown_on_coming_back(gate):
    first, second = artifact("first"), artifact("second")
    async with PlainWizard().run_test(size=(80, 24), notifications=True) as pilot:
        await deleting(pilot)
        await pilot.press("escape")
        await wait_until(pilot, lambda: "Deleting goes on" in screen_text(pilot))
        await pilot.press("l")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, CacheScreen))
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(pilot.app.screen, CacheScreen))
        await pilot.press("c")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, CacheProgress))
        await pilot.press("escape", "l", "escape")
        gate.set()
        await wait_until(pilot, lambda: not first.exists() and not second.exists())
        await wait_until(pilot, lambda: "Deleted 2 merged models" in screen_text(pilot))


async def test_quitting_asks_and_stops_it(gate):
    first, second = artifact("first"), artifact("second")
    app = PlainWizard()
    async with app.run_test(size=(80, 24)) as pilot:
        await deleting(pilot)
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: "Quit while things are deleted?" in screen_text(pilot))
        await pilot.press("x")
        gate.set()
        await wait_until(pilot, lambda: app.return_value is not None)
    assert first.is_dir() or second.is_dir()


async def test_quitting_can_wait_for_its_end(gate):
    first, second = artifact("first"), artifact("second")
    app = PlainWizard()
    async with app.run_test(size=(80, 24)) as pilot:
        await deleting(pilot)
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: "Quit while things are deleted?" in screen_text(pilot))
        await pilot.press("w")
        gate.set()
        await wait_until(pilot, lambda: app.return_value is not None)
    assert not first.exists()
    assert not second.exists()
