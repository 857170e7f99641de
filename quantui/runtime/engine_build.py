"""What a machine needs to build the packages of an engine that exist only as source."""

from __future__ import annotations

import shutil
import subprocess
from ctypes.util import find_library
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from pathlib import Path

    from quantui.engines.specs import Built, EngineSpec

_TIMEOUT_S = 60.0
_INCLUDE = "import sysconfig; print(sysconfig.get_path('include'))"


def check_build(spec: EngineSpec, python: Path) -> None:
    """Raise ``engine.cannot-build`` when a program, header or library that a build needs is not there.

    ``python`` is the new environment's interpreter: its C headers lie where its installation put them.
    Asked before anything is downloaded.
    """
    for item in spec.built:
        lacking = [" or ".join(names) for names in map(_names, item.programs) if not _first(names)]
        if not lacking and item.headers:
            lacking = missing_headers(item, python)
        lacking += [f"lib{name}" for name in item.libraries if find_library(name) is None]
        if lacking:
            raise QuantuiError(
                "engine.cannot-build",
                f"{spec.name} cannot be made here: {', '.join(lacking)} is missing.",
                f"{item.spec} is locked as source and built on this machine. {item.reason}",
                f"{item.install} Or {spec.own_interpreter}.",
                ExitCode.ENGINE,
            )


def missing_headers(item: Built, python: Path) -> list[str]:
    """Those of ``item``'s headers that the C preprocessor does not find, the interpreter's own included."""
    compiler = next(found for names in item.programs if (found := _first(_names(names))))
    include = subprocess.run(
        [python, "-I", "-c", _INCLUDE],
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    ).stdout.strip()
    missing: list[str] = []
    for header in item.headers:
        done = subprocess.run(
            [compiler, "-E", "-x", "c", f"-I{include}", "-"],
            input=f"#if !__has_include(<{header}>)\n#error\n#endif\n",
            capture_output=True, text=True, check=False, timeout=_TIMEOUT_S,
        )  # fmt: skip
        if done.returncode != 0:
            missing.append(header)
    return missing


def _names(either: str) -> list[str]:
    return either.split("|")


def _first(names: list[str]) -> str | None:
    return next((found for name in names if (found := shutil.which(name))), None)
