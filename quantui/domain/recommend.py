"""Which methods work for a model on a machine, will they fit, which is best for the use, and why.

Pure and deterministic: everything looked at is in the :class:`Situation`. The parts: candidates (how a method is
had), layouts (over which devices), options (whether it is supported there, fits, how fast), costs, ranking, reasons.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.choosing.adapter_advice import adapter_advice
from quantui.domain.choosing.best_layout import best_option
from quantui.domain.choosing.candidates import candidates, steps_of
from quantui.domain.choosing.costs import total_cost
from quantui.domain.choosing.explanation import explanation, refusal_explanation
from quantui.domain.choosing.layouts import layouts, usable_slots
from quantui.domain.choosing.nearest import nearest_miss
from quantui.domain.choosing.options import Asked, Option, Workings
from quantui.domain.choosing.ranking import rank
from quantui.domain.choosing.reasons import cautions_of, reasons_of
from quantui.domain.choosing.recommendation import (
    AdapterAdvice,
    AdapterMode,
    Choice,
    Cost,
    NearestMiss,
    Recommendation,
    Refusal,
    Situation,
    Step,
    Way,
)
from quantui.domain.choosing.training import training_options
from quantui.domain.choosing.use_cases import DEFAULT_USE_CASE, UseCase, use_case, use_cases
from quantui.domain.explained_row import Row
from quantui.domain.hardware_checks import min_compute_capability
from quantui.domain.versions import version_numbers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.choosing.candidates import Candidate
    from quantui.domain.choosing.layouts import Slot
    from quantui.domain.choosing.ranking import Ranked
    from quantui.domain.performance.quality import Quality

__all__ = [
    "DEFAULT_USE_CASE",
    "AdapterAdvice",
    "AdapterMode",
    "Choice",
    "Cost",
    "NearestMiss",
    "Recommendation",
    "Refusal",
    "Row",
    "Situation",
    "Step",
    "UseCase",
    "Way",
    "explanation",
    "recommend",
    "refusal_explanation",
    "use_case",
    "use_cases",
]


def recommend(situation: Situation) -> Recommendation:
    """Ranked choices that fit, and a refusal with its reason for every other method of the catalogue.

    A choice that is not ``ready`` needs a checkpoint that does not exist yet: it is ranked where it belongs, with
    what making it costs. Raises QuantuiError for an unknown use case.
    """
    asked = _asked(situation)
    lowest = min_compute_capability(version_numbers(situation.vllm_version))
    slots, device_notes = usable_slots(situation.hardware, situation.gpus, lowest)
    work = Workings(situation, asked, tuple(layouts(slots, counts=_counts(len(slots)))), {})
    advice = adapter_advice(situation)
    found, refused = candidates(situation, advice)
    options: list[tuple[Option, Quality, Cost]] = []
    refusals = list(refused)
    for candidate, answer in zip(found, _placed(found, work), strict=True):
        if isinstance(answer, Option):
            options.append((answer, work.quality_of(candidate), _cost(answer, situation)))
        else:
            refusals.append(answer)
    if asked.use_case.name == "train-further":
        trained, refusals = training_options(work, refusals)
        options += [(one, work.quality_of(one.candidate), _cost(one, situation)) for one in trained]
    ranked = rank(options, asked.use_case, asked.users)
    choices = tuple(_choice(place, one, ranked, work) for place, one in enumerate(ranked, 1))
    return Recommendation(
        asked.use_case.name,
        asked.context,
        asked.users,
        not slots,
        choices,
        _with_what_works(refusals, choices),
        advice,
        None if choices else nearest_miss(tuple(refusals)),
        (
            *device_notes,
            *_at_once(choices),
            *_of_a_format(situation, choices),
            *_copies(ranked, slots),
            *_notes(situation, asked, on_cpu=not slots),
        ),
    )


def _placed(found: Sequence[Candidate], work: Workings) -> list[Option | Refusal]:
    """Each candidate where it is served best; for the highest speed, all on as many cards as one of them is worth."""
    alone = [best_option(one, work) for one in found]
    if work.asked.use_case.name != "max-speed":
        return alone
    cards = max((len(one.layout.slots) for one in alone if isinstance(one, Option)), default=1)
    return alone if cards < 2 else [best_option(one, work, cards=cards) for one in found]


def _counts(most: int) -> frozenset[int]:
    """Numbers of cards worth a look: powers of two, which heads divide by, and all there are."""
    return frozenset({most, *(2**power for power in range(1, most.bit_length()))})


def _asked(situation: Situation) -> Asked:
    """What is asked for; a default context is cut to what the model was made for."""
    chosen = use_case(situation.use_case)
    context = situation.context
    if context is None:
        context = min(chosen.context, situation.shape.context_length or chosen.context)
    return Asked(chosen, context, situation.users or chosen.users)


def _with_what_works(refusals: list[Refusal], choices: tuple[Choice, ...]) -> tuple[Refusal, ...]:
    """What to take instead, of what works here.

    A format that the checkpoint is stored in is refused for the reason that serving it as it is would be.
    """
    works = {choice.method for choice in choices}
    as_is = next((one for one in refusals if one.method == "none"), None)
    told = []
    for one in refusals:
        kept = replace(one, instead=tuple(name for name in one.instead if name in works))
        if as_is is not None and one.stored_so:
            kept = replace(
                kept, code=as_is.code, reasons=as_is.reasons, source=as_is.source, fit=as_is.fit
            )
        told.append(kept)
    return tuple(told)


def _cost(option: Option, situation: Situation) -> Cost:
    stored = option.fit.weights.bytes * max(1, len(option.layout.slots))
    return total_cost(steps_of(option.candidate, situation, stored, on_cpu=option.layout.on_cpu))


def _choice(place: int, one: Ranked, ranked: tuple[Ranked, ...], work: Workings) -> Choice:
    option, candidate = one.option, one.option.candidate
    return Choice(
        rank=place,
        method=candidate.method.name,
        title=candidate.facts.title,
        way=candidate.way,
        verdict=_verdict(option, work.asked.users),
        ready=candidate.ready,
        needs=candidate.needs,
        fit=option.fit,
        support=option.support,
        speed=option.speed,
        quality=one.quality,
        cost=one.cost,
        reasons=reasons_of(one, ranked, work),
        cautions=cautions_of(one, work),
        tensor_parallel=option.layout.tensor_parallel,
        pipeline_parallel=option.layout.pipeline_parallel,
        gpus=tuple(gpu.index for gpu in option.layout.gpus),
        on_cpu=option.layout.on_cpu,
        serve_adapter=candidate.mode,
        variant=candidate.variant,
        score=one.score,
        parts=one.parts,
        taken=one.taken,
    )


def _verdict(option: Option, users: int) -> str:
    """Of what was asked: tight when some of the users would have to wait."""
    return "tight" if option.held < users or option.starts == "tight" else option.fit.verdict


def _notes(situation: Situation, asked: Asked, *, on_cpu: bool) -> tuple[str, ...]:
    notes: list[str] = []
    if on_cpu and situation.gpus == ():
        notes.append("Choices are for vLLM's CPU engine, as asked.")
    elif on_cpu and situation.hardware.gpus:
        notes.append("No GPU of this machine can be used: choices are for vLLM's CPU engine.")
    elif on_cpu:
        notes.append("There is no GPU: choices are for vLLM's CPU engine, in RAM.")
    limit = situation.shape.context_length
    if limit and asked.context > limit:
        notes.append(
            f"The model was made for {limit} tokens of context; {asked.context} are asked for."
        )
    unknown = [one.ref for one in situation.variants if not one.method]
    if unknown:
        notes.append(
            f"The format of {len(unknown)} published variants is not known: {unknown[0]} first."
        )
    return (*notes, *situation.shape.notes)


def _of_a_format(situation: Situation, choices: tuple[Choice, ...]) -> tuple[str, ...]:
    """What to do about a quantized checkpoint that cannot be served here: its format cannot be changed."""
    if choices or situation.shape.quantization is None:
        return ()
    base = f", {situation.base_ref}," if situation.base_ref else ""
    return (
        f"Give the 16-bit model that this checkpoint was made from{base} or a copy in another "
        "format: a quantized one is served as it is or not at all.",
    )


def _copies(ranked: tuple[Ranked, ...], slots: tuple[Slot, ...]) -> tuple[str, ...]:
    """What equal cards that the first choice leaves could do."""
    if not ranked or not ranked[0].option.layout.slots:
        return ()
    used = ranked[0].option.layout.slots
    same = [slot for slot in slots if slot.kind == used[0].kind and not slot.sliced]
    copies = len(same) // len(used)
    if copies < 2 or used[0].sliced:
        return ()
    title = ranked[0].option.candidate.facts.title
    return (
        f"{title} takes {len(used)} of {len(same)} equal GPUs: {copies} copies side by side "
        f"(vLLM's --data-parallel-size {copies}) serve {copies} times the users.",
    )


def _at_once(choices: tuple[Choice, ...]) -> tuple[str, ...]:
    """What can be served without making anything, where the first choice has to be made."""
    if not choices or choices[0].way != "make":
        return ()
    now = next((choice for choice in choices if choice.way != "make"), None)
    text = f"{choices[0].title}: {choices[0].needs.removesuffix('.')}."
    if now is None:
        return (f"{text} Nothing that fits here can be served without making a checkpoint.",)
    return (f"{text} What can be served right away: {now.title} ({now.method}).",)
