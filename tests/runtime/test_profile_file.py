"""Profiles on disk: written so that they can be read again, and changed without touching what is a person's."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

import pytest

from quantui.domain.draft import (
    SECTIONS,
    AdapterChoice,
    CheckChoice,
    Draft,
    EngineChoice,
    ModelChoice,
    Recorded,
    ServeChoice,
    options_of,
)
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.profile import parse_profile
from quantui.runtime.profile_file import load_profile, render_profile, save_profile

FULL = Draft(
    model=ModelChoice(id="owner/base", revision="main"),
    adapter=AdapterChoice(
        id="owner/lora", trained_in_4bit="yes", also=("owner/style",), weights=(1.0, 0.5)
    ),
    engine=EngineChoice(name="vllm-cpu", python="/opt/vllm/bin/python"),
    serve=ServeChoice(
        port=8001,
        visible_devices=(1, 0),
        gpu_memory_utilization=0.5,
        extra_args={"seed": 1, "limit-mm-per-prompt": {"image": 2}, "allowed-origins": ["*"]},
    ),
    check=CheckChoice(text="/data/heldout.txt", max_perplexity=12.5),
    recorded=Recorded(saved_at="2026-11-21T10:00:00+00:00", expected_weight_bytes=123),
)

OWN = """\
# My server. Do not touch the port!
schema = 1

[serve]   # how
port = 8001            # the firewall knows it
gpu_memory_utilization = 0.90

    [serve.extra_args]
    seed = 1     # for reproducible answers
    # a remark
    swap-space = 4

[model]
id = 'owner/base'      # single quotes
"""

HOSTILE = [
    'quote " and \\ backslash',
    "line\nbreak\r\ttab",
    "\x1b[31mred\x1b]0;title\x07",
    "bell \x07 delete \x7f next line \x85",
    '"""',
    "'''",
    "# no comment",
    "[bold]markup[/bold]",
    "]\nid = 'x'",
    "ünïcödé 模型 \U0001f600 \u202e",
    " leading and trailing ",
]


def saved(path, draft, text=None):
    """The file's text after ``draft`` was saved over ``text``."""
    if text is not None:
        path.write_text(text)
    save_profile(path, draft)
    return path.read_text()


@pytest.mark.parametrize("draft", [Draft(model=ModelChoice(id="m")), FULL], ids=["small", "full"])
def test_what_is_rendered_is_read_back(draft):
    assert parse_profile(render_profile(draft)) == draft


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_hostile_text_stays_text(text):
    draft = replace(
        FULL,
        model=ModelChoice(id=text),
        check=CheckChoice(prompt=text),
        serve=ServeChoice(extra_args={text: text}),
    )
    assert parse_profile(render_profile(draft)) == draft


def test_a_new_profile_explains_every_option_and_shows_the_unset_ones_as_comments():
    text = render_profile(Draft(model=ModelChoice(id="m")))
    lines = text.splitlines()
    for name, cls in SECTIONS.items():
        for key in options_of(cls) if name != "recorded" else ():
            (line,) = [
                number
                for number, line in enumerate(lines)
                if line.removeprefix("# ").startswith(f"{key} = ")
                and f"[{name}]" in _table_above(lines, number)
            ]
            assert lines[line - 1].startswith("# "), f"{name}.{key} is not explained"
    assert "# max_model_len = 8192" in lines


def _table_above(lines, number):
    return next(line for line in reversed(lines[:number]) if line.startswith("["))


def test_every_example_in_a_comment_is_a_value_the_profile_accepts():
    lines = render_profile(Draft(model=ModelChoice(id="m"))).splitlines()
    names = {key for cls in SECTIONS.values() for key in options_of(cls)}
    set_all = [
        line.removeprefix("# ")
        if line.startswith("# ") and line.removeprefix("# ").partition(" = ")[0] in names
        else line
        for line in lines
    ]
    assert set_all != lines
    assert parse_profile("\n".join(set_all)).serve.max_model_len == 8192


def test_a_profile_without_a_record_has_no_table_for_it():
    assert "[recorded]" not in render_profile(Draft(model=ModelChoice(id="m")))


def test_saving_what_is_already_there_changes_no_byte(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text(OWN)
    assert saved(path, load_profile(path)) == OWN


def test_only_the_value_that_differs_is_touched(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text(OWN)
    draft = load_profile(path).with_option("serve", "port", 8002)
    assert saved(path, draft) == OWN.replace("port = 8001 ", "port = 8002 ")


def test_a_changed_argument_leaves_the_others_and_their_comments(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text(OWN)
    arguments = {"seed": 1, "swap-space": 8}
    draft = load_profile(path).with_option("serve", "extra_args", arguments)
    assert saved(path, draft) == OWN.replace("swap-space = 4", "swap-space = 8")


def test_arguments_come_and_go(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text(OWN)
    draft = load_profile(path).with_option("serve", "extra_args", {"swap-space": 4, "new": [1]})
    text = saved(path, draft)
    assert "seed = 1" not in text
    assert "# a remark" in text
    assert load_profile(path) == draft


@pytest.mark.parametrize(
    "text",
    [
        "schema = 1\nmodel = { id = 'm' }\nserve = { port = 8001, host = '::1' } # inline\n",
        "schema = 1\nmodel.id = 'm'\nserve.port = 8001 # dotted\nserve.host = '::1'\n",
        "schema = 1\n[serve]\nport = 8001\n[model]\nid = 'm'\n[serve.extra_args]\nseed = 1 # late\n",
    ],
    ids=["inline", "dotted", "out of order"],
)
def test_every_way_to_write_a_table_is_kept(tmp_path, text):
    path = tmp_path / "prod.toml"
    path.write_text(text)
    assert saved(path, load_profile(path)) == text
    draft = load_profile(path).with_option("serve", "port", 8002)
    assert saved(path, draft) == text.replace("8001", "8002")


def test_an_unset_option_goes_and_a_set_one_comes(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text(OWN)
    draft = load_profile(path).with_option("serve", "gpu_memory_utilization", None)
    draft = draft.with_option("serve", "max_model_len", 512).with_option("merge", "recreate", True)
    text = saved(path, draft)
    assert "gpu_memory_utilization" not in text
    assert "Do not touch" in text
    assert load_profile(path) == draft


def test_a_new_profile_saved_with_a_record_reads_back(tmp_path):
    path = tmp_path / "prod.toml"
    save_profile(path, replace(FULL, recorded=Recorded()))
    save_profile(path, FULL)
    assert load_profile(path) == FULL


def test_relative_folders_belong_to_the_file_and_not_to_where_quantui_runs(tmp_path, monkeypatch):
    (tmp_path / "a" / "lora").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "a" / "prod.toml"
    path.write_text(
        "schema = 1\n[model]\nid = '../base'\n[adapter]\nid = 'lora'\n"
        "also = ['../style', 'owner/third@main']\n[check]\ntext = 'heldout.txt'\n[engine]\npython = 'venv/bin/python'\n"
    )
    monkeypatch.chdir(tmp_path / "elsewhere")
    draft = load_profile(path)
    assert os.path.normpath(draft.model.id) == str(tmp_path / "base")
    assert draft.adapter.id == str(tmp_path / "a" / "lora")
    style, third = draft.adapter.also
    assert os.path.normpath(style) == str(tmp_path / "style")
    assert third == "owner/third@main"
    assert draft.check.text == str(tmp_path / "a" / "heldout.txt")
    assert draft.engine.python == str(tmp_path / "a" / "venv/bin/python")


@pytest.mark.parametrize("ref", ["owner/base", "gpt2", "/abs/olute", "x" * 5000])
def test_hub_ids_and_absolute_paths_stay_as_they_are(tmp_path, ref):
    path = tmp_path / "prod.toml"
    path.write_text(f"schema = 1\n[model]\nid = '{ref}'\n")
    assert load_profile(path).model.id == ref


def test_a_text_in_the_home_folder_is_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "prod.toml"
    path.write_text("schema = 1\n[model]\nid = 'm'\n[check]\ntext = '~/heldout.txt'\n")
    assert load_profile(path).check.text == str(tmp_path / "heldout.txt")


def test_saving_does_not_make_relative_folders_absolute(tmp_path):
    path = tmp_path / "prod.toml"
    text = "schema = 1\n[model]\nid = './base'\n[check]\ntext = 'heldout.txt'\n"
    path.write_text(text)
    assert saved(path, load_profile(path)) == text


def test_a_profile_that_is_not_there_says_how_to_write_one(tmp_path):
    with pytest.raises(QuantuiError) as raised:
        load_profile(tmp_path / "no.toml")
    assert raised.value.code == "profile.not-found"
    assert "quantui init" in raised.value.fix


@pytest.mark.parametrize("make", ["folder", "not text"])
def test_what_cannot_be_read_as_a_profile_is_refused(tmp_path, make):
    path = tmp_path / "prod.toml"
    path.mkdir() if make == "folder" else path.write_bytes(b"\xff\xfe")
    with pytest.raises(QuantuiError) as raised:
        load_profile(path)
    assert (raised.value.code, raised.value.exit_code) == (
        "profile.unreadable",
        ExitCode.BAD_INPUT,
    )


def test_a_file_that_is_no_profile_is_not_overwritten(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text("schema = 1\nsomething = 'else'\n")
    with pytest.raises(QuantuiError):
        save_profile(path, FULL)
    assert path.read_text() == "schema = 1\nsomething = 'else'\n"


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text(OWN)
    with pytest.raises(QuantuiError) as raised:
        save_profile(path, load_profile(path).with_option("model", "id", "bad \udcff"))
    assert raised.value.code == "profile.cannot-write"
    assert path.read_text() == OWN
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("place", ["folder", "below a file"])
def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path, place):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" if place == "folder" else tmp_path / "file" / "prod.toml"
    with pytest.raises(QuantuiError) as raised:
        save_profile(path, FULL)
    assert raised.value.exit_code == ExitCode.BAD_INPUT
    assert str(path) in raised.value.what


def test_a_link_stays_a_link_and_permissions_stay(tmp_path):
    real, link = tmp_path / "real.toml", tmp_path / "prod.toml"
    real.write_text(OWN)
    real.chmod(0o640)
    link.symlink_to(real)
    save_profile(link, load_profile(link).with_option("serve", "port", 8002))
    assert link.is_symlink()
    assert "port = 8002" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_profile_written_afresh_keeps_nothing_of_the_old_one(tmp_path):
    path = tmp_path / "prod.toml"
    path.write_text("not a profile")
    save_profile(path, FULL, afresh=True)
    assert load_profile(path) == FULL
