"""`quantui methods` lists the catalogue and shows one method with its sources."""

from __future__ import annotations

import argparse
import json

import pytest

from quantui.cli import methods as command
from quantui.domain.errors import QuantuiError
from quantui.domain.methods import methods


def run(*arguments, capsys):
    parser = argparse.ArgumentParser()
    command.configure(parser)
    assert command.run(parser.parse_args(arguments)) == 0
    return capsys.readouterr().out


def test_the_list_names_what_vllm_serves_and_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = run(capsys=capsys)
    for entry in methods().values():
        listed = any(line.split()[:1] == [entry.name] for line in out.splitlines())
        assert listed == (entry.status in ("current", "plugin")), entry.name
    assert max(map(len, out.splitlines())) <= 80
    assert "…" not in out


def test_all_adds_what_is_gone_with_the_version_it_left(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    out = run("--all", capsys=capsys)
    assert "…" not in out
    row = next(line for line in out.splitlines() if line.startswith("squeezellm"))
    assert row.rstrip().endswith("<0.6.1")


def test_one_method_is_shown_by_any_of_its_names_with_sources(capsys):
    out = run("w8a8", capsys=capsys)
    assert "int8_w8a8" in out
    assert "https://docs.vllm.ai/" in out


def test_the_json_has_every_field_and_versions_as_text(capsys):
    listed = json.loads(run("--json", "--all", capsys=capsys))
    assert [one["name"] for one in listed] == list(methods())
    fp8 = json.loads(run("--json", "fp8_per_tensor", capsys=capsys))
    assert fp8["min_compute_capability"] == "7.5"
    assert fp8["older_arguments"] == {"0.20": "fp8"}
    assert fp8["sources"]["since"].startswith("vLLM 0.20")


def test_an_unknown_method_is_an_error_with_the_nearest_name():
    parser = argparse.ArgumentParser()
    command.configure(parser)
    with pytest.raises(QuantuiError) as raised:
        command.run(parser.parse_args(["awk"]))
    assert "`awq`" in raised.value.fix
