"""The folders that take the disk are found where the programs that fill them look for them."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from quantui.domain.caches.items import Kind
from quantui.runtime.caches import roots

_FOUND = (
    "import json; from quantui.runtime.caches.roots import hub_roots; "
    "print(json.dumps([str(path) for path in hub_roots()]))"
)
_ASK = (
    "import sys; from quantui.runtime.caches.roots import hub_roots; hub_roots(); "
    "print([name for name in sys.modules if name.startswith('huggingface_hub')])"
)


@pytest.fixture
def environment(tmp_path):
    """An environment in which nothing of the user's is found."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "HUGGINGFACE_", "XDG_", "VLLM_", "TRITON_"))
    }
    return {**kept, "HOME": str(tmp_path / "home")}


def roots_in(environment, **more):
    """What a new process finds as roots of the Hub."""
    told = subprocess.run(
        [sys.executable, "-c", _FOUND],
        env={**environment, **{name: str(value) for name, value in more.items()}},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)


def made(path):
    path.mkdir(parents=True)
    return path


def test_the_default_place_is_found(tmp_path, environment):
    default = made(tmp_path / "home" / ".cache" / "huggingface" / "hub")

    assert roots_in(environment) == [str(default)]


def test_the_default_place_is_still_found_where_the_cache_was_moved(tmp_path, environment):
    default = made(tmp_path / "home" / ".cache" / "huggingface" / "hub")
    large = made(tmp_path / "large" / "hub")

    assert roots_in(environment, HF_HOME=large.parent) == [str(large), str(default)]


def test_each_variable_counts_and_a_folder_counts_once(tmp_path, environment):
    one, two, three = (made(tmp_path / name) for name in ("one", "two", "three/hub"))
    (tmp_path / "again").symlink_to(one)

    found = roots_in(
        environment,
        HF_HUB_CACHE=tmp_path / "again",
        HUGGINGFACE_HUB_CACHE=two,
        HF_HOME=three.parent,
        XDG_CACHE_HOME=tmp_path,
    )

    assert found == [str(one), str(two), str(three)]
    assert roots_in(environment, HF_HUB_CACHE=one, HUGGINGFACE_HUB_CACHE=one) == [str(one)]


def test_the_settings_name_more(tmp_path, environment):
    more = made(tmp_path / "more")
    home = made(tmp_path / "quantui")
    (home / "settings.toml").write_text(f'[cache]\nhub_roots = ["{more}", "{tmp_path}/none"]\n')

    assert roots_in(environment, QUANTUI_HOME=home) == [str(more)]


def test_settings_that_are_wrong_do_not_hide_the_others(tmp_path, environment):
    default = made(tmp_path / "home" / ".cache" / "huggingface" / "hub")
    home = made(tmp_path / "quantui")
    (home / "settings.toml").write_text("[cache\n")

    assert roots_in(environment, QUANTUI_HOME=home) == [str(default)]


def test_an_empty_variable_is_not_the_working_folder(environment):
    assert roots_in(environment, HF_HUB_CACHE="", HF_HOME="") == []


def test_huggingface_hub_is_not_imported_for_it(environment):
    told = subprocess.run(
        [sys.executable, "-c", _ASK], env=environment, capture_output=True, text=True, check=True
    )

    assert told.stdout == "[]\n"


def test_what_huggingface_hub_uses_now_comes_first_where_it_is_loaded(tmp_path, monkeypatch):
    from huggingface_hub import constants

    now, other = made(tmp_path / "now"), made(tmp_path / "other")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(now))
    monkeypatch.setenv("HF_HUB_CACHE", str(other))

    assert roots.hub_roots()[:2] == (now, other)


def test_every_place_has_a_name_and_a_kind(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("UV_CACHE_DIR", raising=False)
    monkeypatch.delenv("VLLM_CACHE_ROOT", raising=False)
    made(tmp_path / "uv")
    made(tmp_path / "vllm")

    found = {(root.name, root.kind, root.path) for root in roots.known_roots()}

    assert ("packages", Kind.PACKAGES, tmp_path / "uv") in found
    assert ("compiled", Kind.COMPILED, tmp_path / "vllm") in found
    assert {"artifacts", "engines", "runs", "cache"} <= {name for name, _, _ in found}
