"""The ranking behind the Method step: what it is asked for, and the slow calls that make it, for thread workers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.answers import Answers, answers_of

if TYPE_CHECKING:
    from quantui.domain.choosing.context_ladder import ContextLadder
    from quantui.domain.hardware import HardwareReport
    from quantui.runtime.recommending import Recommended
    from quantui.runtime.subject import Subject
    from quantui.tui.session import Session


@dataclass(frozen=True)
class Wanted:
    """What a ranking is made for. A subject of another model or machine does not serve it."""

    model: str
    answers: Answers
    hardware: HardwareReport
    described_by: str | None

    def same_search(self, other: Wanted | None) -> bool:
        """Whether the Hub would be asked the same again: it is asked for copies of a model, nothing else."""
        return other is not None and (self.model, self.answers.revision, self.hardware) == (
            other.model,
            other.answers.revision,
            other.hardware,
        )


@dataclass(frozen=True)
class Ranking:
    """A recommendation, and the ladders of its choices."""

    recommended: Recommended
    ladder: ContextLadder


def answers_now(session: Session) -> Answers:
    """The answers, or what an opened profile stands for."""
    if session.loaded is None:
        return session.answers
    return answers_of(session.loaded, session.answers)


def wanted_of(session: Session) -> Wanted | None:
    """What the session asks for now; None while the model or the machine is missing."""
    answers = answers_now(session)
    model = answers.model or answers.adapter
    if model is None or session.hardware is None:
        return None
    return Wanted(model, answers, session.hardware, session.described_by)


def ranked(wanted: Wanted, subject: Subject | None, *, offline: bool | None) -> Ranking:
    """The ranking. ``subject``: what was looked up before, if it is of this model and machine.

    ``offline`` True leaves the Hub alone, None follows ``HF_HUB_OFFLINE``. A tenth of a second without the Hub.
    Raises QuantuiError for whatever is missing or wrong.
    """
    from quantui.runtime.recommending import recommend_here

    answers = wanted.answers
    found = recommend_here(
        _subject(wanted, subject),
        use=answers.use_case,
        context=answers.context,
        users=answers.users,
        gpus=answers.gpus,
        offline=offline,
    )
    return with_ladder(found)


def reranked(known: Recommended, context: int, users: int) -> Ranking:
    """The same situation for another context, in tokens, and other users; nothing is looked up. Tens of ms."""
    from quantui.domain.recommend import recommend

    situation = replace(known.situation, context=context, users=users)
    return with_ladder(replace(known, situation=situation, recommendation=recommend(situation)))


def with_ladder(found: Recommended) -> Ranking:
    """``found`` with the ladders of its choices."""
    from quantui.domain.choosing.context_ladder import ContextLadder

    asked = found.recommendation
    return Ranking(found, ContextLadder(found.situation, asked.context, asked.users))


def known_subject(session: Session) -> Subject | None:
    """What was looked up of the model that is asked about now; an opened profile may name another."""
    subject, loaded = session.subject, session.loaded
    if subject is None or loaded is None:
        return subject
    adapter = None if subject.adapter is None else subject.adapter.ref
    same = subject.model.ref == loaded.model.id and adapter == loaded.adapter.id
    return subject if same else None


def known_ranking(session: Session) -> Recommended | None:
    """What was ranked for the model and the use that are asked about now."""
    known = session.recommended
    if known is None or known_subject(session) is None:
        return None
    return known if known.use_case.name == session.answers.use_case else None


def _subject(wanted: Wanted, known: Subject | None) -> Subject:
    """The subject on the machine that is asked about: what is known of the model holds on any."""
    from quantui.domain.hardware_checks import usable_gpus
    from quantui.engines.choice import CPU_ENGINE
    from quantui.runtime.engine_version import engine_version
    from quantui.runtime.subject import look_at, subject_of

    answers, hardware = wanted.answers, wanted.hardware
    on_cpu = answers.gpus == ()
    if known is not None:
        served_on_cpu = on_cpu or not usable_gpus(hardware)
        if known.hardware == hardware and (known.engine.name == CPU_ENGINE) == served_on_cpu:
            return known
        engine = engine_version(hardware, on_cpu=on_cpu)
        found = subject_of(known.model, known.adapter, hardware, engine, notes=known.notes)
    else:
        lora = answers.adapter if answers.model else None
        found = look_at(
            wanted.model,
            revision=answers.revision if answers.model else answers.adapter_revision,
            adapter=lora,
            adapter_revision=answers.adapter_revision if lora else None,
            hardware=hardware,
            on_cpu=on_cpu,
        )
    return replace(found, described_by=wanted.described_by)
