"""What the measurements of `benchmarks/merge.py` mean: tables, ratios, and targets kept or missed."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merging.measuring import Run

MIB = 2**20
RSS_TARGET_MIB = 64.0
"""Peak RSS of ours beyond ``import torch``, at two workers."""
COPY_TARGET = 3.0
"""Times the wall time of cp and fsync, at most."""
COPY_AIM = 2.0
PEFT_TARGET = 5.0
"""Times faster than PEFT, at least."""
DIFFER_TARGET = 1.0
"""Elements in ten million of the linear layers that may differ from PEFT's, each by one ulp."""

TORCH, COPY, OURS, PEFT = "import torch", "cp -r + fsync", "ours", "PEFT"

Runs = dict[str, list["Run"]]


@dataclass(frozen=True)
class Point:
    """One size of the sweep."""

    parameters: int
    bytes: int
    shards: int
    runs: Runs


def table(rows: list[tuple[str, ...]]) -> None:
    """Print a markdown table whose columns also stand straight as plain text; the first row is its head."""
    widths = [max(3, *(len(row[number]) for row in rows)) for number in range(len(rows[0]))]
    lines = [
        (cell.ljust if number == 0 else cell.rjust)(width)
        for row in rows
        for number, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    texts = [
        f"| {' | '.join(lines[at : at + len(widths)])} |"
        for at in range(0, len(lines), len(widths))
    ]
    rule = "| " + " | ".join(["-" * widths[0], *("-" * (w - 1) + ":" for w in widths[1:])]) + " |"
    print(texts[0], rule, *texts[1:], "", sep="\n")


def middle(runs: list[Run], name: str) -> float:
    """The median of one figure."""
    return float(statistics.median(getattr(run, name) for run in runs))


def spread(runs: list[Run], name: str) -> str:
    """Median, with least and most."""
    values = [getattr(run, name) for run in runs]
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def over_torch(runs: Runs, name: str) -> float:
    """MiB of peak RSS beyond ``import torch``: medians."""
    return (middle(runs[name], "peak_rss") - middle(runs[TORCH], "peak_rss")) / MIB


def ratio(runs: Runs, name: str, to: str) -> tuple[float, str]:
    """Wall time of one to another: of the medians, and as text with the least and most of any round."""
    whole = middle(runs[name], "wall_s") / middle(runs[to], "wall_s")
    each = [a.wall_s / b.wall_s for a, b in zip(runs[name], runs[to], strict=True)]
    return whole, f"{whole:.2f} ({min(each):.2f}-{max(each):.2f})"


def measured(runs: Runs) -> None:
    """The table of wall time, CPU time and memory."""
    head = ("", "wall, s", "CPU, s", "peak RSS, MiB", "over import torch", "read from disk, MiB")
    rows: list[tuple[str, ...]] = [head]
    for name, group in runs.items():
        if not group:
            continue
        has_torch = name in (OURS, PEFT)
        rows.append(
            (
                name,
                spread(group, "wall_s"),
                spread(group, "cpu_s"),
                # The shell is smaller than the process that starts it, whose memory would be shown.
                "" if name == COPY else f"{middle(group, 'peak_rss') / MIB:.0f}",
                f"{over_torch(runs, name):+.0f}" if has_torch else "",
                f"{middle(group, 'disk_read') / MIB:.0f}",
            )
        )
    table(rows)


def where_time_goes(runs: Runs) -> None:
    """Ours by phases, beside what cannot be spared: the import of torch and the copy."""
    rows: list[tuple[str, ...]] = [("ours, by phase", "wall, s", "CPU, s", "peak RSS, MiB")]
    for number, phase in enumerate(runs[OURS][0].phases):
        # A run that took another way has other phases; it is no part of these medians.
        same = [
            run.phases[number]
            for run in runs[OURS]
            if len(run.phases) > number and run.phases[number].name == phase.name
        ]
        rows.append(
            (
                phase.name,
                f"{statistics.median(item.wall_s for item in same):.2f}",
                f"{statistics.median(item.cpu_s for item in same):.2f}",
                f"{statistics.median(item.peak_rss for item in same) / MIB:.0f}",
            )
        )
    for name in (TORCH, COPY):
        wall, cpu = middle(runs[name], "wall_s"), middle(runs[name], "cpu_s")
        rows.append((f"beside: {name}", f"{wall:.2f}", f"{cpu:.2f}", ""))
    table(rows)
    beyond = middle(runs[OURS], "wall_s") - middle(runs[TORCH], "wall_s")
    beyond -= middle(runs[COPY], "wall_s")
    print(f"Ours takes {beyond:.2f} s beyond importing torch and copying the same bytes.\n")


def compared(found: dict[str, Any]) -> tuple[float, int]:
    """Print what differs; gives elements in ten million of the linear layers, and the most ulp there."""
    rows: list[tuple[str, ...]] = [
        ("ours against PEFT", "tensors", "elements", "differ", "of 10^7", "most ulp")
    ]
    for name, title in (("linear", "linear layers"), ("other", "all others")):
        group = found[name]
        part = group["differ"] / max(1, group["elements"]) * 1e7
        cells = (f"{group['elements']:,}", f"{group['differ']:,}", f"{part:.2f}")
        rows.append((title, str(group["tensors"]), *cells, str(group["ulp"])))
    table(rows)
    if found["unlike"]:
        names = ", ".join(found["unlike"][:5])
        print(f"{len(found['unlike'])} tensors on one side only, or unlike: {names}\n")
    linear = found["linear"]
    return linear["differ"] / max(1, linear["elements"]) * 1e7, linear["ulp"]


def verdict(text: str, *, kept: bool) -> bool:
    """Print one target; gives whether it is missed."""
    print(f"target {'kept' if kept else 'MISSED'}: {text}")
    return not kept


def whole(runs: Runs, found: dict[str, Any]) -> int:
    """Print everything about one size; gives the number of targets missed."""
    measured(runs)
    where_time_goes(runs)
    differ, ulp = compared(found)
    copy, copy_text = ratio(runs, OURS, COPY)
    peft, peft_text = ratio(runs, PEFT, OURS)
    memory = over_torch(runs, OURS)
    aim = "reached" if copy <= COPY_AIM else "not reached"
    missed = [
        verdict(
            f"ours / cp {copy_text}, at most {COPY_TARGET:g}; the aim of {COPY_AIM:g} is {aim}",
            kept=copy <= COPY_TARGET,
        ),
        verdict(f"PEFT / ours {peft_text}, at least {PEFT_TARGET:g}", kept=peft >= PEFT_TARGET),
        verdict(
            f"peak RSS {memory:+.0f} MiB over import torch, at most +{RSS_TARGET_MIB:g}",
            kept=memory <= RSS_TARGET_MIB,
        ),
        verdict(
            f"{differ:.2f} of 10^7 elements of linear layers differ from PEFT's, by at most {ulp} "
            f"ulp; at most {DIFFER_TARGET:g}, by 1",
            kept=differ <= DIFFER_TARGET and ulp <= 1,
        ),
        verdict(
            f"{found['other']['differ']} elements of other tensors differ, "
            f"{len(found['unlike'])} tensors are on one side only; none may",
            kept=not found["other"]["differ"] and not found["unlike"],
        ),
    ]
    return sum(missed)


def line(xs: list[float], ys: list[float]) -> tuple[float, float]:
    """Intercept and slope of the least-squares line; a slope of 0 for a single point."""
    if len(xs) < 2:
        return ys[0], 0.0
    slope, intercept = statistics.linear_regression(xs, ys)
    return intercept, slope


def sweep(points: list[Point]) -> int:
    """Print memory and time against size; gives the number of targets missed."""
    sizes = [point.bytes / 1e9 for point in points]
    times = [middle(point.runs[OURS], "wall_s") for point in points]
    memory = [over_torch(point.runs, OURS) for point in points]
    a, b = line(sizes, times)
    rows: list[tuple[str, ...]] = [
        (
            "parameters, B", "GB", "shards", "cp, s", "ours, s", "ours, s/GB", "ours / cp", "line, s",
            "residual, s", "over import torch, MiB", "read from disk, MiB",
        )
    ]  # fmt: skip
    residuals = []
    for point, size, wall, rss in zip(points, sizes, times, memory, strict=True):
        residuals.append(wall - (a + b * size))
        rows.append(
            (
                f"{point.parameters / 1e9:.3f}",
                f"{size:.2f}",
                str(point.shards),
                spread(point.runs[COPY], "wall_s"),
                spread(point.runs[OURS], "wall_s"),
                f"{wall / size:.2f}",
                ratio(point.runs, OURS, COPY)[1],
                f"{a + b * size:.2f}",
                f"{residuals[-1]:+.2f}",
                f"{rss:+.1f}",
                f"{middle(point.runs[OURS], 'disk_read') / MIB:.0f}",
            )
        )
    table(rows)
    largest = max(zip(residuals, times, strict=True), key=lambda pair: abs(pair[0]))
    print(
        f"time: {a:.2f} s + {b:.3f} s/GB (least squares); largest residual {largest[0]:+.2f} s, "
        f"{abs(largest[0]) / largest[1]:.1%} of that size's time"
    )
    _, slope = line(sizes, memory)
    print(
        f"memory: {min(memory):+.1f} to {max(memory):+.1f} MiB over import torch, "
        f"{slope:+.2f} MiB a GB of model (least squares)"
    )
    return int(
        verdict(
            f"peak RSS at most +{RSS_TARGET_MIB:g} MiB over import torch at every size",
            kept=max(memory) <= RSS_TARGET_MIB,
        )
    )
