"""What a person answered so far, and the draft that follows from it. Pure: the wizard keeps one, tests build them.

An answer that others were given for clears them when it changes, and says so: nobody finds a method of
yesterday's model in today's profile.

The first frame of the wizard needs this module: the many sections of a draft are imported when one is made.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from quantui.domain.choosing.use_cases import DEFAULT_USE_CASE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.choosing.recommendation import Choice, Recommendation
    from quantui.domain.draft import Draft


_CLEARS: dict[str, tuple[str, ...]] = {
    "gpus": ("method",),
    "use_case": ("context", "users", "method"),
    "model": ("revision", "adapter", "adapter_revision", "method", "options"),
    "revision": ("method",),
    "adapter": ("adapter_revision", "method"),
    "adapter_revision": ("method",),
}
"""What an answer takes with it when it changes. Options of quantization go with the model; those of serving stay."""

_ANSWERED = frozenset(
    {
        ("model", "id"),
        ("model", "revision"),
        ("adapter", "id"),
        ("adapter", "revision"),
        ("serve", "max_model_len"),
        ("serve", "tensor_parallel"),
        ("serve", "visible_devices"),
        ("serve", "dtype"),
        ("serve", "enforce_eager"),
        ("engine", "name"),
    }
)
"""Options that answers stand for, or that :func:`draft_of` sets with a method."""

_EXTRA = ("serve", "extra_args")

_WORDS = {
    "context": "the context length",
    "users": "the number of users",
    "adapter": "the adapter",
    "method": "the method",
    "options": "the options of quantization",
}


@dataclass(frozen=True)
class Answers:
    """The wizard's answers. None: not answered, so that the default of the use case or the model holds.

    ``gpus``: the only ones to use, by NVML's index; empty: the CPU. ``context`` in tokens, ``users`` at the same
    time. ``method`` names a choice of the recommendation as :func:`key_of` does.
    """

    gpus: tuple[int, ...] | None = None
    use_case: str = DEFAULT_USE_CASE
    context: int | None = None
    users: int | None = None
    model: str | None = None
    revision: str | None = None
    adapter: str | None = None
    adapter_revision: str | None = None
    method: str | None = None
    options: Mapping[tuple[str, str], Any] = field(default_factory=dict)

    def changed(self, **changes: Any) -> tuple[Answers, tuple[str, ...]]:  # noqa: ANN401 - any field
        """The answers with ``changes``, and what these cleared, in words (empty: nothing was lost).

        What is given in ``changes`` itself is kept: a model and its adapter can be set at once.
        """
        real = {name: value for name, value in changes.items() if getattr(self, name) != value}
        empty = Answers()
        cleared: dict[str, Any] = {}
        for name in real:
            for other in _CLEARS.get(name, ()):
                if other not in changes:
                    cleared[other] = getattr(empty, other)
        if "options" in cleared:
            cleared["options"] = {
                key: value for key, value in self.options.items() if key[0] != "quantization"
            }
        lost = tuple(
            _WORDS[name]
            for name, value in cleared.items()
            if name in _WORDS and getattr(self, name) != value
        )
        return dataclasses.replace(self, **{**cleared, **real}), lost

    def with_option(self, section: str, name: str, value: object) -> Answers:
        """The answers with one option of the profile set by hand; None unsets it."""
        options = {key: kept for key, kept in self.options.items() if key != (section, name)}
        if value is not None:
            options[section, name] = value
        return dataclasses.replace(self, options=options)


def key_of(choice: Choice) -> str:
    """The name of a choice that stays the same when the ranking is made anew."""
    return choice.method if choice.variant is None else f"{choice.method}={choice.variant.ref}"


def why_not_from_here(choice: Choice) -> str:
    """Why quantui cannot go from ``choice`` to a served model by itself, in words; empty where it can."""
    if not choice.ready:
        return choice.needs or "It needs a checkpoint that does not exist yet."
    if choice.serve_adapter == "lora":
        whose = "This checkpoint is quantized" if choice.variant else "The base cannot take it in"
        return (
            f"{whose}: the adapter could only be kept beside it at run time. quantui merges adapters into 16-bit "
            "weights; `vllm serve --enable-lora` serves them unmerged."
        )
    return ""


def best_from_here(recommendation: Recommendation) -> Choice | None:
    """The best choice that quantui gets to by itself; None when there is none."""
    found = recommendation.choices
    return next((choice for choice in found if not why_not_from_here(choice)), None)


def answers_of(draft: Draft, before: Answers) -> Answers:
    """The answers that an opened profile stands for; what it does not tell is as in ``before``.

    Its further options are kept as set by hand, but for those that follow from the choice of a method.
    """
    from quantui.domain.draft import SECTIONS, options_of

    kept: dict[tuple[str, str], Any] = {}
    for section, cls in SECTIONS.items():
        if section in ("recorded", "quantization"):
            continue
        chosen, plain = getattr(draft, section), cls()
        for name in options_of(cls):
            value = getattr(chosen, name)
            if value != getattr(plain, name) and (section, name) not in _ANSWERED:
                kept[section, name] = value
    return dataclasses.replace(
        before,
        model=draft.model.id or None,
        revision=draft.model.revision,
        adapter=draft.adapter.id,
        adapter_revision=draft.adapter.revision,
        context=draft.serve.max_model_len or before.context,
        method=draft.quantization.method,
        options={**kept, **before.options},
    )


def draft_of(
    answers: Answers, choice: Choice, context: int, all_gpus: tuple[int, ...] = ()
) -> Draft:
    """The draft for ``choice`` with ``context`` tokens; ``all_gpus``: every index of the machine.

    Somebody's quantized checkpoint takes the model's place; options that were set by hand come last.
    """
    from quantui.domain.draft import Draft

    draft = Draft()
    variant = choice.variant
    if variant is None:
        draft = draft.with_option("model", "id", answers.model or "")
        draft = draft.with_option("model", "revision", answers.revision)
        draft = draft.with_option("quantization", "method", choice.method)
    else:
        draft = draft.with_option("model", "id", variant.path or variant.ref)
        revision = None if variant.path else variant.revision
        draft = draft.with_option("model", "revision", revision)
    if answers.adapter is not None:
        draft = draft.with_option("adapter", "id", answers.adapter)
        draft = draft.with_option("adapter", "revision", answers.adapter_revision)
    draft = draft.with_option("serve", "max_model_len", context)
    if choice.tensor_parallel > 1:
        draft = draft.with_option("serve", "tensor_parallel", choice.tensor_parallel)
    options = answers.options
    if choice.pipeline_parallel > 1:
        more = {"pipeline-parallel-size": choice.pipeline_parallel}
        draft = draft.with_option("serve", "extra_args", more)
        if _EXTRA in options:
            options = {**options, _EXTRA: {**more, **options[_EXTRA]}}
    if choice.on_cpu:
        draft = draft.with_option("engine", "name", "vllm-cpu")
    elif set(choice.gpus) != set(all_gpus):
        draft = draft.with_option("serve", "visible_devices", choice.gpus)
    if choice.support.dtype is not None:
        draft = draft.with_option("serve", "dtype", choice.support.dtype)
    if choice.support.eager:
        draft = draft.with_option("serve", "enforce_eager", value=True)
    return with_options(draft, options)


def with_options(draft: Draft, options: Mapping[tuple[str, str], Any]) -> Draft:
    """``draft`` with options set by hand."""
    for (section, name), value in options.items():
        draft = draft.with_option(section, name, value)
    return draft
