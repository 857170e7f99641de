"""The inventory, looked up by a process of its own: what an interface beside it shows stays fluid.

A large cache is seconds of computing, and two threads of one interpreter take turns at that. The process writes what
it finds to its standard output, one pickle after another, each with its length before it; it ends once nobody reads.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import selectors
import struct
import subprocess
import sys
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, cast

from quantui.domain.caches.items import CacheItem, Claim, DiskUse, ScanProblem
from quantui.runtime.caches.measuring import never

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Found = CacheItem | ScanProblem

_LENGTH = struct.Struct("<I")
_LOOK_S = 0.05
"""How soon a scan that is not wanted any more ends."""
_AT_ONCE = 500
"""Claims of one pickle: reading it holds the interpreter for about a millisecond. Engines have tens of thousands."""
_FIRST = 16
"""Things that are looked up here before the process is started, which takes a tenth of a second: a screen's rows."""


def scan_beside(*, stop: Callable[[], bool] = never) -> Iterator[Found]:
    """What :func:`quantui.runtime.caches.inventory.scan` gives; the first things twice, where there are many.

    Once ``stop()`` the process is killed. Raises RuntimeError for a bug in it, with its traceback.
    """
    from quantui.runtime.caches.inventory import scan

    for number, found in enumerate(scan(stop=stop)):
        yield found
        if number + 1 >= _FIRST:
            break
    else:
        return
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", __name__],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield from _read(process, stop)
    finally:
        process.kill()
        process.wait()
        cast("IO[bytes]", process.stdout).close()


def _read(process: subprocess.Popen[bytes], stop: Callable[[], bool]) -> Iterator[Found]:
    whole: CacheItem | None = None
    claims: list[Claim] = []
    for what, told in _messages(process, stop):
        if what == "failed":
            raise RuntimeError(told)
        if what == "claims":
            claims += [Claim(*one) for one in told]
            continue
        if whole is not None:
            yield _with_claims(whole, claims)
            whole, claims = None, []
        if what == "item":
            whole = told
        elif what == "problem":
            yield told


def _with_claims(item: CacheItem, claims: list[Claim]) -> CacheItem:
    if not claims:
        return item
    return replace(item, use=DiskUse(item.use.apparent, item.use.alone, tuple(claims)))


def _messages(
    process: subprocess.Popen[bytes], stop: Callable[[], bool]
) -> Iterator[tuple[str, Any]]:
    """Each message of the process, until the one that says ``end``."""
    pipe = cast("IO[bytes]", process.stdout).fileno()
    got = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while not stop():
            while len(got) >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(got)
                if len(got) < _LENGTH.size + length:
                    break
                # It is this program that wrote them, a moment ago, and nobody else can.
                message = pickle.loads(got[_LENGTH.size : _LENGTH.size + length])
                del got[: _LENGTH.size + length]
                yield message
                if message[0] == "end":
                    return
                if stop():
                    return
            if not selector.select(_LOOK_S):
                continue
            part = os.read(pipe, 1 << 18)
            if not part:
                raise RuntimeError(f"The scan's process ended early, with {process.wait()}.")
            got += part


def main() -> None:
    """Scan, and tell on the standard output; quietly ends once nobody reads."""
    from quantui.runtime.caches.inventory import scan

    with contextlib.suppress(BrokenPipeError), os.fdopen(os.dup(1), "wb", buffering=0) as out:
        try:
            for found in scan():
                for message in _told(found):
                    _write(out.fileno(), message)
            _write(out.fileno(), ("end", None))
        except BrokenPipeError:
            raise
        except Exception:  # noqa: BLE001 - whoever reads raises it
            import traceback

            _write(out.fileno(), ("failed", traceback.format_exc()))


def _told(found: Found) -> Iterator[tuple[str, Any]]:
    """The messages that tell one thing."""
    if isinstance(found, ScanProblem):
        yield "problem", found
        return
    claims = found.use.claims
    yield "item", replace(found, use=DiskUse(found.use.apparent, found.use.alone))
    for start in range(0, len(claims), _AT_ONCE):
        some = claims[start : start + _AT_ONCE]
        yield "claims", [(one.key, one.here, one.needed, one.allocated) for one in some]


def _write(pipe: int, message: tuple[str, Any]) -> None:
    body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    left = memoryview(_LENGTH.pack(len(body)) + body)
    while left:
        left = left[os.write(pipe, left) :]


if __name__ == "__main__":
    main()
