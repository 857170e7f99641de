"""uv, the program that makes environments: where it is, its settings, what its failures mean."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from quantui.engines.specs import EngineSpec

# Settings of the user's own projects that would change which files an engine gets, or where.
_DROPPED = (
    "UV_CONSTRAINT", "UV_OVERRIDE", "UV_BUILD_CONSTRAINT", "UV_EXCLUDE", "UV_EXCLUDE_NEWER",
    "UV_NO_VERIFY_HASHES",
    "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON", "UV_BREAK_SYSTEM_PACKAGES", "UV_TORCH_BACKEND",
    "UV_RESOLUTION", "UV_PRERELEASE", "UV_NO_BINARY", "UV_PYTHON", "UV_VENV_SEED",
    "UV_COMPILE_BYTECODE",
    "VIRTUAL_ENV", "CONDA_PREFIX",
)  # fmt: skip

_CAUSES: tuple[tuple[str, str], ...] = (
    ("disk-full", r"No space left on device|os error 28\b|Disk quota exceeded|os error 122\b"),
    ("hash-mismatch", r"Hash mismatch|hash(?:es)? (?:do|does) not match"),
    ("no-python", r"No interpreter found|No download found|no Python (?:executable|interpreter)|"
     r"A managed Python download is available"),
    ("no-network", r"error sending request|dns error|Connection refused|Connection reset|"
     r"tcp connect error|client error \(Connect\)|operation timed out|Could not connect|"
     r"Network connectivity is disabled|network was disabled|Failed to fetch|Failed to download|"
     r"not found in the cache"),
)  # fmt: skip


def uv_binary() -> str:
    """The path of uv: of the ``uv`` package, else from PATH; raises ``engine.no-uv``."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
        if found:
            return found
        raise QuantuiError(
            "engine.no-uv",
            "The program uv was not found.",
            "quantui makes environments with it, and its package is not installed.",
            "Install it beside quantui: pip install uv",
            ExitCode.ENGINE,
        ) from None


def uv_environment(environ: Mapping[str, str] | None = None) -> dict[str, str | None]:
    """What to change in the environment for uv: name to value, None to remove it.

    pip's ``PIP_FIND_LINKS`` (folders separated by spaces) is passed on as ``UV_FIND_LINKS`` (by
    commas), because uv does not read it.
    """
    environ = os.environ if environ is None else environ
    changes: dict[str, str | None] = {name: None for name in _DROPPED if name in environ}
    changes |= {"UV_NO_PROGRESS": "1", "NO_COLOR": "1", "UV_PYTHON_PREFERENCE": "system"}
    folders = find_links(environ)
    if folders:
        changes["UV_FIND_LINKS"] = ",".join(folders)
    return changes


def find_links(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The wheel folders the user named, in ``UV_FIND_LINKS`` or else ``PIP_FIND_LINKS``."""
    environ = os.environ if environ is None else environ
    if environ.get("UV_FIND_LINKS"):
        return tuple(part.strip() for part in environ["UV_FIND_LINKS"].split(",") if part.strip())
    return tuple(environ.get("PIP_FIND_LINKS", "").split())


def local_wheel(
    name: str, version: str, python: str, machine: str, folders: Sequence[str]
) -> Path | None:
    """A wheel of ``name`` ``version`` for CPython ``python`` and ``machine``, or None.

    Folders only: a find-links page behind an address is left to uv.
    """
    tag = "cp" + python.replace(".", "")
    prefix = f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}-"
    for folder in folders:
        path = Path(folder.removeprefix("file://")).expanduser()
        if not path.is_dir():
            continue
        for wheel in sorted(path.glob("*.whl")):
            file = wheel.name.replace("%2B", "+")
            if file.lower().startswith(prefix) and (
                file.endswith("-any.whl")
                or (machine in file.rpartition("-")[2] and (tag in file or "abi3" in file))
            ):
                return wheel
    return None


def failure(spec: EngineSpec, log_text: str, log: Path, *, doing: str) -> QuantuiError:
    """uv's output as one error with a cause and a fix; ``doing`` says what was under way."""
    name = spec.name
    kind = next(
        (code for code, pattern in _CAUSES if re.search(pattern, log_text, re.IGNORECASE)), ""
    )
    tail = _telling_lines(log_text)
    if kind == "disk-full":
        return QuantuiError(
            "disk.full",
            f"The disk became full while {doing}.",
            "The environment and uv's cache need more room than there is; the half-made one was "
            "removed.",
            "Free space, or put quantui on another disk with QUANTUI_HOME (and uv's cache with "
            "UV_CACHE_DIR).",
            ExitCode.DOES_NOT_FIT,
            tail,
        )
    if kind == "hash-mismatch":
        return QuantuiError(
            "engine.hash-mismatch",
            f"A package for {name} is not the file that was locked.",
            "Its hash differs from the one quantui ships, so nothing of it was installed.",
            "Remove a stale or repacked wheel from the find-links folder or mirror you use, and "
            "try again.",
            ExitCode.ENGINE,
            tail,
        )
    if kind == "no-python":
        return QuantuiError(
            "engine.no-python",
            f"No Python that {name} can use was found, and none could be downloaded.",
            tail[0] if tail else "",
            "Install that version of Python (uv finds it in PATH), or "
            + spec.own_interpreter
            + ".",
            ExitCode.ENGINE,
            tail[1:],
        )
    if kind == "no-network":
        return QuantuiError(
            "engine.no-network",
            f"The package index could not be reached while {doing}.",
            tail[0] if tail else "",
            "Check the network and proxy; or put the wheels in a folder and name it in "
            "UV_FIND_LINKS; "
            "or " + spec.own_interpreter + ".",
            ExitCode.ENGINE,
            tail[1:],
        )
    return QuantuiError(
        "engine.install-failed",
        f"uv failed while {doing}.",
        tail[0] if tail else "It said nothing.",
        f"The whole output is in {log}.",
        ExitCode.ENGINE,
        tail[1:],
    )


def _telling_lines(text: str) -> tuple[str, ...]:
    """At most three lines that say what went wrong, the most telling first.

    uv writes ``error: ...`` and below it the causes, from the outermost to the innermost; those that
    name a package or an address tell most.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = next((i for i, line in enumerate(lines) if re.match(r"error\b|×", line)), None)
    causes = lines[-3:] if first is None else lines[first:]
    causes = [re.sub(r"^(error|cause|Caused by): ", "", line)[:300] for line in causes]
    telling = [line for line in causes if re.search(r"://|==|Failed to|Because|os error", line)]
    return tuple(dict.fromkeys([*telling, *causes]))[:3]
