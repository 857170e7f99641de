"""How a model is named: a folder, a Hub id, a Hub id at a revision."""

from __future__ import annotations

import pytest

from quantui.runtime.models import split_revision


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ("owner/model", ("owner/model", None)),
        ("owner/model@main", ("owner/model", "main")),
        ("owner/model@refs/pr/1", ("owner/model", "refs/pr/1")),
        ("gpt2@607a30d", ("gpt2", "607a30d")),
        ("owner/model@", ("owner/model@", None)),
        ("@main", ("@main", None)),
        ("./folder@2x", ("./folder@2x", None)),
        ("/data/me@home/model", ("/data/me@home/model", None)),
        ("~/models@old", ("~/models@old", None)),
    ],
)
def test_a_revision_stands_after_an_at_of_a_hub_id(ref, expected):
    assert split_revision(ref) == expected


def test_a_folder_that_is_there_is_taken_by_its_whole_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model@2x").mkdir()
    assert split_revision("model@2x") == ("model@2x", None)
