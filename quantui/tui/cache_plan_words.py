"""A deletion in words: the lines of its plan, what it comes to, and what was really freed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.caches.deletion import Deleted
from quantui.domain.caches.words import joined, rebuilt, report_words, shown, sized, summed
from quantui.domain.terminal_text import one_line
from quantui.tui.cache_words import back_words
from quantui.tui.widgets.row_table import Cell, Column

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.caches.deletion import DeletionPlan, Kept
    from quantui.domain.caches.items import CacheDisk, CacheItem
    from quantui.tui.cache_job import DeletionJob

PLAN_COLUMNS = (
    Column("", 5),
    Column("frees", 10, right=True),
    Column("name", 18, grows=True),
    Column("how it comes back, or why it stays", 22, grows=True),
)
REPORT_COLUMNS = (
    Column("", 7),
    Column("freed", 10, right=True),
    Column("name", 18, grows=True),
    Column("", 18, grows=True),
)


@dataclass(frozen=True)
class PlanLine:
    """A thing of a plan; ``why`` it stays, "" where it goes."""

    item: CacheItem
    why: str = ""


def plan_lines(plan: DeletionPlan) -> tuple[PlanLine, ...]:
    """What stays first: that is what nobody expects; then what goes, in order."""
    stays = tuple(PlanLine(one.item, one.why) for one in plan.stays)
    return (*stays, *(PlanLine(item) for item in plan.goes))


def plan_cells(line: PlanLine) -> Sequence[Cell | str]:
    """One line of a plan."""
    item = line.item
    if line.why:
        return (
            Cell("stays", "warn"),
            Cell("-", "muted"),
            shown(item.name),
            Cell(one_line(line.why)),
        )
    rest = Cell(
        rebuilt(item.rebuild), "muted" if item.rebuild and item.rebuild.possible else "warn"
    )
    return ("goes", sized(item.use.frees), shown(item.name), rest)


def plan_summary(plan: DeletionPlan, disks: Sequence[CacheDisk]) -> list[Content]:
    """What it comes to: bytes, what is shared, what stays, who needs it."""
    if not plan.goes:
        text = "Nothing of it may go now." if plan.stays else "It is gone already."
        return [Content.styled(text, "bold $text-warning")]
    lines = [
        Content.assemble(
            Content.styled(f"Frees {sized(plan.frees)}", "bold"),
            f": {summed(plan.goes)}.{_room(plan, disks)}",
        )
    ]
    if plan.shared:
        lines.append(
            Content(f"{sized(plan.shared)} of it stay on the disk: other things hold them too.")
        )
    profiles = list(dict.fromkeys(path for item in plan.goes for path in item.profiles))
    if profiles:
        names = [shown(path) for path in profiles[:3]]
        names += [f"{len(profiles) - 3} more"] if len(profiles) > 3 else []
        many = "s" if len(profiles) > 1 else ""
        lines.append(
            Content.styled(f"! needed by the profile{many} {joined(names)}", "$text-warning")
        )
    lost = [item for item in plan.goes if item.rebuild is None or not item.rebuild.possible]
    if lost:
        names = [shown(item.name) for item in lost[:2]]
        names += [f"{len(lost) - 2} more"] if len(lost) > 2 else []
        text = f"! nothing that is known brings back {joined(names)}"
        lines.append(Content.styled(text, "$text-warning"))
    return lines


def _room(plan: DeletionPlan, disks: Sequence[CacheDisk]) -> str:
    """What is free then, where all of it is on one disk."""
    roots = {item.root for item in plan.goes}
    there = [disk for disk in disks if roots & set(disk.roots)]
    if len(there) != 1 or not roots <= set(there[0].roots):
        return ""
    return f" The disk then has {sized(there[0].free_bytes + plan.frees)} free."


def plan_detail(line: PlanLine | None) -> list[Content]:
    """The highlighted line in full."""
    if line is None:
        return []
    item = line.item
    path = Content.styled(shown(item.path), "$text-muted")
    if line.why:
        return [Content.styled(f"stays: {one_line(line.why)}", "$text-warning"), path]
    lines = [Content(back_words(item))]
    if item.use.shared:
        lines.append(
            Content(f"alone it frees {sized(item.use.frees)} of {sized(item.use.on_disk)}")
        )
    return [*lines, path]


def progress_head(job: DeletionJob) -> Content:
    """How far a deletion is, or how it ended."""
    plan = job.plan
    if job.failed:
        return Content.styled(one_line(job.failed), "bold $text-error")
    if job.report is not None:
        return Content.styled(report_words(job.report, plan), "bold")
    number = min(len(job.done) + 1, len(plan.goes))
    verb = "Moving" if plan.to_trash else "Deleting"
    state = "Stopping after the file at hand... " if job.cancelling else ""
    name = f": {shown(job.at.name)}" if job.at is not None else ""
    return Content.assemble(
        Content.styled(f"{state}{verb} {number:,} of {len(plan.goes):,}", "bold"), name
    )


def progress_foot(job: DeletionJob) -> Content:
    """Bytes given back, beside what was planned."""
    plan, report = job.plan, job.report
    if plan.to_trash:
        if report is None:
            return Content("Nothing is freed until the trash is emptied.")
        return Content("u brings it back. The bytes are freed when the trash is emptied.")
    files = f", {job.progress.files:,} files" if job.progress is not None else ""
    text = f"{sized(job.freed)} of {sized(plan.frees)} given back{files}"
    if report is not None:
        text = f"really freed {sized(report.freed)}, planned {sized(plan.frees)}"
    return Content.styled(text, "$text-muted")


def report_cells(one: Deleted | Kept) -> Sequence[Cell | str]:
    """A thing that is through."""
    name = shown(one.item.name)
    if not isinstance(one, Deleted):
        return (
            Cell("stayed", "warn"),
            sized(one.freed) if one.freed else "-",
            name,
            one_line(one.why),
        )
    if one.trashed:
        return (Cell("moved", "good"), "-", name, Cell("to the trash", "muted"))
    return (Cell("gone", "good"), sized(one.freed), name, Cell(f"{one.files:,} files", "muted"))
