"""llm-compressor's bars, which count samples and grid points, as layers done."""

from __future__ import annotations

import re
from typing import Any

_PASS = re.compile(r"\((\d+)/(\d+)\): (Calibrating|Propagating)")

_SHARES = {
    False: {"Calibrating": (0.0, 0.5), "Propagating": (0.5, 1.0)},
    True: {"Calibrating": (0.0, 0.02), "Smoothing": (0.02, 0.98), "Propagating": (0.98, 1.0)},
}
"""Where a layer stands at the beginning and the end of each bar; AWQ searches between the passes, most of the time."""


class Layers:
    """Reads bars as layers done of all; never goes back. ``doing``: what a person reads beside it."""

    def __init__(self, doing: str, *, searches: bool) -> None:
        self._doing = doing
        self._shares = _SHARES[searches]
        self._layer, self._layers, self._done = 1, 0, 0.0

    def __call__(self, bar: Any) -> tuple[float, float, str] | None:  # noqa: ANN401 - a tqdm bar
        """Layers done, of how many, and the message; None for other bars."""
        text = str(bar.desc or "")
        match = _PASS.match(text)
        kind = match[3] if match else text.rstrip(": ")
        if match:
            self._layer, self._layers = int(match[1]), int(match[2])
        if kind not in self._shares or not self._layers or not bar.total:
            return None
        begin, end = self._shares[kind]
        now = self._layer - 1 + begin + (end - begin) * min(1.0, bar.n / bar.total)
        self._done = max(self._done, round(now, 2))
        return self._done, self._layers, f"{self._doing}: {kind.lower()}"
