"""Who may import whom: by the contracts in pyproject.toml, and by what is really loaded."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKERS = ROOT / "quantui/engines/workers"
ENGINE_PACKAGES = {"accelerate", "bitsandbytes", "numpy", "peft", "torch", "transformers", "vllm"}
FRONT_PACKAGES = {
    "huggingface_hub", "platformdirs", "psutil", "pynvml", "rich", "safetensors", "tomlkit",
}  # fmt: skip

# Prints what importing every module of the given packages loads beyond the interpreter's own start.
_IMPORT_ALL = """
import importlib, json, pkgutil, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    for found in pkgutil.walk_packages(getattr(module, "__path__", []), name + "."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(loaded - sys.stdlib_module_names)))
"""


def loaded_by(*modules: str) -> set[str]:
    """Top-level packages, the standard library left out, that a fresh interpreter loads with ``modules``."""
    command = [sys.executable, "-c", _IMPORT_ALL, *modules]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(json.loads(done.stdout))


def test_import_contracts_hold(monkeypatch, capsys):
    from importlinter.cli import lint_imports

    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert code == 0, capsys.readouterr().out


def test_the_package_alone_loads_nothing_else():
    assert loaded_by("quantui.__init__") == {"quantui"}


def test_the_domain_loads_the_standard_library_alone():
    assert loaded_by("quantui.domain", "quantui.data") == {"quantui"}


def test_engines_load_the_standard_library_alone():
    assert loaded_by("quantui.engines") == {"quantui"}


def test_the_runtime_loads_no_terminal_no_engine_and_the_hub_only_when_asked():
    loaded = loaded_by("quantui.runtime")
    assert not loaded & {"rich", "textual", "huggingface_hub"}
    assert not loaded & ENGINE_PACKAGES


@pytest.mark.parametrize("face", ["quantui.api", "quantui.headless", "quantui.cli"])
def test_a_face_loads_no_package_of_an_engine(face):
    loaded = loaded_by(face)
    assert not loaded & ENGINE_PACKAGES
    assert "textual" not in loaded


def test_the_wizard_loads_textual_and_no_package_of_an_engine():
    loaded = loaded_by("quantui.tui")
    assert "textual" in loaded
    assert not loaded & ENGINE_PACKAGES


def test_the_first_frame_waits_for_nothing_that_only_later_steps_need():
    loaded = loaded_by("quantui.tui.app", "quantui.tui.screens.hardware")
    assert not loaded & {"huggingface_hub", "psutil", "pynvml", "safetensors", "tomlkit"}


def programs() -> list[Path]:
    return sorted(WORKERS.rglob("*.py"))


def imports_of(path: Path) -> set[str]:
    """Every module that the file imports, at its top or inside a function; relative ones left out."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return found


def test_there_are_workers():
    assert {"merge_peft.py", "make_demo.py", "quantui_wire.py"} <= {p.name for p in programs()}


@pytest.mark.parametrize("path", programs(), ids=lambda path: str(path.relative_to(WORKERS)))
def test_a_worker_imports_nothing_of_quantui_but_the_wire_and_its_neighbours(path):
    # The download runs in quantui's own interpreter and explains failures as quantui does.
    allowed = {"quantui.domain.hub_failures"} if path.name == "download_snapshot.py" else set()
    used = {name for name in imports_of(path) if name.partition(".")[0] == "quantui"}
    assert used <= allowed


@pytest.mark.parametrize("path", programs(), ids=lambda path: str(path.relative_to(WORKERS)))
def test_a_worker_imports_no_library_that_only_the_front_has(path):
    # huggingface_hub and safetensors come with transformers: every engine has them.
    forbidden = FRONT_PACKAGES - {"huggingface_hub", "safetensors", "psutil"} | {"textual"}
    assert not {name.partition(".")[0] for name in imports_of(path)} & forbidden


def test_workers_are_programs_and_no_package():
    assert not (WORKERS / "__init__.py").exists()


def test_only_workers_import_what_an_engine_holds():
    for path in sorted((ROOT / "quantui").rglob("*.py")):
        if WORKERS not in path.parents:
            packages = {name.partition(".")[0] for name in imports_of(path)}
            assert not packages & ENGINE_PACKAGES, path
