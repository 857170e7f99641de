"""Progress of GPTQModel, which shows bars of its own library (logbar), as events."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantui_wire import progress

if TYPE_CHECKING:
    from collections.abc import Iterator

_TITLE = re.compile(r"Quantizing layer (\d+) of (\d+)")
"""As gptqmodel's looper/stage_layer.py names a block; both numbers are of the blocks counted from 0."""


@contextmanager
def follow_logbar() -> Iterator[None]:
    """Report each block that GPTQModel begins, and the last one's end, while the block runs."""
    from logbar.progress import ProgressBar

    titled, total, told = ProgressBar.title, 0, -1

    def title(bar: Any, text: str) -> Any:  # noqa: ANN401
        nonlocal total, told
        found = _TITLE.search(text)
        if found and int(found[1]) != told:
            told, total = int(found[1]), int(found[2]) + 1
            progress(told, total, unit="layers", message="GPTQ")
        return titled(bar, text)

    ProgressBar.title = title
    try:
        yield
        if total:
            progress(total, total, unit="layers", message="GPTQ")
    finally:
        ProgressBar.title = titled
