"""The profile that was used last is offered again, as long as it is there."""

from __future__ import annotations

import json

import pytest

from quantui.runtime.last_profile import last_profile, last_profile_file, remember_profile


def test_at_first_there_is_none():
    assert last_profile() is None


def test_the_last_one_is_remembered_with_what_it_does(tmp_path):
    for name in ("a.toml", "b.toml"):
        (tmp_path / name).write_text("")
        remember_profile(tmp_path / name, f"llama, awq\n{name}")
    found = last_profile()
    assert found is not None
    assert (found.path, found.title) == (tmp_path / "b.toml", "llama, awq b.toml")
    assert found.saved_at > 0


def test_a_relative_path_is_remembered_from_where_it_was_meant(tmp_path, monkeypatch):
    (tmp_path / "a.toml").write_text("")
    monkeypatch.chdir(tmp_path)
    remember_profile(tmp_path.__class__("a.toml"), "x")
    monkeypatch.chdir("/")
    assert last_profile().path == tmp_path / "a.toml"


def test_a_file_that_is_gone_is_not_offered(tmp_path):
    (tmp_path / "a.toml").write_text("")
    remember_profile(tmp_path / "a.toml", "x")
    (tmp_path / "a.toml").unlink()
    assert last_profile() is None


@pytest.mark.parametrize(
    "content",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"format": 1, "path": 3, "title": "x", "saved_at": 1}',
        "\xff",
        "[" * 9999,
        json.dumps({"format": 1, "path": "/x\0", "title": "x", "saved_at": "nan"}),
    ],
)
def test_what_is_damaged_counts_as_none(content):
    last_profile_file().parent.mkdir(parents=True)
    last_profile_file().write_text(content)
    assert last_profile() is None


def test_a_disk_that_takes_nothing_stops_nothing(tmp_path, own_home):
    own_home.write_text("a file where the folder should be")
    remember_profile(tmp_path / "a.toml", "x")
    assert last_profile() is None
