"""What the operating system refused, as an error for a person."""

from __future__ import annotations

import contextlib
import errno
import shutil
from pathlib import Path

from quantui.domain.errors import ExitCode, QuantuiError


def os_error(error: OSError) -> QuantuiError:
    """``disk.full``, or ``run.os-error`` for all else; exit code 3."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = str(error.filename or "")
        with contextlib.suppress(OSError):
            where = f"{where} ({shutil.disk_usage(Path(where).parent).free} bytes free)"
        return QuantuiError(
            "disk.full",
            "The disk is full.",
            where,
            "Free space and run again.",
            ExitCode.DOES_NOT_FIT,
        )
    return QuantuiError(
        "run.os-error",
        f"{error.strerror or error}: {error.filename or ''}".strip(": "),
        fix="See that the folder exists and may be written.",
        exit_code=ExitCode.DOES_NOT_FIT,
    )
