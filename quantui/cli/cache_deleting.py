"""From a plan of deletion to its end, as `rm` and `prune` share it: show, ask, do, report."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

from quantui.cli.cache_looking import LivingLine
from quantui.domain.caches.deletion import (
    Deleted,
    Deleting,
    DeletionProgress,
    DeletionReport,
    Kept,
)
from quantui.domain.caches.items import Kind
from quantui.domain.caches.json_form import deletion_json, plan_json
from quantui.domain.caches.words import (
    ago,
    plan_words,
    rebuilt,
    report_words,
    shown,
    sized,
    titled,
)
from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from quantui.domain.caches.deletion import DeletionEvent, DeletionPlan
    from quantui.domain.caches.items import CacheItem
    from quantui.domain.caches.pruning import Shortfall

_MOST_ROWS = 40
_INDENT = " " * 12


def carry_out(
    plan: DeletionPlan,
    args: argparse.Namespace,
    *,
    whys: Mapping[str, str] | None = None,
    shortfalls: tuple[Shortfall, ...] = (),
) -> int:
    """Show ``plan``, ask, delete, report; gives the exit code.

    ``args``: ``dry_run``, ``yes`` and ``json`` of the command. ``whys``: why each thing was chosen, by path. Raises
    QuantuiError ``cache.not-confirmed`` where there is nobody to ask, and ``cli.declined``.
    """
    whys = whys or {}
    if args.json:
        print_line(plan_json(plan, whys, shortfalls))
    else:
        for line in plan_lines(plan, whys, shortfalls, now=time.time(), whole=args.dry_run):
            sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    short = ExitCode.DOES_NOT_FIT if plan.stays or shortfalls else ExitCode.OK
    if args.dry_run:
        return ExitCode.OK
    if not plan.goes:
        return short
    _agree(plan, yes=args.yes)
    report = _delete(plan, as_json=args.json)
    if not args.json:
        sys.stdout.write(f"{report_words(report, plan)}\n")
        if plan.to_trash and report.deleted:
            sys.stdout.write("`quantui cache undo` brings it back.\n")
    if report.cancelled:
        return ExitCode.CANCELLED
    return ExitCode.DOES_NOT_FIT if report.kept else short


def plan_lines(
    plan: DeletionPlan,
    whys: Mapping[str, str],
    shortfalls: tuple[Shortfall, ...] = (),
    *,
    now: float,
    whole: bool = False,
) -> Iterator[str]:
    """The plan: what goes with its bytes, why, and how it comes back; what stays and why; the sum.

    ``whole``: every thing, however many.
    """
    goes = plan.goes if whole or len(plan.goes) <= _MOST_ROWS + 2 else plan.goes[:_MOST_ROWS]
    for item in goes:
        yield from _thing(item, whys.get(item.path, ""), now, to_trash=plan.to_trash)
    more = plan.goes[len(goes) :]
    if more:
        yield f"{'':>10}  and {len(more):,} more; --dry-run shows all of them"
    for one in plan.stays:
        yield f"{'stays':>10}  {titled(one.item)}: {shown(one.why)}"
    for missed in shortfalls:
        yield f"{'not met':>10}  {shown(missed.goal)}: {sized(missed.missing)} too few"
        yield f"{_INDENT}{shown(missed.why)}"
    if plan.goes or plan.stays:
        yield ""
    yield plan_words(plan)


def _thing(item: CacheItem, why: str, now: float, *, to_trash: bool) -> Iterator[str]:
    size = item.use.on_disk if to_trash else item.use.frees
    used = "" if why else f"  last used {ago(item.used_at, now)}"
    yield f"{sized(size):>10}  {titled(item)}{used}"
    if why:
        yield f"{_INDENT}{shown(why)}"
    if item.use.shared and not to_trash:
        yield f"{_INDENT}{sized(item.use.shared)} of it are shared: they go with the last who holds them"
    if item.profiles:
        yield f"{_INDENT}used by {', '.join(map(shown, item.profiles[:3]))}"
    if item.kind is Kind.TRASH:
        yield f"{_INDENT}then it is gone for good"
    elif item.rebuild is not None and not item.rebuild.possible:
        yield f"{_INDENT}not to be had again: {rebuilt(item.rebuild)}"
    elif not to_trash:
        yield f"{_INDENT}to have it again: {rebuilt(item.rebuild)}"


def _agree(plan: DeletionPlan, *, yes: bool) -> None:
    """Return when the user says yes."""
    if yes:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise QuantuiError(
            "cache.not-confirmed",
            "Nothing was deleted: nobody can be asked, this is not a terminal.",
            "What is deleted has to be agreed to.",
            "Give --yes to delete what the plan shows, or --dry-run to see it only.",
            ExitCode.BAD_INPUT,
        )
    what = "it" if len(plan.goes) == 1 else f"these {len(plan.goes):,}"
    verb = "Move to the trash:" if plan.to_trash else "Delete"
    sys.stderr.write(f"{verb} {what}? [y/N] ")
    sys.stderr.flush()
    try:
        answer = sys.stdin.readline().strip().lower()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        answer = ""
    if answer not in ("y", "yes"):
        raise QuantuiError("cli.declined", "Nothing was deleted.", exit_code=ExitCode.CANCELLED)


def _delete(plan: DeletionPlan, *, as_json: bool) -> DeletionReport:
    """Delete with progress; a signal ends it after what is under way."""
    from quantui.headless import cancel_on_signals
    from quantui.runtime.caches.deleting import delete

    report = DeletionReport((), (), 0)
    with cancel_on_signals() as cancel, LivingLine() as line:
        told = _Told(line, len(plan.goes), to_trash=plan.to_trash)
        for event in delete(plan, cancelled=cancel.is_set):
            if as_json:
                print_line(deletion_json(event))
            else:
                told.heard(event)
            if isinstance(event, DeletionReport):
                report = event
    return report


class _Told:
    """Events for a person: a line for each thing that went or stayed, and one that lives."""

    def __init__(self, line: LivingLine, number: int, *, to_trash: bool) -> None:
        self._line = line
        self._number = number
        self._at = 0
        self._doing = "moving" if to_trash else "deleting"

    def heard(self, event: DeletionEvent) -> None:
        """Show one event."""
        if isinstance(event, Deleting):
            self._at += 1
            self._living(event.item, "")
        elif isinstance(event, DeletionProgress):
            files = f"{event.files:,} file{'' if event.files == 1 else 's'}"
            self._living(event.item, f", {files}, {sized(event.freed)} freed")
        elif isinstance(event, Deleted):
            done = "moved to the trash" if event.trashed else f"deleted, {sized(event.freed)} freed"
            self._say(f"✓ {titled(event.item)}: {done}")
        elif isinstance(event, Kept):
            freed = f" ({sized(event.freed)} of it freed)" if event.freed else ""
            self._say(f"! {titled(event.item)} stays: {shown(event.why)}{freed}")

    def _living(self, item: CacheItem, rest: str) -> None:
        self._line.tell(f"{self._doing} {self._at} of {self._number}: {titled(item)}{rest}")

    def _say(self, text: str) -> None:
        self._line.clear()
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def print_line(value: dict[str, Any]) -> None:
    """One JSON line on stdout."""
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()
