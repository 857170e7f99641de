"""Units of memory, and what is left free of a disk."""

from __future__ import annotations

GIB = 1024**3
"""Bytes."""

RESERVE_BYTES = 256 * 1024**2
"""Left free on a disk that a run writes to: logs, caches and other programs write too."""
