"""Numbers as people read them. An unknown is shown as one."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def format_bytes(count: float | None) -> str:
    """GiB with two decimals, MiB below a tenth of one; binary units, as vLLM and nvidia-smi count."""
    if count is None:
        return "unknown"
    if abs(count) < 1024**3 / 10:
        return f"{count / 1024**2:.1f} MiB"
    return f"{count / 1024**3:.2f} GiB"


def format_rate(bytes_per_second: float) -> str:
    """``850 MiB/s``, ``1.20 GiB/s``."""
    if bytes_per_second < 1024**3:
        return f"{bytes_per_second / 1024**2:.0f} MiB/s"
    return f"{bytes_per_second / 1024**3:.2f} GiB/s"


def format_seconds(seconds: float) -> str:
    """``4.2 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def gpu_numbers(indices: Sequence[int]) -> str:
    """``GPU 0``, ``GPUs 0, 2``, ``GPUs 0-7``."""
    if len(indices) > 2 and list(indices) == list(range(indices[0], indices[-1] + 1)):
        return f"GPUs {indices[0]}-{indices[-1]}"
    return f"GPU{'s' if len(indices) > 1 else ''} {', '.join(map(str, indices))}"


def hanging(text: str, width: int | None, indent: int) -> str:
    """``text`` in lines of ``width`` columns, all but the first indented; as it is without a width."""
    if width is None:
        return text
    lines = textwrap.wrap(
        text,
        max(width, indent + 20),
        subsequent_indent=" " * indent,
        drop_whitespace=True,
        break_on_hyphens=False,
    )
    return "\n".join(lines)
