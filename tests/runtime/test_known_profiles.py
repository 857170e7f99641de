"""Every profile that was saved, opened or replayed is known, as long as its file is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
from checkpoint_folders import model_files, write

from quantui.cli import main
from quantui.runtime.known_profiles import known_profiles, note_profile
from quantui.runtime.last_profile import remember_profile


def profile(folder, name):
    path = folder / name
    path.write_text("schema = 1\n")
    return path


def names():
    return [one.path.name for one in known_profiles()]


def test_at_first_none_is_known():
    assert known_profiles() == ()


def test_those_used_last_come_first_and_each_once(tmp_path):
    for name in ("a.toml", "b.toml", "a.toml"):
        note_profile(profile(tmp_path, name), f"what {name}\ndoes")
    assert names() == ["a.toml", "b.toml"]
    assert known_profiles()[0].title == "what a.toml does"
    assert known_profiles()[0].seen_at > known_profiles()[1].seen_at


def test_the_one_that_the_wizard_remembers_is_among_them(tmp_path):
    remember_profile(profile(tmp_path, "a.toml"), "x")
    assert names() == ["a.toml"]


def test_one_that_is_replayed_is_known(tmp_path, capsys):
    path = tmp_path / "a.toml"
    path.write_text('schema = 1\n[model]\nid = "./not-there"\n')
    assert main(["--profile", str(path), "--dry-run"]) != 0
    assert names() == ["a.toml"]


def test_one_that_init_writes_is_known(tmp_path, capsys):
    model = write(tmp_path / "llama", model_files())
    path = tmp_path / "b.toml"
    assert main(["init", str(model), "--method", "none", "--out", str(path)]) == 0
    assert names() == ["b.toml"]


def test_a_file_that_is_gone_is_dropped(tmp_path, own_home):
    for name in ("a.toml", "b.toml"):
        note_profile(profile(tmp_path, name), "x")
    (tmp_path / "b.toml").unlink()
    assert names() == ["a.toml"]
    note_profile(tmp_path / "a.toml", "x")
    assert "b.toml" not in (own_home / "profiles.json").read_text()


def test_a_relative_path_is_kept_from_where_it_was_meant(tmp_path, monkeypatch):
    profile(tmp_path, "a.toml")
    monkeypatch.chdir(tmp_path)
    note_profile(Path("a.toml"), "x")
    monkeypatch.chdir("/")
    assert known_profiles()[0].path == tmp_path / "a.toml"


def test_no_more_than_two_hundred_are_kept(tmp_path, own_home):
    own_home.mkdir()
    many = [
        {"path": str(profile(tmp_path, f"{number}.toml")), "title": "x", "seen_at": 1.0}
        for number in range(250)
    ]
    (own_home / "profiles.json").write_text(json.dumps({"format": 1, "profiles": many}))
    note_profile(profile(tmp_path, "new.toml"), "x")
    assert len(known_profiles()) == 200
    assert names()[0] == "new.toml"


def test_two_that_are_noted_at_once_are_both_kept(tmp_path):
    program = (
        "import sys; from pathlib import Path; "
        "from quantui.runtime.known_profiles import note_profile; "
        "[note_profile(Path(name), 'x') for name in sys.argv[1:]]"
    )
    lots = [[profile(tmp_path, f"{who}{number}.toml") for number in range(20)] for who in "ab"]
    writers = [
        subprocess.Popen([sys.executable, "-c", program, *map(str, paths)]) for paths in lots
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert sorted(names()) == sorted(path.name for paths in lots for path in paths)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 9999,
        b'{"format": 1, "profiles": 3}',
        b'{"format": 1, "profiles": [3, {}, {"path": "x", "title": "t", "seen_at": 1}]}',
        b'{"format": 1, "profiles": [{"path": "/x\\u0000", "title": "t", "seen_at": 1}]}',
    ],
)
def test_what_is_damaged_counts_as_none_and_is_replaced(content, tmp_path, own_home):
    own_home.mkdir()
    (own_home / "profiles.json").write_bytes(content)
    assert known_profiles() == ()
    note_profile(profile(tmp_path, "a.toml"), "x")
    assert names() == ["a.toml"]


def test_a_name_that_is_no_utf8_is_kept(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.toml"))
    path.write_text("schema = 1\n")
    note_profile(path, "x")
    assert known_profiles()[0].path == path


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path, own_home):
    own_home.write_text("a file where the folder should be")
    note_profile(tmp_path / "a.toml", "x")
    assert known_profiles() == ()
