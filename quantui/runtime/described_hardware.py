"""A machine that is not this one, read from a file: ``--hardware FILE``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui.domain.described_sizes import check_sizes, with_free_memory
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.hardware import HardwareReport
from quantui.domain.performance.gpu_models import fill_in

if TYPE_CHECKING:
    from typing import BinaryIO

STDIN = "-"
MOST_BYTES = 16 * 1024**2
"""Far above any description: a weight file given by mistake is not read to its end."""

_LEAST_FORM = (
    '{"gpus": [{"name": "NVIDIA L4", "total_bytes": 24152899584, "free_bytes": 23622320128, '
    '"compute_capability": "8.9"}], "ram_bytes": 68719476736, "disk_free_bytes": 107374182400}'
)


def described_hardware(file: str) -> HardwareReport:
    """The machine that ``file`` describes; ``-`` reads standard input.

    The file holds what ``quantui doctor --json`` prints, or the least form in the head of
    :mod:`quantui.domain.hardware`. What it leaves out and the cards' names tell is filled in, and memory
    that is not said to be in use counts as free: notes among the problems tell both. Without GPUs it is a
    machine that serves on its CPU. The report is ``simulated``, whatever the file says: it is not looked
    at here. Raises QuantuiError ``hardware.*``.
    """
    document = _parsed(_content(file), _named(file))
    try:
        report = HardwareReport.from_dict(document)
        if not report.gpus and report.host == type(report.host)():
            raise QuantuiError(
                "hardware.nothing-described",
                "The machine description gives neither GPUs nor RAM.",
                "An empty list of GPUs describes a machine that serves on its CPU, from its RAM.",
                'Give "gpus", or "ram_bytes", or both.',
            )
        check_sizes(report)
        report = fill_in(report)
        check_sizes(report)
    except QuantuiError as error:
        error.detail = (f"The description is {_named(file)}.", *error.detail)
        raise
    return with_free_memory(replace(report, simulated=True))


def _named(file: str) -> str:
    return "the standard input" if file == STDIN else file


def _content(file: str) -> bytes:
    """The file's bytes; a person who waits at a terminal is told, and not waited for."""
    if file == STDIN:
        if sys.stdin is None or sys.stdin.isatty():
            raise QuantuiError(
                "hardware.no-input",
                "--hardware - reads a machine description from standard input, which is a terminal.",
                "Nothing is piped into this command.",
                "quantui doctor --json | quantui recommend MODEL --hardware -",
            )
        return _bounded(sys.stdin.buffer, _named(file))
    try:
        with Path(file).expanduser().open("rb") as stream:
            return _bounded(stream, file)
    except FileNotFoundError:
        raise QuantuiError(
            "hardware.file-not-found",
            f"The machine description {file} does not exist.",
            fix="Check the path; `quantui doctor --json > FILE` writes one on the machine it describes.",
            exit_code=ExitCode.BAD_INPUT,
        ) from None
    except (OSError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise QuantuiError(
            "hardware.file-unreadable",
            f"The machine description {file} cannot be read.",
            f"{reason}.",
            "Give a file that quantui doctor --json wrote, or - for standard input.",
        ) from None


def _bounded(stream: BinaryIO, name: str) -> bytes:
    content = stream.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise QuantuiError(
            "hardware.file-too-large",
            f"The machine description {name} is larger than {MOST_BYTES // 1024**2} MiB.",
            "A description takes a few KiB: this is another kind of file.",
            "Give a file that quantui doctor --json wrote.",
        )
    return content


def _parsed(content: bytes, name: str) -> object:
    if not content.strip():
        raise _not_json(name, "It is empty.")
    try:
        return json.loads(
            content.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_no_constant
        )
    except UnicodeDecodeError:
        raise _not_json(name, "It is not UTF-8 text.") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise _not_json(name, f"{error.msg} ({place}).") from None
    except RecursionError:
        raise _not_json(name, "It is nested too deeply.") from None
    except ValueError as error:
        raise _not_json(name, f"{error}.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON lets a key come twice, and Python would take the last one in silence."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise ValueError(f"{twice!r} is given twice in one object")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not a number in JSON")


def _not_json(name: str, why: str) -> QuantuiError:
    return QuantuiError(
        "hardware.not-json",
        f"The machine description {name} is not a JSON document.",
        why,
        "Write one with quantui doctor --json, or by hand in its least form:",
        detail=(_LEAST_FORM,),
    )
