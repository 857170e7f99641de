"""A failure with all that is known of it, and what a fix for it consists of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.choosing.recommendation import Choice
    from quantui.domain.draft import Draft
    from quantui.domain.errors import QuantuiError
    from quantui.domain.plan import Plan

Changes = Mapping[tuple[str, str], Any]
"""Options of the profile, (section, name) to the value to set; None unsets one."""


@dataclass(frozen=True)
class Fix:
    """``words`` say what is changed, in numbers. ``method`` names another choice (answers.key_of), or is "".

    ``opens`` names a screen ("cache") where a person does it; nothing is changed or run by the key itself.
    """

    words: str
    changes: Changes = field(default_factory=dict)
    method: str = ""
    opens: str = ""


@dataclass(frozen=True)
class Case:
    """A failure and all that is known of it. ``choices`` are the recommendation's, best first."""

    error: QuantuiError
    draft: Draft
    plan: Plan | None
    choices: Sequence[Choice] = ()

    @property
    def text(self) -> str:
        """Everything the error says."""
        error = self.error
        return "\n".join((error.what, error.why, *error.detail))

    @property
    def on_cpu(self) -> bool:
        """Whether vLLM was to run on the CPU."""
        return self.plan.engine.on_cpu if self.plan else self.draft.engine.name == "vllm-cpu"

    @property
    def context(self) -> int | None:
        """The context that was served or asked for, tokens."""
        return self.plan.estimate.max_model_len if self.plan else self.draft.serve.max_model_len


def option(section: str, name: str, value: object, words: str) -> Fix:
    """A fix that sets one option."""
    return Fix(words, {(section, name): value})
