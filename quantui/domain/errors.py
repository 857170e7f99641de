"""Errors a person can act on, and the exit codes that scripts can.

Every foreseeable failure is a :class:`QuantuiError`. It says *what* happened, *why*, and the *fix*;
a traceback that reaches the terminal is a bug.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every `quantui` command. They are part of the interface: README documents them."""

    OK = 0
    BUG = 1
    """An unexpected exception: a defect of quantui."""
    BAD_INPUT = 2
    """A bad profile or bad arguments, or input files that are not what they claim to be."""
    DOES_NOT_FIT = 3
    """Not enough memory or disk, a port in use, or a method this machine or engine does not support."""
    ENGINE = 4
    """An engine is missing, could not be made, or failed."""
    NOT_FOUND = 5
    """A model or adapter was not found, or may not be read."""
    CHECK_FAILED = 6
    """The result was made but did not pass its check: it must not be trusted."""
    CANCELLED = 130
    """Stopped by the user or by a signal."""


@dataclass
class QuantuiError(Exception):
    """A failure with its cause and its fix.

    ``code`` is stable and dotted (``profile.unknown-key``); ``what`` is one sentence that names the
    file and field; ``why`` gives the cause; ``fix`` tells what to do; ``detail`` holds further lines
    (evidence, the tail of a log). Texts may quote untrusted input: faces sanitize before printing.
    """

    code: str
    what: str
    why: str = ""
    fix: str = ""
    exit_code: ExitCode = ExitCode.BAD_INPUT
    detail: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        parts = [self.what]
        if self.why:
            parts.append(f"Why: {self.why}")
        if self.fix:
            parts.append(f"Fix: {self.fix}")
        return "\n".join(parts)

    def to_dict(self) -> dict[str, object]:
        """The JSON form that ``--json`` and ``events.jsonl`` carry."""
        return {
            "code": self.code,
            "what": self.what,
            "why": self.why,
            "fix": self.fix,
            "exit_code": int(self.exit_code),
            "detail": list(self.detail),
        }

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> QuantuiError:
        """Read what :meth:`to_dict` wrote (a worker's error event, a line of ``events.jsonl``).

        A missing or unknown exit code counts as the engine's.
        """
        detail = data.get("detail")
        try:
            exit_code = ExitCode(int(str(data["exit_code"])))
        except (KeyError, ValueError):
            exit_code = ExitCode.ENGINE
        return cls(
            code=str(data.get("code", "unknown")),
            what=str(data.get("what", "")),
            why=str(data.get("why", "")),
            fix=str(data.get("fix", "")),
            exit_code=exit_code,
            detail=tuple(str(line) for line in detail) if isinstance(detail, list) else (),
        )
