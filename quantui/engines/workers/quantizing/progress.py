"""Progress of libraries that show tqdm bars, as events."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from quantui_wire import progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EVERY_S = 0.2
"""The shortest time between two reports of one bar, except for its end."""


@contextmanager
def follow_tqdm(
    unit: str = "layers", read: Callable[[Any], tuple[float, float, str] | None] | None = None
) -> Iterator[None]:
    """Report each tqdm bar as ``n`` of ``total`` in ``unit`` while the block runs; bars still go to the log.

    The methods of the class itself are replaced: a library may have imported the class, or one derived
    from it (``tqdm.auto``), long before. A bar of bytes is reported in bytes. Bars that are disabled say
    nothing. ``read`` gives what a bar means where it is not its own ``n`` of ``total``: done, total and
    message, or None for a bar that is not to be reported.
    """
    from tqdm.std import tqdm

    told: dict[int, tuple[float, float]] = {}
    shown, closed = tqdm.display, tqdm.close

    def tell(bar: Any) -> None:  # noqa: ANN401
        now, done = time.monotonic(), float(bar.n)
        at, before = told.get(id(bar), (0.0, -1.0))
        over = bar.total is not None and done >= bar.total
        if done == before or (now - at < EVERY_S and not over):
            return
        told[id(bar)] = now, done
        if read is not None:
            if (meant := read(bar)) is not None:
                progress(*meant[:2], unit=unit, message=meant[2])
            return
        in_unit = "bytes" if bar.unit == "B" else unit
        message = str(bar.desc or "").strip().rstrip(":")
        progress(
            done, None if bar.total is None else float(bar.total), unit=in_unit, message=message
        )

    def display(bar: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        tell(bar)
        return shown(bar, *args, **kwargs)

    def close(bar: Any) -> Any:  # noqa: ANN401
        if not getattr(bar, "disable", True):
            tell(bar)
        given = closed(bar)
        # Another bar may get the same id.
        told.pop(id(bar), None)
        return given

    tqdm.display, tqdm.close = display, close
    try:
        yield
    finally:
        tqdm.display, tqdm.close = shown, closed
