"""Packages of an engine that exist only as source: hash-checked, then built with what is locked and nothing else."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sys
import tarfile
import threading
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "fixtures"))
import tiny_engine

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.engines.specs import Built, load_specs
from quantui.runtime import engine_store as store
from quantui.runtime.engine_build import check_build, missing_headers
from quantui.runtime.engine_install import make_environment

BACKEND = """
import base64, hashlib, os, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    from tinypkg import main
    files = {
        "tinysrc.py": f"VARIABLE = {os.environ.get('TINY_BUILD')!r}\\n",
        "tinysrc-1.0.dist-info/METADATA": "Metadata-Version: 2.1\\nName: tinysrc\\nVersion: 1.0\\n",
        "tinysrc-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files["tinysrc-1.0.dist-info/RECORD"] = "".join(f"{name},,\\n" for name in files)
    with zipfile.ZipFile(os.path.join(folder, "tinysrc-1.0-py3-none-any.whl"), "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return "tinysrc-1.0-py3-none-any.whl"
"""
PROJECT = """
[build-system]
requires = ["a-package-that-is-nowhere"]
build-backend = "backend"
backend-path = ["."]
[project]
name = "tinysrc"
version = "1.0"
"""


def make_sdist(folder: Path, *, backend: str = BACKEND) -> Path:
    """A source distribution whose build imports ``tinypkg`` and asks for a package that no index has."""
    info = "Metadata-Version: 2.2\nName: tinysrc\nVersion: 1.0\n"
    path = folder / "tinysrc-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        for name, text in {
            "PKG-INFO": info,
            "pyproject.toml": PROJECT,
            "backend.py": backend,
        }.items():
            entry = tarfile.TarInfo(f"tinysrc-1.0/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return path


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """The only place packages can come from, offline."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name in ("UV_FIND_LINKS", "UV_INDEX", "UV_INDEX_URL", "TINY_BUILD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_OFFLINE", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv-cache"))
    return folder


@pytest.fixture
def built(tmp_path, wheels):
    """The spec of an engine with the wheel ``tinypkg`` and, from its source, ``tinysrc``."""

    def make(more: str = "", *, locked: Path | None = None, name: str = "tinysrc"):
        sdist = make_sdist(wheels)
        folder = tiny_engine.write_spec(
            tmp_path / "specs", tiny_engine.make_wheel(wheels, "tinypkg")
        )
        digest = hashlib.sha256((locked or sdist).read_bytes()).hexdigest()
        with (folder / "tiny.lock").open("a") as lock:
            lock.write(f"tinysrc==1.0 \\\n    --hash=sha256:{digest}\n")
        with (folder / "tiny.toml").open("a") as toml:
            toml.write(f'[[build]]\nspec = "{name}==1.0"\nreason = "The test."\n{more}\n')
        return load_specs(folder)["tiny"]

    return make


def install(spec):
    return make_environment(spec, on_event=lambda _: None, cancel=threading.Event())


def said(folder: Path) -> str:
    return next(folder.glob("lib/python*/site-packages/tinysrc.py")).read_text()


def environments():
    return [path.name for path in store.engines_dir().iterdir() if path.is_dir()]


def test_a_source_is_built_with_the_locked_wheels_and_nothing_is_fetched_for_it(built):
    assert said(install(built())) == "VARIABLE = None\n"


def test_a_build_gets_the_variables_its_spec_names(built):
    folder = install(built('environment = { TINY_BUILD = "0" }'))
    assert said(folder) == "VARIABLE = '0'\n"


def test_a_source_with_another_hash_is_not_built(built, wheels, tmp_path):
    other = make_sdist(tmp_path, backend="raise SystemExit('this ran')")
    spec = built(locked=other)
    with pytest.raises(QuantuiError) as caught:
        install(spec)
    assert caught.value.code == "engine.hash-mismatch"
    assert environments() == []


def test_a_source_that_the_spec_does_not_name_is_not_built(built):
    spec = built(name="another")
    with pytest.raises(QuantuiError) as caught:
        install(spec)
    assert caught.value.exit_code == ExitCode.ENGINE
    assert environments() == []


def test_a_missing_compiler_is_told_with_the_way_to_get_it_before_anything_is_fetched(
    built, wheels
):
    spec = built('programs = ["no-such-cc|nor-this"]\ninstall = "Install a C compiler."')
    for file in wheels.iterdir():
        file.unlink()
    with pytest.raises(QuantuiError) as caught:
        install(spec)
    assert caught.value.code == "engine.cannot-build"
    assert caught.value.exit_code == ExitCode.ENGINE
    assert "no-such-cc or nor-this" in caught.value.what
    assert "Install a C compiler." in caught.value.fix
    assert environments() == []


def test_a_missing_library_is_told(built):
    spec = built('libraries = ["no-such-library"]\ninstall = "Install it."')
    with pytest.raises(QuantuiError, match="libno-such-library"):
        check_build(spec, Path(sys.executable))


@pytest.mark.skipif(shutil.which("cc") is None, reason="it asks a C compiler")
def test_headers_are_asked_of_the_compiler():
    item = Built("x==1", "r", programs=("cc",), headers=("stdio.h", "no/such/header.h"))
    assert missing_headers(item, Path(sys.executable)) == ["no/such/header.h"]


def test_a_program_in_path_is_found(built, tmp_path, monkeypatch):
    compiler = tmp_path / "bin" / "nor-this"
    compiler.parent.mkdir()
    compiler.write_text("#!/bin/sh\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", f"{compiler.parent}{os.pathsep}{os.environ['PATH']}")
    check_build(built('programs = ["no-such-cc|nor-this"]\ninstall = "x"'), Path(sys.executable))
