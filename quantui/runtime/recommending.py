"""``quantui recommend`` without its printing: the situation of a subject, and what is recommended in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui import __version__
from quantui.domain.architecture.checkpoint_format import classify_quantization
from quantui.domain.choosing import answer_documents as documents
from quantui.domain.choosing.layouts import usable_slots
from quantui.domain.fitting.placement import check_indices
from quantui.domain.hardware_checks import min_compute_capability
from quantui.domain.recommend import Situation, recommend, use_case
from quantui.domain.versions import version_numbers
from quantui.runtime.fitting import filled_in
from quantui.runtime.learned import correction, speeds_here
from quantui.runtime.local_variants import card_bases_in
from quantui.runtime.variants import search_variants

if TYPE_CHECKING:
    from quantui.domain.choosing.recommendation import Recommendation
    from quantui.domain.choosing.use_cases import UseCase
    from quantui.domain.hardware import Gpu
    from quantui.runtime.subject import Subject


@dataclass(frozen=True)
class Recommended:
    """The recommendation, with all it was made from. ``gpus`` are those that may be used, MIG slices apart."""

    subject: Subject
    situation: Situation
    use_case: UseCase
    gpus: tuple[Gpu, ...]
    recommendation: Recommendation
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, which the README documents."""
        subject = self.subject
        document = documents.recommendation_part(self.recommendation)
        return {
            "schema": documents.SCHEMA,
            "quantui_version": __version__,
            "model": documents.model_part(subject.model, subject.shape),
            "adapter": documents.adapter_part(subject.adapter),
            **document,
            "vllm_version": subject.engine.version,
            "vllm_version_origin": subject.engine.origin,
            "hardware": documents.hardware_part(subject.hardware, self.gpus, subject.described_by),
            "notes": [*self.notes, *document["notes"]],
        }


def recommend_here(
    subject: Subject,
    *,
    use: str = "balanced",
    context: int | None = None,
    users: int | None = None,
    gpus: tuple[int, ...] | None = None,
    offline: bool | None = None,
) -> Recommended:
    """What to serve the subject's model with; quantized copies of it are looked for here and on the Hub.

    ``context`` in tokens and ``users`` at a time: None takes the use case's. ``gpus``: the only ones that may
    be used, by index; empty: the CPU. ``offline`` None follows ``HF_HUB_OFFLINE``. Raises QuantuiError for an
    unknown use case and for a GPU that is not there; a Hub that does not answer is a note.
    """
    wanted = use_case(use)
    report = subject.hardware
    check_indices(report, gpus)
    slots, _ = usable_slots(
        report, gpus, min_compute_capability(version_numbers(subject.engine.version))
    )
    found = search_variants(subject.model, offline=offline)
    engine, model = subject.engine, subject.model
    stored = classify_quantization(model.config)
    names = engine.capabilities and frozenset(one.name for one in engine.capabilities.methods)
    bases = card_bases_in(model.path) if model.quantization and model.path else ()
    situation = Situation(
        shape=subject.shape,
        census=subject.census,
        hardware=report,
        stored_bytes=model.weight_bytes,
        model_ref=model.ref,
        stored_method=stored.method or None if stored else None,
        base_ref=next(iter(bases), None),
        use_case=wanted.name,
        context=context,
        users=users,
        gpus=gpus,
        vllm_version=engine.version,
        engine_methods=names or None,
        plugins=engine.packages,
        adapters=() if subject.adapter is None else (subject.adapter,),
        variants=found.variants,
        download_bytes=model.download_bytes,
        calibration=correction(subject, "none", [slot.gpu for slot in slots[:1]]),
        config=model.config,
        own_runs=speeds_here(subject, [slot.gpu for slot in slots[:1]]),
    )
    return Recommended(
        subject,
        situation,
        wanted,
        tuple(slot.gpu for slot in slots),
        recommend(situation),
        (*subject.notes, *filled_in(report), *found.notes),
    )
