"""What takes the disk in words, the same on every face: sizes, ages, kinds, plans and reports. Pure.

Everything given is safe for a terminal: names and paths are untrusted and come out as one printable line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.caches.items import CacheItem, Kind
from quantui.domain.formatting import format_bytes, format_seconds
from quantui.domain.terminal_text import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from quantui.domain.caches.deletion import DeletionPlan, DeletionReport
    from quantui.domain.caches.items import Rebuild

KIND_WORDS: dict[Kind, tuple[str, str]] = {
    Kind.HUB: ("Hub repository", "Hub repositories"),
    Kind.REVISION: ("revision", "revisions"),
    Kind.INCOMPLETE: ("incomplete download", "incomplete downloads"),
    Kind.MERGED: ("merged model", "merged models"),
    Kind.QUANTIZED: ("quantized model", "quantized models"),
    Kind.UNFINISHED: ("unfinished thing", "unfinished things"),
    Kind.BROKEN: ("broken model", "broken models"),
    Kind.ENGINE: ("engine", "engines"),
    Kind.RUN: ("run", "runs"),
    Kind.COMPILED: ("compile cache", "compile caches"),
    Kind.MEASURED: ("cache of answers", "caches of answers"),
    Kind.PACKAGES: ("cache of packages", "caches of packages"),
    Kind.FOLDER: ("model in a folder of yours", "models in folders of yours"),
    Kind.TRASH: ("thing in the trash", "things in the trash"),
}
"""One, and several, of a kind."""

_AREAS = {
    Kind.HUB: "hub cache",
    Kind.REVISION: "hub cache",
    Kind.INCOMPLETE: "hub cache",
    Kind.MERGED: "artifacts",
    Kind.QUANTIZED: "artifacts",
    Kind.BROKEN: "artifacts",
    Kind.ENGINE: "engines",
    Kind.RUN: "runs",
    Kind.COMPILED: "compiled",
    Kind.MEASURED: "cache",
    Kind.PACKAGES: "packages",
    Kind.FOLDER: "folders",
    Kind.TRASH: "trash",
}

_TEXT_MOST = 300


def area_of(item: CacheItem) -> str:
    """The place that it belongs to: ``hub cache``, ``artifacts``, ``engines``, ``runs``, ``trash`` ..."""
    if item.kind is Kind.UNFINISHED:
        return "engines" if item.root.rstrip("/").rpartition("/")[2] == "engines" else "artifacts"
    return _AREAS[item.kind]


def counted(number: int, kind: Kind) -> str:
    """``1 merged model``, ``1,204 runs``."""
    return f"{number:,} {KIND_WORDS[kind][number != 1]}"


def sized(count: float | None) -> str:
    """``0 B``, ``512 B``, ``4.0 KiB``, ``12.5 MiB``, ``14.19 GiB``, ``1.53 TiB``: bytes in binary units."""
    if count is None:
        return "unknown"
    size, units = float(count), ("B", "KiB", "MiB", "GiB", "TiB")
    power = 0
    while abs(size) >= 1000 and power < len(units) - 1:
        size, power = size / 1024, power + 1
    return f"{size:.{(0, 1, 1, 2, 2)[power]}f} {units[power]}"


def aged(seconds: float) -> str:
    """``now``, ``5 min``, ``3 h``, ``12 d``, ``5 months``, ``2 y``: the largest whole unit, for a column."""
    if seconds < 60:
        return "now"
    for unit, length, until in (
        ("min", 60, 3600),
        ("h", 3600, 86400),
        ("d", 86400, 60 * 86400),
        ("months", 30 * 86400, 730 * 86400),
    ):
        if seconds < until:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds // (365 * 86400))} y"


def ago(at: float | None, now: float) -> str:
    """``3 d ago``, ``just now``, ``unknown``."""
    if at is None:
        return "unknown"
    words = aged(max(0.0, now - at))
    return "just now" if words == "now" else f"{words} ago"


def shown(text: str) -> str:
    """A name or a path on one line: what is not UTF-8 or not printable in it cannot reach a terminal."""
    whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return one_line(whole)


def titled(item: CacheItem) -> str:
    """``merged model llama--merged--1a2b``: what it is and its name; of a file of a profile, a run ... too."""
    return f"{KIND_WORDS[item.kind][0]} {shown(item.name)}"


def rebuilt(rebuild: Rebuild | None) -> str:
    """How it comes back: ``download it again (14.19 GiB)``, ``made from X; it took 4 min 02 s``."""
    if rebuild is None:
        return "nothing is known of how to have it again"
    words = one_line(rebuild.words)[:_TEXT_MOST]
    size = sized(rebuild.download)
    if rebuild.download and size not in words and format_bytes(rebuild.download) not in words:
        words += f" ({size})" if "download" in words else f" ({size} to download)"
    took = "" if rebuild.seconds is None else format_seconds(rebuild.seconds)
    return f"{words}; it took {took}" if took and took not in words else words


def state_of(item: CacheItem) -> str:
    """What a row says besides the figures: who uses it, which profiles, why it stays, what it is."""
    parts = []
    if item.users:
        pids = sorted({use.pid for use in item.users})
        more = f" and {len(pids) - 1} more" if len(pids) > 1 else ""
        parts.append(f"in use by process {pids[0]}{more}")
    if item.profiles:
        names = [shown(name.rpartition("/")[2]) for name in item.profiles[:3]]
        more = f" and {len(item.profiles) - 3} more" if len(item.profiles) > 3 else ""
        parts.append(f"for {', '.join(names)}{more}")
    if item.detail:
        parts.append(shown(item.detail)[:_TEXT_MOST])
    return "; ".join(parts)


def summed(items: Iterable[CacheItem]) -> str:
    """``2 merged models, 1 run``: how many of each kind."""
    numbers: dict[Kind, int] = {}
    for item in items:
        numbers[item.kind] = numbers.get(item.kind, 0) + 1
    return ", ".join(counted(number, kind) for kind, number in numbers.items()) or "nothing"


def plan_words(plan: DeletionPlan) -> str:
    """One sentence: what goes and the bytes that it frees, what stays because it is shared."""
    if not plan.goes:
        return "Nothing would go." if plan.stays else "There is nothing to delete."
    what = summed(plan.goes)
    if plan.to_trash:
        moved = sized(sum(item.use.on_disk for item in plan.goes))
        return f"{what} to the trash: {moved}, freed only when the trash is emptied."
    shared = f"; {sized(plan.shared)} stay, shared with other things" if plan.shared else ""
    return f"{what}: frees {sized(plan.frees)}{shared}."


def report_words(report: DeletionReport, plan: DeletionPlan) -> str:
    """One sentence: what really went and was freed, beside what was planned; what stayed."""
    done = summed(one.item for one in report.deleted)
    if plan.to_trash and report.deleted:
        text = f"Moved to the trash: {done}"
    elif report.deleted:
        text = f"Deleted {done}: {sized(report.freed)} freed"
    else:
        text = "Nothing was deleted"
        if report.freed:
            text += f" whole; {sized(report.freed)} freed of {sized(plan.frees)} planned"
    if not plan.to_trash and report.deleted:
        planned = sized(plan.frees)
        text += ", as planned" if planned == sized(report.freed) else f" of {planned} planned"
    if report.kept:
        text += f"; {summed(one.item for one in report.kept)} stayed"
    left = len(plan.goes) - len(report.deleted) - len(report.kept)
    if report.cancelled:
        text += f"; cancelled, {left} not begun" if left > 0 else "; cancelled"
    return f"{text}."


def budget_words(used: int, budget: int | None) -> str:
    """``61.20 GiB of the budget of 186.26 GiB (33%)``, or what would count against one."""
    if budget is None:
        return f"no budget set; {sized(used)} would count"
    if budget <= 0:
        return f"{sized(used)} of a budget of nothing"
    over = f", {sized(used - budget)} over it" if used > budget else ""
    return f"{sized(used)} of the budget of {sized(budget)} ({used / budget:.0%}{over})"


def joined(words: Sequence[str], last: str = "and") -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"
