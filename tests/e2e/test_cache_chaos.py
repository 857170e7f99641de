"""Deleting at random: trees of links, loops and odd files, plans by chance, killed, two at once, swapped under way.

QUANTUI_CACHE_WORLDS says how many worlds each test tries (35), QUANTUI_CHAOS_SEED which: a failure names its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures.cache_deleter import Deleters
from fixtures.chaos_cases import (
    Case,
    a_case,
    freed_is_true,
    no_crash,
    nothing_else,
    nothing_half_looks_whole,
)
from fixtures.chaos_worlds import look
from fixtures.live_processes import wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = int(os.environ.get("QUANTUI_CHAOS_SEED", time.time_ns() % 1_000_000))
WORLDS = int(os.environ.get("QUANTUI_CACHE_WORLDS", "35"))

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")


@pytest.fixture(scope="module")
def deleters() -> Iterator[Deleters]:
    made = Deleters()
    yield made
    made.close()


@pytest.fixture
def cases(deleters: Deleters, request: pytest.FixtureRequest):
    """Worlds one after another, each removed before the next."""

    def them(*, users: bool = False, number: int = WORLDS) -> Iterator[Case]:
        for count in range(number):
            name = f"{request.node.name} {SEED} {count}"
            print(f"world {name!r}")
            with a_case(deleters, random.Random(name), unreadable=users) as case:
                yield case

    return them


def test_what_is_planned_goes_and_nothing_else(cases) -> None:
    for case in cases():
        done = case.run()
        no_crash(done)
        after = look(case.world.root)
        nothing_else(case, after, done)
        for path in done.report["deleted"]:
            assert not os.path.lexists(path), path
        assert set(done.report["deleted"]) | set(done.report["kept"]) == set(done.plan["goes"])
        freed_is_true(case, after, done)


def test_what_its_user_may_not_remove_stays_and_is_told(cases) -> None:
    """As a user without root's rights, folders closed to it among the rest."""
    for case in cases(users=True):
        done = case.run()
        no_crash(done)
        after = look(case.world.root)
        nothing_else(case, after, done)
        nothing_half_looks_whole(case, after)
        freed_is_true(case, after, done)
        for path in done.report["deleted"]:
            assert not os.path.lexists(path), path


def test_killed_at_any_moment_nothing_half_looks_whole_and_prune_finishes_it(cases) -> None:
    for case in cases():
        done = case.run(die_at=int(case.chance.triangular(1, 60, 5)))
        assert done.exit_code in {0, -9}, done.errors
        after = look(case.world.root)
        nothing_else(case, after, done)
        nothing_half_looks_whole(case, after)

        pruned = case.run(command=["cache", "prune", "--yes", "--trash-older-than", "7d"])
        no_crash(pruned)
        half = [path for path in look(case.world.root) if path.endswith(b"/it")]
        assert half == [], pruned.out


def test_two_at_once_do_not_hinder_each_other(cases) -> None:
    """One stops in the middle until the other is done, which has the same wishes."""
    for case in cases():
        first = case.errand(wait_at=int(case.chance.triangular(1, 40, 3)), go=case.go())
        pid = case.deleters.start(first)
        other = case.run(seed=case.chance.choice((first.seed, "another")))
        case.release(first)
        done = case.deleters.end(pid, first)
        no_crash(done)
        no_crash(other)
        after = look(case.world.root)
        goes = {**other.plan["goes"], **done.plan["goes"]}
        nothing_else(case, after, replace(done, plan={**done.plan, "goes": goes}))
        nothing_half_looks_whole(case, after)


def test_a_tree_that_changes_while_it_is_deleted(cases) -> None:
    """Files come and go, and folders turn into links out of it, in the middle of a deletion."""
    for case in cases():
        errand = case.errand()
        over = threading.Event()
        vandal = threading.Thread(target=_vandalize, args=(case, over, case.chance.random()))
        vandal.start()
        done = case.deleters.run(errand)
        over.set()
        vandal.join()
        no_crash(done)
        outside = os.fsencode(case.world.outside)
        kept = {path: entry for path, entry in case.before.items() if path.startswith(outside)}
        after = look(case.world.root)
        assert {path: after.get(path) for path in kept} == kept


def test_what_became_something_else_after_the_plan_stays(cases) -> None:
    """Replaced by a link out, or by another folder, or written into: none of it is what was agreed to."""
    for case in cases():
        errand = case.errand(go=case.go())
        pid = case.deleters.start(errand)
        case.planned(errand)
        plan = case.deleters.told(errand)
        changed = _change_one(case, plan)
        before = look(case.world.root)
        case.release(errand)
        done = case.deleters.end(pid, errand)
        no_crash(done)
        after = look(case.world.root)
        nothing_else(replace(case, before=before), after, done)
        if changed is not None:
            raw = os.fsencode(changed)
            mine = {
                path: one
                for path, one in before.items()
                if path == raw or path[: len(raw) + 1] == raw + b"/"
            }
            assert {path: after.get(path) for path in mine} == mine


def test_what_a_process_has_open_stays(cases) -> None:
    for case in cases(number=max(5, WORLDS // 5)):
        files = [
            path
            for path in sorted(case.world.home.glob("artifacts/*/model.safetensors"))
            if path.is_file()
        ]
        reader = subprocess.Popen(["tail", "-f", "/dev/null", files[0]], stdout=subprocess.DEVNULL)
        try:
            wait_for(lambda: files[0] in _open_files(reader.pid))  # noqa: B023
            done = case.run(chosen=[str(path.parent) for path in files])
        finally:
            reader.kill()
            reader.wait()
        no_crash(done)
        assert "in use: tail" in done.plan["stays"].get(str(files[0].parent), ""), done.plan
        assert files[0].exists()
        assert {str(path.parent) for path in files[1:]} == set(done.report["deleted"])


def _vandalize(case: Case, over: threading.Event, seed: float) -> None:
    """Until it is ``over``: files come and go in doomed places, and folders there become links out."""
    chance = random.Random(seed)
    tops = [case.world.home / "artifacts", *case.world.hubs]
    while not over.is_set():
        folders = [path for top in tops for path in _folders(top)]
        if not folders:
            return
        folder = chance.choice(folders)
        with contextlib.suppress(OSError, StopIteration):
            match chance.randrange(4):
                case 0:
                    (folder / f"new{chance.randrange(9)}").write_bytes(b"new")
                case 1:
                    next(path for path in folder.iterdir() if path.is_file()).unlink()
                case 2:
                    (folder / f"made{chance.randrange(9)}").mkdir()
                case 3 if folder.parent not in tops and folder not in tops:
                    moved = folder.with_name(f"moved{chance.randrange(9)}")
                    folder.rename(moved)
                    folder.symlink_to(case.world.outside)
        time.sleep(0.001)


def _folders(top: Path) -> list[Path]:
    found = []
    with contextlib.suppress(OSError):
        for parent, folders, _ in os.walk(top):
            if len(parent) > 1000:
                folders.clear()
            found.append(Path(parent))
    return found


def _change_one(case: Case, plan: str) -> str | None:
    """Make something else of one thing of the plan; gives its path, None where nothing was to be changed."""
    goes = json.loads(plan)["goes"]
    own = [
        path
        for path, kind in sorted(goes.items())
        if kind in {"merged", "unfinished", "run", "broken"}
    ]
    if not own:
        return None
    path = case.chance.choice(own)
    aside = case.world.root / "aside"
    match case.chance.randrange(3):
        case 0:
            Path(path).rename(aside)
            Path(path).symlink_to(case.world.outside)
        case 1:
            Path(path).rename(aside)
            shutil.copytree(case.world.outside, path)
        case 2:
            Path(path, "written meanwhile").write_bytes(b"precious")
    return path


def _open_files(pid: int) -> list[Path]:
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(link.readlink())
    return found
