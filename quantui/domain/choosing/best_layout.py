"""Over which devices a candidate is best served, or why over none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.choosing.options import Option, Placed, devices, fit_in, placed, timed
from quantui.domain.choosing.recommendation import Refusal
from quantui.domain.support.method_support import support

if TYPE_CHECKING:
    from quantui.domain.choosing.candidates import Candidate
    from quantui.domain.choosing.layouts import Layout
    from quantui.domain.choosing.options import Asked, Workings
    from quantui.domain.choosing.recommendation import Situation
    from quantui.domain.support.method_findings import Refused
    from quantui.domain.support.method_support import Support

_SPLIT = "serve.tensor-parallel"
"""Code of refusals about dividing heads, layers and groups (method_splits.py)."""
SPEED_UP = 1.3
"""How much faster, in tokens a second, twice the cards have to be before "maximum speed" takes them."""
LEAST_GAIN = 1.02
"""The same for cards that another choice would take as well: enough that they do not lie idle."""
_LACKS = ("does not have", "no longer has")
"""How refusals about a vLLM that is too old or too new are worded (method_engines.py)."""


def best_option(candidate: Candidate, work: Workings, *, cards: int = 0) -> Option | Refusal:
    """The layout to serve the candidate with: the fewest cards that hold what is asked.

    "Maximum speed" takes more cards where they make it a good deal faster, and up to ``cards``, which another choice
    takes, where they make it faster at all: else the choices would not be compared on the same machine. Where
    nothing holds all of the asked users, the layout that holds most of them is taken. A refusal says why no layout
    will do.
    """
    found: list[Placed] = []
    refused: list[tuple[Layout, Support]] = []
    for same_count in work.layouts:
        of_count: list[Placed] = []
        for layout in same_count:
            answer = supported_in(candidate, layout, work.situation)
            if not answer.supported:
                refused.append((layout, answer))
                continue
            if any(_same_cards(layout, other.layout) for other in of_count):
                continue
            of_count.append(placed(candidate, layout, answer, work))
        found += of_count
        if not found and all(_for_good(answer) for _, answer in refused):
            break
        if found and not _wants_more(found, work.asked):
            break
    good = [option for option in found if option.fits]
    # Tensor parallel answers sooner: layers are dealt out to stages only where nothing else holds the model.
    undivided = [option for option in good if option.layout.pipeline_parallel == 1]
    if good:
        return _choose(undivided or good, work, cards)
    if found:
        return _does_not_fit(min(found, key=lambda option: option.fit.missing_bytes), work)
    return _unsupported(candidate, refused)


def supported_in(candidate: Candidate, layout: Layout, situation: Situation) -> Support:
    """Whether vLLM serves the candidate in this layout, and with which type and limits."""
    return support(
        candidate.served,
        gpus=layout.gpus,
        on_cpu=layout.on_cpu,
        shape=candidate.shape,
        dtype=situation.dtype,
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        vllm_version=situation.vllm_version,
        capabilities=situation.engine_methods,
        packages=situation.plugins,
        stored_as=candidate.stored_as,
        config=situation.config if candidate.way == "as it is" else None,
        cpu_flags=situation.hardware.host.cpu_flags,
    )


def _for_good(answer: Support) -> bool:
    """Refused for what more cards do not change: anything but how the model divides over them."""
    return any(one.code != _SPLIT for one in answer.refused)


def _same_cards(one: Layout, other: Layout) -> bool:
    """Of one set of cards the first split that is supported is kept: tensor parallel answers sooner than pipeline."""
    return [slot.gpu.index for slot in one.slots] == [slot.gpu.index for slot in other.slots]


def _wants_more(found: list[Placed], asked: Asked) -> bool:
    """Whether more cards should be looked at."""
    good = [option for option in found if option.fits and option.layout.pipeline_parallel == 1]
    if not good:
        return True
    if asked.use_case.name == "max-speed":
        return True
    return not any(option.fit.verdict == "fits" and option.held >= asked.users for option in good)


def _choose(good: list[Placed], work: Workings, cards: int) -> Option:
    if work.asked.use_case.name == "max-speed":
        best, *others = (timed(option, work) for option in good)
        for option in others:
            old, new = best.speed.tokens_per_s_total, option.speed.tokens_per_s_total
            grown = len(option.layout.slots) / max(1, len(best.layout.slots))
            needed = 1.0 if grown <= 1 else SPEED_UP ** (grown / 2)
            if grown > 1 and len(option.layout.slots) <= cards:
                needed = LEAST_GAIN
            if old is not None and new is not None and new >= old * needed:
                best = option
        return best
    return timed(max(good, key=lambda option: _order(option, work.asked)), work)


def _order(option: Placed, asked: Asked) -> tuple[float, ...]:
    whole = option.held >= asked.users
    return (
        whole,
        option.held,
        option.fit.verdict == "fits",
        -len(option.layout.slots),
        -option.layout.pipeline_parallel,
        option.layout.slowest.bandwidth_bytes_per_s if option.layout.slowest else 0.0,
    )


def _does_not_fit(nearest: Placed, work: Workings) -> Refusal:
    candidate, layout = nearest.candidate, nearest.layout
    where = devices(layout, work.situation.hardware)
    result = fit_in(candidate, layout, nearest.support, where, work, 1, suggest=True)
    reasons = result.reasons or (f"It does not fit into {result.device}.",)
    change = result.smallest_change
    if change is not None:
        reasons = (*reasons, f"{change.text.rstrip('.')}.")
    return Refusal(
        candidate.method.name,
        candidate.method.title,
        "model" if result.verdict == "unsupported" else "memory",
        reasons,
        source=result.weights.source,
        fit=result,
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        gpus=tuple(gpu.index for gpu in layout.gpus),
    )


def _unsupported(candidate: Candidate, refused: list[tuple[Layout, Support]]) -> Refusal:
    """In terms of the smallest layout, since larger ones only add reasons."""
    method, (_, first) = candidate.method, refused[0]
    return Refusal(
        method.name,
        method.title,
        _code(first.refused[0]),
        first.reasons,
        method.instead,
        "; ".join(dict.fromkeys(one.why for one in first.refused if one.why)) or method.source,
    )


def _code(one: Refused) -> str:
    """Whose fault it is: the engine's, the model's or the device's."""
    if one.code.startswith("engine") or one.text.startswith(("The installed vLLM", "This engine")):
        return "engine"
    if one.text.startswith("vLLM ") and any(words in one.text for words in _LACKS):
        return "engine"
    if one.code == _SPLIT or "quantizes experts only" in one.text:
        return "model"
    return "hardware"
