"""``quantui cache verify``: what lies on disk read to the end and compared with the hashes it should have."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from quantui.cli.cache_deleting import print_line
from quantui.cli.cache_looking import LivingLine, kinds_of, look
from quantui.cli.cache_rm import as_path
from quantui.domain.caches.deletion import outermost
from quantui.domain.caches.items import Kind
from quantui.domain.caches.json_form import verification_json
from quantui.domain.caches.naming import pick, told_apart
from quantui.domain.caches.verification import Soundness, Verified
from quantui.domain.caches.words import shown, sized, titled
from quantui.domain.errors import ExitCode

if TYPE_CHECKING:
    import argparse

CHECKED = frozenset({Kind.HUB, Kind.MERGED, Kind.QUANTIZED, Kind.FOLDER})
"""Kinds that are checked where nothing is named: models."""

_MARKS = {
    Soundness.OK: "✓",
    Soundness.INCOMPLETE: "✗",
    Soundness.DAMAGED: "✗",
    Soundness.UNKNOWN: "?",
}


def verify(args: argparse.Namespace) -> int:
    """Check what is meant; 6 where something is damaged, 130 when interrupted."""
    from quantui.headless import cancel_on_signals
    from quantui.runtime.caches.verifying import verify as check

    words = told_apart(as_path(word) for word in args.words)
    kinds = kinds_of(args.kinds)
    found = look()
    chosen = pick(found.items, words, now=time.time())
    if not words.names and not words.filter.terms:
        wanted = kinds or CHECKED
        chosen = tuple(item for item in found.items.values() if item.kind in wanted)
    elif kinds is not None:
        chosen = tuple(item for item in chosen if item.kind in kinds)
    things = outermost(chosen)
    done: list[Verified] = []
    with cancel_on_signals() as cancel, LivingLine() as line:
        for event in check(things, cancelled=cancel.is_set):
            if isinstance(event, Verified):
                done.append(event)
            if args.json:
                print_line(verification_json(event))
            elif isinstance(event, Verified):
                line.clear()
                _tell(event)
            else:
                read = f"{sized(event.done_bytes)} of {sized(event.total_bytes)}"
                line.tell(f"{len(done) + 1} of {len(things)}: {titled(event.item)}, {read}")
    if not args.json:
        sys.stdout.write(f"{_sum(done, len(things))}\n")
    if len(done) < len(things):
        return ExitCode.CANCELLED
    return ExitCode.CHECK_FAILED if any(one.damaged for one in done) else ExitCode.OK


def _tell(found: Verified) -> None:
    words = {
        Soundness.OK: f"as it should be, {sized(found.checked_bytes)} compared",
        Soundness.INCOMPLETE: "files are missing",
        Soundness.DAMAGED: "damaged",
        Soundness.UNKNOWN: "cannot be checked",
    }[found.state]
    sys.stdout.write(f"{_MARKS[found.state]} {titled(found.item)}: {words}\n")
    fixes = dict.fromkeys(one.fix for one in found.findings if one.fix)
    for finding in found.findings[:20]:
        place = f"{shown(finding.path)}: " if finding.path else ""
        sys.stdout.write(f"    {place}{shown(finding.what)}\n")
    if len(found.findings) > 20:
        sys.stdout.write(f"    and {len(found.findings) - 20} more\n")
    for fix in fixes:
        sys.stdout.write(f"    fix {shown(fix)}\n")
    sys.stdout.flush()


def _sum(done: list[Verified], asked: int) -> str:
    """One sentence at the end."""
    if not asked:
        return "There is nothing to check."
    compared = sized(sum(one.checked_bytes for one in done))
    parts = []
    for words, states in (
        ("as they should be", (Soundness.OK,)),
        ("damaged", (Soundness.DAMAGED,)),
        ("incomplete", (Soundness.INCOMPLETE,)),
        ("not to be checked", (Soundness.UNKNOWN,)),
    ):
        number = sum(one.state in states for one in done)
        if number:
            parts.append(f"{number} {words}")
    left = asked - len(done)
    parts += [f"{left} not checked: interrupted"] if left else []
    return f"{', '.join(parts)}; {compared} compared."
