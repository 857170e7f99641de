"""`quantui cache`: what it prints where, what it asks, what it leaves alone, how it exits."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from fixtures import cache_things
from fixtures.cache_things import NEW, OLD, artifact, repository

from quantui.cli.main import main
from quantui.domain.caches.deletion import Deleted, Deleting, DeletionReport
from quantui.domain.errors import ExitCode
from quantui.runtime.caches import deleting
from quantui.runtime.settings import read_settings


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """A machine with nothing on it, and nobody at the terminal."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    monkeypatch.chdir(tmp_path)
    return cache_things.own_places(monkeypatch, tmp_path / "machine")


@pytest.fixture
def run(capsys):
    def run(*arguments):
        capsys.readouterr()
        code = main(["cache", *map(str, arguments)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return run


def lines(out: str) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


# ls


def test_an_empty_machine_says_so(run):
    code, out, err = run("ls")
    assert (code, err) == (ExitCode.OK, "")
    assert "Nothing takes any disk yet." in out
    assert "no budget set" in out


def test_ls_shows_the_largest_first_then_places_disk_and_budget(run, hub):
    repository(hub, "shell/llama", kib=2048)
    artifact("base", 512)
    code, out, err = run("ls")
    assert (code, err) == (ExitCode.OK, "")
    rows = [line for line in out.splitlines() if " hub " in line or " merged " in line]
    assert "shell/llama" in rows[0]
    assert "base" in rows[1]
    for word in ("SIZE", "FREES", "UNUSED", "hub cache", "artifacts", "free of", "budget"):
        assert word in out


def test_ls_filters_sorts_and_limits(run):
    for name, kib, days in (("a", 64, 40), ("b", 512, 40), ("c", 256, 1)):
        artifact(name, kib, days=days)
    _, out, _ = run("ls", "used>30d", "--sort", "size:asc")
    rows = [line for line in out.splitlines() if "--merged--" in line]
    assert ["a--merged" in rows[0], "b--merged" in rows[1], len(rows)] == [True, True, 2]
    assert "matching: 2 merged models" in out
    _, out, _ = run("ls", "--limit", "1")
    assert "and 2 more" in out


def test_ls_shows_revisions_when_asked(run, hub):
    repository(hub, "shell/llama")
    assert NEW[:8] not in run("ls")[1]
    assert NEW[:8] in run("ls", "--revisions")[1]
    assert NEW[:8] in run("ls", "kind=revision")[1]


def test_ls_json_is_one_document(run, hub):
    repository(hub, "shell/llama")
    artifact("base")
    code, out, err = run("ls", "--json")
    document = json.loads(out)
    assert (code, err) == (ExitCode.OK, "")
    assert {item["kind"] for item in document["items"]} == {"hub", "merged"}
    assert document["bytes_on_disk"] == sum(item["bytes_on_disk"] for item in document["items"])
    assert document["disks"][0]["free_bytes"] > 0
    assert document["budget_bytes"] is None


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("ls", "siz>1GB"), "Did you mean size?"),
        (("ls", "--kind", "merge"), "Did you mean merged?"),
        (("ls", "--sort", "sise"), "Did you mean size?"),
        (("ls", "--limit", "none"), "whole number"),
        (("rm",), "give a filter"),
        (("ls", "size"), "in quotes"),
        (("rm", "used", "--yes"), "in quotes"),
        (("prune", "--older-than", "30"), "--older-than 30d"),
        (("prune", "--keep-free", "lots"), "200GB"),
        (("budget", "200"), "200GB"),
    ],
)
def test_bad_arguments_are_refused_by_name(run, arguments, says):
    code, out, err = run(*arguments)
    assert (code, out) == (ExitCode.BAD_INPUT, "")
    assert says in err


def test_names_from_strangers_cannot_reach_the_terminal(run, own_home):
    folder = own_home / "runs" / os.fsdecode(b"20\x1b[31m-\xff")
    folder.mkdir(parents=True)
    (folder / "log").write_bytes(b"x" * 9000)
    _, out, _ = run("ls")
    assert " run " in out
    assert "\x1b" not in out
    json.loads(run("ls", "--json")[1])


def test_a_terminal_of_another_encoding_is_no_defect(own_home):
    folder = own_home / "runs" / "模型"
    folder.mkdir(parents=True)
    (folder / "log").write_bytes(b"x" * 9000)
    done = subprocess.run(
        [sys.executable, "-m", "quantui", "cache", "rm", "模型", "--yes"],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == ExitCode.OK
    assert not folder.exists()


def test_ls_loads_neither_the_hub_nor_a_terminals_libraries():
    code = (
        "import sys; from quantui.cli.main import main; main(['cache', 'ls']);"
        "print(sorted({'huggingface_hub', 'textual', 'rich', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


# rm


def test_rm_shows_its_plan_and_does_nothing_unasked(run):
    path = artifact("base", 512)
    code, out, err = run("rm", path.name)
    assert code == ExitCode.BAD_INPUT
    assert path.name in out
    assert "to have it again" in out
    assert "1 merged model: frees" in out
    assert "--yes" in err
    assert path.exists()


def test_rm_dry_run_asks_nothing_and_touches_nothing(run, hub):
    path = artifact("base", 512)
    code, out, err = run("rm", path, "--dry-run")
    assert (code, err) == (ExitCode.OK, "")
    assert path.name in out
    assert path.exists()


def test_rm_deletes_and_tells_what_was_really_freed(run):
    path = artifact("base", 512)
    code, out, _ = run("rm", path.name, "--yes")
    assert code == ExitCode.OK
    assert "as planned" in out
    assert not path.exists()


def test_rm_of_a_repository_leaves_the_others(run, hub):
    gone, stays = repository(hub, "shell/llama"), repository(hub, "shell/qwen")
    assert run("rm", "shell/llama", "--yes")[0] == ExitCode.OK
    assert not gone.exists()
    assert stays.exists()


def test_rm_of_a_revision_leaves_what_others_share(run, hub):
    repo = repository(hub, "shell/llama")
    code, out, _ = run("rm", f"shell/llama@{OLD[:8]}", "--yes")
    assert code == ExitCode.OK
    assert "shared" in out
    assert not (repo / "snapshots" / OLD).exists()
    assert all(path.exists() for path in (repo / "snapshots" / NEW).iterdir())


def test_rm_by_filter_takes_what_matches_alone(run):
    old, new = artifact("old", days=40), artifact("new", days=1)
    assert run("rm", "kind=merged", "used>30d", "--yes")[0] == ExitCode.OK
    assert not old.exists()
    assert new.exists()
    assert run("rm", "--filter", "used>30d", "--yes")[1] == "Nothing matches.\n"


def test_a_name_of_nothing_exits_with_5_and_offers_what_is_near(run, hub):
    repository(hub, "shell/llama")
    code, out, err = run("rm", "shell/lama", "--yes")
    assert (code, out) == (ExitCode.NOT_FOUND, "")
    assert "shell/llama" in err


def test_a_name_of_several_things_is_refused_with_all_of_them(run, hub):
    paths = [repository(hub, "shell/llama"), repository(hub, "other/llama")]
    code, _, err = run("rm", "llama", "--yes")
    assert code == ExitCode.BAD_INPUT
    assert all(str(path) in err and path.exists() for path in paths)


def test_what_a_process_uses_stays_and_exits_with_3(run):
    used, free = artifact("used"), artifact("free")
    with cache_things.open_in_a_process(used / "model.safetensors") as pid:
        code, out, _ = run("rm", used.name, free.name, "--yes")
    assert code == ExitCode.DOES_NOT_FIT
    assert f"process {pid}" in out
    assert used.exists()
    assert not free.exists()


def test_rm_json_tells_the_plan_the_events_and_the_report(run):
    path = artifact("base")
    code, out, err = run("rm", path.name, "--yes", "--json")
    told = lines(out)
    assert (code, err) == (ExitCode.OK, "")
    assert [one["type"] for one in told if one["type"] != "progress"] == [
        "plan", "deleting", "deleted", "report",
    ]  # fmt: skip
    assert told[0]["frees_bytes"] == told[-1]["freed_bytes"] > 0
    assert told[0]["goes"][0]["path"] == str(path)


def test_rm_json_without_yes_is_refused_as_json(run):
    artifact("base")
    code, out, err = run("rm", "kind=merged", "--json")
    assert code == ExitCode.BAD_INPUT
    assert lines(out)[0]["type"] == "plan"
    assert json.loads(err)["code"] == "cache.not-confirmed"


# trash and undo


def test_what_went_to_the_trash_comes_back(run):
    path, other = artifact("base", days=40), artifact("other")
    code, out, _ = run("rm", path.name, "--trash", "--yes")
    assert code == ExitCode.OK
    assert "undo" in out
    assert not path.exists()
    assert path.name in run("ls", "kind=trash")[1]
    code, out, _ = run("undo")
    assert code == ExitCode.OK
    assert str(path) in out
    assert path.exists()
    assert other.exists()


def test_undo_brings_back_what_is_named(run):
    paths = [artifact("a"), artifact("b")]
    for path in paths:
        run("rm", path.name, "--trash", "--yes")
    assert run("undo", paths[0].name, "--json")[0] == ExitCode.OK
    assert [path.exists() for path in paths] == [True, False]


def test_undo_of_nothing_exits_with_5(run):
    code, _, err = run("undo")
    assert code == ExitCode.NOT_FOUND
    assert "nothing in the trash" in err


def test_a_repository_cannot_go_to_the_trash_and_stays(run, hub):
    path = repository(hub, "shell/llama")
    code, out, _ = run("rm", "shell/llama", "--trash", "--yes")
    assert code == ExitCode.DOES_NOT_FIT
    assert "only deleted" in out
    assert path.exists()


# prune


def test_prune_finds_nothing_on_a_tidy_machine(run, hub):
    repository(hub, "shell/llama")
    code, out, _ = run("prune")
    assert (code, out) == (ExitCode.OK, "There is nothing to delete.\n")


def test_prune_deletes_what_is_of_no_use_and_says_why(run, hub):
    repo = cache_things.aged(repository(hub, "shell/llama"), 40)
    code, out, _ = run("prune", "--yes")
    assert code == ExitCode.OK
    assert "no branch or tag names it" in out
    assert not (repo / "snapshots" / OLD).exists()
    assert (repo / "snapshots" / NEW).exists()


def test_prune_older_than_takes_the_kinds_that_are_named(run, hub):
    repo, old = cache_things.aged(repository(hub, "shell/llama"), 40), artifact("old", days=40)
    new = artifact("new", days=2)
    code, _, _ = run("prune", "--older-than", "30d", "--kind", "merged", "--yes")
    assert code == ExitCode.OK
    assert not old.exists()
    assert new.exists()
    assert (repo / "snapshots" / OLD).exists()


def test_prune_keeps_the_budget_of_the_settings(run):
    old, new = artifact("old", 2048, days=40), artifact("new", 2048, days=2)
    assert run("budget", "3MiB")[0] == ExitCode.OK
    _, out, _ = run("prune", "--dry-run")
    assert "to make room" in out
    assert old.exists()
    assert run("prune", "--yes")[0] == ExitCode.OK
    assert not old.exists()
    assert new.exists()


def test_prune_says_what_it_cannot_reach_and_exits_with_3(run):
    artifact("base", days=1)
    code, out, _ = run("prune", "--keep-free", "900TB", "--kind", "run", "--yes")
    assert code == ExitCode.DOES_NOT_FIT
    assert "not met" in out


def test_prune_json_says_why_each_thing_goes(run):
    artifact("old", days=40)
    code, out, _ = run("prune", "--older-than", "30d", "--json", "--yes")
    assert code == ExitCode.OK
    assert "not used for 40 d" in lines(out)[0]["goes"][0]["why"]
    assert lines(out)[-1]["type"] == "report"


# verify


def test_verify_finds_what_is_right(run, hub):
    repository(hub, "shell/llama")
    code, out, _ = run("verify", "shell/llama")
    assert code == ExitCode.OK
    assert "✓" in out


def test_verify_finds_damage_and_exits_with_6(run, hub):
    repo = repository(hub, "shell/llama")
    blob = max((repo / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(blob.read_bytes())
    content[100] ^= 1
    blob.write_bytes(content)
    code, out, _ = run("verify")
    assert code == ExitCode.CHECK_FAILED
    assert "weights.bin" in out
    code, out, _ = run("verify", "--json")
    assert lines(out)[-1]["state"] == "damaged"


def test_verify_of_nothing_says_so(run):
    assert run("verify")[:2] == (ExitCode.OK, "There is nothing to check.\n")


# budget, add, forget


def test_a_budget_is_kept_shown_and_taken_back(run):
    assert run("budget", "200GB")[0] == ExitCode.OK
    assert read_settings().cache.budget == 200 * 10**9
    assert "186.26 GiB" in run("budget")[1]
    assert json.loads(run("budget", "--json")[1])["budget_bytes"] == 200 * 10**9
    assert run("budget", "none")[0] == ExitCode.OK
    assert read_settings().cache.budget is None


def test_a_folder_of_models_is_added_listed_and_forgotten(run, tmp_path):
    from fixtures.checkpoint_folders import model_files, write

    model = write(tmp_path / "mine" / "model", model_files())
    assert run("add", tmp_path / "mine")[0] == ExitCode.OK
    assert str(model) in run("ls", "kind=folder", "--json")[1]
    assert run("forget", tmp_path / "mine")[0] == ExitCode.OK
    assert "Nothing matches." in run("ls", "kind=folder")[1]
    assert model.exists()
    assert run("forget", tmp_path / "mine")[0] == ExitCode.NOT_FOUND


def test_another_cache_of_the_hub_is_added_as_one(run, tmp_path):
    repository(tmp_path / "other", "shell/far")
    assert "huggingface_hub" in run("add", tmp_path / "other")[1]
    assert "shell/far" in run("ls", "kind=hub")[1]
    assert run("forget", tmp_path / "other")[0] == ExitCode.OK
    assert "shell/far" not in run("ls")[1]


def test_repositories_of_one_name_in_two_caches_tell_their_folders(run, hub, tmp_path):
    repository(hub, "shell/twin")
    repository(hub, "shell/single")
    repository(tmp_path / "other", "shell/twin")
    run("add", tmp_path / "other")
    rows = [line for line in run("ls", "kind=hub", "shell")[1].splitlines() if "shell/" in line]
    named = {row.split("shell/")[1].split("  (")[0].rstrip() for row in rows}
    assert named == {f"twin  in {hub}", f"twin  in {tmp_path / 'other'}", "single"}


def test_a_filter_never_takes_the_users_own_folders_unnamed(run, tmp_path):
    from fixtures.checkpoint_folders import model_files, write

    model = cache_things.aged(write(tmp_path / "mine" / "model", model_files()), 40)
    run("add", tmp_path / "mine")
    assert run("rm", "used>30d", "--yes")[1] == "Nothing matches.\n"
    assert run("prune", "--older-than", "1d", "--budget", "1B", "--yes")[0] == ExitCode.OK
    assert model.exists()


# A person at the terminal


@contextmanager
def at_a_terminal(*arguments):
    """The command with a terminal for its input; gives it and the terminal's other end."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "quantui", "cache", *map(str, arguments)],
        stdin=follower, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(follower)
    try:
        yield process, leader
    finally:
        os.close(leader)
        process.kill()
        process.wait()


@pytest.mark.parametrize("answer", ["n", "", "what"])
def test_anything_but_yes_deletes_nothing(answer):
    path = artifact("base")
    with at_a_terminal("rm", path.name) as (process, leader):
        os.write(leader, f"{answer}\n".encode())
        out, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.CANCELLED
    assert path.name in out
    assert "Delete it? [y/N]" in err
    assert path.exists()


def test_yes_deletes():
    path = artifact("base")
    with at_a_terminal("rm", path.name) as (process, leader):
        os.write(leader, b"y\n")
        out, _ = process.communicate(timeout=60)
    assert process.returncode == ExitCode.OK
    assert "Deleted 1 merged model" in out
    assert not path.exists()


def test_an_interrupt_at_the_question_deletes_nothing():
    path = artifact("base")
    with at_a_terminal("rm", path.name) as (process, _):
        _read_until(process.stderr, "[y/N] ")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == ExitCode.CANCELLED
    assert path.exists()


def _read_until(stream, words: str) -> str:
    text = ""
    while not text.endswith(words):
        one = stream.read(1)
        assert one, text
        text += one
    return text


def test_somebody_at_the_terminal_is_told_what_is_looked_at():
    artifact("base")
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "quantui", "cache", "ls"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=follower,
        env={**os.environ, "TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(follower)
        out = process.stdout.read().decode()
        process.wait()
    told = os.read(leader, 100_000).decode()
    os.close(leader)
    assert "looking at the disk" in told
    assert told.endswith("\r\x1b[K")
    assert "looking at" not in out


def test_on_a_narrow_terminal_names_stay_whole(hub):
    path = artifact("a-base-with-a-name-of-some-length")
    repository(hub, "shell/llama")
    leader, follower = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "quantui", "cache", "ls"],
        stdin=subprocess.DEVNULL, stdout=follower, stderr=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "80"},
    ) as process:  # fmt: skip
        os.close(follower)
        process.wait()
    told = os.read(leader, 100_000).decode().splitlines()
    os.close(leader)
    assert any(line.endswith(path.name) for line in told)
    assert all(len(line) <= 80 for line in told if "shell/llama" in line)


def test_an_interrupt_in_the_middle_ends_cleanly_and_says_what_went(run, monkeypatch):
    first, second = artifact("a"), artifact("b")

    def slow(plan, *, cancelled):
        item = plan.goes[0]
        yield Deleting(item)
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 30
        while not cancelled() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        done = Deleted(item, item.use.on_disk)
        yield done
        yield DeletionReport((done,), (), done.freed, cancelled=cancelled())

    monkeypatch.setattr(deleting, "delete", slow)
    code, out, _ = run("rm", first.name, second.name, "--yes")
    assert code == ExitCode.CANCELLED
    assert "Deleted 1 merged model" in out
    assert "cancelled, 1 not begun" in out
