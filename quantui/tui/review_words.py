"""What the Review step shows of a plan: its steps with time and disk, the totals, the verdict, what to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.content import Content

from quantui.domain.formatting import format_bytes, format_seconds
from quantui.domain.terminal_text import one_line, sanitize

if TYPE_CHECKING:
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.plan_costs import StepCost
    from quantui.tui.planner import Planned

_TIME, _BYTES = 13, 10
_VERDICTS = {
    "fits": ("✓ fits", "$text-success"),
    "tight": ("~ tight", "$text-warning"),
    "does not fit": ("✗ does not fit", "$text-error"),
    "unsupported": ("✗ unsupported", "$text-error"),
}


def steps_content(planned: Planned, width: int) -> Content:
    """The verdict on the memory, the table of steps, totals against the free disk, what differs, and notices."""
    costs = planned.costs
    title = max(16, width - _TIME - 2 * _BYTES - 7)
    head = f"   {'step':<{title + 1}} {'time':>{_TIME}} {'disk':>{_BYTES}} {'download':>{_BYTES}}"
    lines = [_memory_line(planned), Content.styled(head, "$text-muted")]
    lines += [_step_line(number, cost, title) for number, cost in enumerate(costs, 1)]
    lines.append(_total_line(costs, title))
    lines += _disk_lines(costs, planned.facts.hardware)
    lines += [_line("", one_line(text), "$text-warning") for text in planned.room]
    if planned.room:
        lines.append(_line("", "c shows what takes the disk.", "$text-muted"))
    if any(cost.kind == "install" and not cost.made for cost in costs):
        text = "Enter also fetches and installs the engines that are missing."
        lines.append(_line("engine", text, "$text-warning"))
    lines += [
        _line("running", f"{title}: it holds memory too (b shows it)", "$text-warning")
        for title in planned.others
    ]
    lines += [_line("differs", text, "$text-warning") for text in planned.differs]
    lines += [_line("note", text) for text in planned.plan.notices]
    return Content("\n").join(lines)


def commands_content(planned: Planned) -> Content:
    """The exact command of each step below its title."""
    parts: list[Content] = []
    for title, line in planned.plan.commands():
        parts.append(Content.styled(f"# {one_line(title)}", "$text-muted"))
        parts.append(Content(sanitize(line)))
    return Content("\n").join(parts)


def commands_text(planned: Planned) -> str:
    """The same to be copied."""
    return commands_content(planned).plain + "\n"


def toml_content(text: str) -> Content:
    """A profile's text, comments dim and tables bold."""
    parts = []
    for line in sanitize(text, keep_newlines=True).split("\n"):
        style = "$text-muted" if line.startswith("#") else "bold" if line.startswith("[") else ""
        parts.append(Content.styled(line, style))
    return Content("\n").join(parts)


def _step_line(number: int, cost: StepCost, title: int) -> Content:
    mark, style = ("↺", "$text-success") if cost.made else (" ", "")
    known = "" if cost.seconds is None else _about(cost.seconds)
    if cost.made:
        time = "made before"
    elif cost.kind in ("install", "download", "quantize"):
        time = known or "unknown"
    else:
        time = known
    return Content.assemble(
        f"{number:>2} ",
        Content.styled(mark, style),
        Content.styled(
            f"{_cut(one_line(cost.title), title):<{title}}", "dim" if cost.made else "bold"
        ),
        f" {time:>{_TIME}} {_bytes(cost.disk_bytes)} {_bytes(cost.download_bytes)}",
    )


def _total_line(costs: tuple[StepCost, ...], title: int) -> Content:
    from quantui.domain.plan_costs import known_seconds

    seconds, more = known_seconds(costs)
    time = _about(seconds) if seconds else ""
    if more:
        time = f"> {format_seconds(seconds)}" if seconds >= 1 else "unknown"
    disk = sum(cost.disk_bytes for cost in costs)
    fetched = sum(cost.download_bytes for cost in costs)
    text = f"    {'in all, before it serves':<{title}} {time:>{_TIME}} {_bytes(disk)} {_bytes(fetched)}"
    return Content.styled(text, "$text-muted")


def _disk_lines(costs: tuple[StepCost, ...], hardware: HardwareReport) -> list[Content]:
    from quantui.domain.plan_costs import disk_needs

    found = []
    for need in disk_needs(costs, hardware.host):
        where = ", ".join(need.purposes)
        text = (
            f"{format_bytes(need.needed_bytes)} of {format_bytes(need.free_bytes)} free ({where})"
        )
        found.append(
            _line("disk", f"✗ too little: {text}", "$text-error")
            if need.lacks
            else _line("disk", text)
        )
    return found


def _memory_line(planned: Planned) -> Content:
    """The verdict with its figures, or why it is not known."""
    estimate = planned.plan.estimate
    result = estimate.fit
    word, style = "unknown", "$text-warning"
    text = f"context {estimate.max_model_len}"
    if result is not None and result.max_context is not None:
        word, style = _VERDICTS[result.verdict]
        text = (
            f"weights {format_bytes(estimate.weight_bytes)}, KV cache {format_bytes(estimate.kv_cache_bytes)} = "
            f"{estimate.kv_cache_tokens} tokens, {text}"
        )
    sure = result is not None and result.verdict == "fits"
    reasons = "" if result is None or sure else "; ".join(("", *result.reasons))
    return Content.assemble(
        Content.styled(f"{'memory':<8}", "$text-muted"),
        Content.styled(word, f"bold {style}"),
        one_line(f": {text}{reasons}"),
    )


def _line(label: str, text: str, style: str = "") -> Content:
    return Content.assemble(
        Content.styled(f"{label:<8}", "$text-muted"), Content.styled(one_line(text), style)
    )


def _about(seconds: float) -> str:
    return f"~{format_seconds(seconds)}" if seconds >= 1 else "under 1 s"


def _bytes(count: int) -> str:
    return f"{format_bytes(count) if count else '':>{_BYTES}}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"
