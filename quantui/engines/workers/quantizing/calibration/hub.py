"""Calibration texts of a data set on the Hub, through the ``datasets`` library."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from quantizing.calibration.sources import Document, record, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_NAME = re.compile(
    r"hub:(?P<name>[\w.-]+/[\w.-]+)(?:/(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?(?::(?P<split>\w+))?"
)

ENOUGH = 20
"""So many rows are read for each sample wanted: some are empty, short or repeated."""


def read(
    source: str, samples: int, render: Callable[[list[dict[str, str]]], str]
) -> Iterator[Document]:
    """The first rows of ``hub:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]``; the split is ``train`` unless named.

    Raises:
        WorkerError: ``calibration.bad-name`` (exit code 2), ``calibration.not-found`` (5),
            ``engine.lacks-packages``, and those of :func:`record`.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise refused(
            "calibration.bad-name",
            f"{source!r} names no data set.",
            "",
            "Write hub:OWNER/NAME, hub:OWNER/NAME@REVISION or hub:OWNER/NAME:SPLIT.",
        )
    rows = _open(match)
    number = 0
    try:
        for number, row in enumerate(rows, 1):
            yield record(row, f"{source}, row {number},", render)
            if number >= ENOUGH * samples:
                return
    except OSError as error:
        raise _not_found(source, error) from error


def _open(match: re.Match[str]) -> Any:  # noqa: ANN401
    try:
        import datasets
    except ImportError as error:
        raise refused(
            "engine.lacks-packages",
            "This engine cannot read data sets of the Hub.",
            "It lacks the package datasets.",
            "Install datasets into the engine, or give a file of your own with --calibration.",
            4,
        ) from error
    try:
        return datasets.load_dataset(
            match["name"],
            match["config"],
            revision=match["revision"],
            split=match["split"] or "train",
            streaming=True,
        )
    # No network, no such repository, no such split, a script that is not run: each another class.
    except Exception as error:
        raise _not_found(match[0], error) from error


def _not_found(source: str, error: Exception) -> Exception:
    first = (str(error).strip().splitlines() or [""])[0]
    return refused(
        "calibration.not-found",
        f"The data set {source} could not be read.",
        f"{type(error).__name__}: {first}"[:400],
        "Check name, configuration (hub:OWNER/NAME/CONFIG), split and network, or give a file of your own "
        "with --calibration; the built-in texts need no network.",
        5,
    )
