"""Calibration texts before anything runs on them: that they are there, and a hash of what they hold."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.plan import CalibrationFacts
from quantui.runtime.file_hashes import sha256_of

if TYPE_CHECKING:
    from quantui.runtime.file_hashes import Progress

BUILT_IN = "builtin"
SUFFIXES = (".txt", ".md", ".jsonl", ".json", ".parquet")
"""What the workers read (workers/quantizing/calibration/sources.py)."""

_BUILT_IN_TEXTS = "builtin/1"
"""Changes with the texts that workers/quantizing/calibration/builtin.py chooses."""

_HUB = re.compile(
    r"hub:(?P<name>[\w.-]+/[\w.-]+)(?P<config>/[\w.-]+)?(?:@(?P<revision>[\w./-]+))?(?P<split>:\w+)?"
)


def check_calibration(source: str) -> None:
    """Refuse (exit code 2) what cannot be calibration data by its name and kind; nobody is asked on the Hub.

    Raises QuantuiError ``calibration.no-file``, ``calibration.unknown-kind``, ``calibration.empty``,
    ``calibration.bad-name``.
    """
    if source == BUILT_IN:
        return
    if source.startswith("hub:"):
        _hub_name(source)
        return
    _files(source)


def calibration_facts(source: str, *, progress: Progress | None = None) -> CalibrationFacts:
    """The texts that ``source`` names and a hash of their bytes; of a Hub data set its commit.

    Raises what :func:`check_calibration` does, ``calibration.not-found`` (exit code 5), ``hub.*`` and OSError.
    """
    if source == BUILT_IN:
        return CalibrationFacts(source, _BUILT_IN_TEXTS)
    if source.startswith("hub:"):
        return _of_the_hub(source)
    files = _files(source)
    root = Path(source).expanduser().absolute()
    state = hashlib.sha256()
    for file in files:
        name = "" if file == root else str(file.relative_to(root))
        state.update(f"{name}\0{sha256_of(file, progress)}\n".encode())
    return CalibrationFacts(str(root), f"sha256:{state.hexdigest()}")


def _files(source: str) -> list[Path]:
    path = Path(source).expanduser().absolute()
    if path.is_dir():
        found = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file()
            and file.suffix.lower() in SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
        ]
        if not found:
            raise _refused(
                "empty",
                f"{source} holds no calibration data.",
                f"No file in it ends in {', '.join(SUFFIXES)}.",
                "Name a folder with such files, or a file.",
            )
        return found
    if not path.is_file():
        raise _refused(
            "no-file",
            f"There is no calibration file {source}.",
            fix="Check the path; a data set of the Hub is hub:OWNER/NAME, and builtin needs nothing.",
        )
    if path.suffix.lower() not in SUFFIXES:
        raise _refused(
            "unknown-kind",
            f"{source} is of no kind that calibration reads.",
            f"The kinds are {', '.join(SUFFIXES)}.",
            "Rename it if it is one of them, or convert it.",
        )
    if path.stat().st_size == 0:
        raise _refused("empty", f"{source} is empty.", fix="Give a file that holds texts.")
    return [path]


def _hub_name(source: str) -> re.Match[str]:
    match = _HUB.fullmatch(source)
    if match is None:
        raise _refused(
            "bad-name",
            f"{source[:120]!r} names no data set.",
            fix="Write hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:OWNER/NAME:SPLIT.",
        )
    return match


def _of_the_hub(source: str) -> CalibrationFacts:
    """The data set at the commit that its revision is now; what is calibrated on is that commit."""
    from huggingface_hub import HfApi

    from quantui.runtime.hub import call, is_offline

    match = _hub_name(source)
    name = match["name"]
    if is_offline(None):
        raise QuantuiError(
            "calibration.not-found",
            f"The data set {name} cannot be read offline.",
            "HF_HUB_OFFLINE is set.",
            "Unset it, give a file of your own, or take the built-in texts.",
            ExitCode.NOT_FOUND,
        )
    revision = match["revision"]
    try:
        found = call(
            f"datasets/{name}", revision, lambda: HfApi().dataset_info(name, revision=revision)
        )
    except QuantuiError as error:
        raise replace(error, code=error.code.replace("model.", "calibration.")) from None
    pinned = f"hub:{name}{match['config'] or ''}@{found.sha}{match['split'] or ''}"
    return CalibrationFacts(pinned, pinned)


def _refused(code: str, what: str, why: str = "", fix: str = "") -> QuantuiError:
    return QuantuiError(f"calibration.{code}", what, why, fix)
