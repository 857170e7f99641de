"""A defect of quantui itself: its traceback is kept in a file that a report can be made with."""

from __future__ import annotations

import time
import traceback

from quantui import __version__
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.runtime.paths import home


def defect(error: BaseException) -> QuantuiError:
    """``quantui.defect`` (exit code 1) for what nobody expected; its traceback is kept in home()/crash-*.txt."""
    text = "".join(traceback.format_exception(error))
    try:
        path = home() / f"crash-{time.strftime('%Y%m%d-%H%M%S')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"quantui {__version__}\n{text}", encoding="utf-8", errors="replace")
        kept = f"The traceback is in {path}."
    except OSError:
        kept = f"The traceback could not be kept: {text[-1000:]}"
    return QuantuiError(
        "quantui.defect",
        f"This is a defect of quantui: {type(error).__name__}: {error}",
        kept,
        "Please report it with that file.",
        ExitCode.BUG,
    )
