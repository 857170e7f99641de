"""The options of a profile as the editor shows them, read from their declarations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.domain.draft import SECTIONS, Draft, Option, options_of
from quantui.domain.errors import QuantuiError
from quantui.domain.profile import apply_overrides

if TYPE_CHECKING:
    from collections.abc import Collection

LOCKED = {
    ("model", "id"): "the Model step",
    ("model", "revision"): "the Model step",
    ("adapter", "id"): "the Model step",
    ("adapter", "revision"): "the Model step",
    ("quantization", "method"): "the Method step",
}
"""Options that whole steps are for: they change what else is asked, and are shown here to be seen."""

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "str": "text",
    "bool": "true or false",
    "tuple[int, ...]": "whole numbers, commas between",
    "tuple[float, ...]": "numbers, commas between",
    "tuple[str, ...]": "texts, commas between",
    "dict[str, Any]": "a TOML table: { name = value }",
}


@dataclass(frozen=True)
class OptionRow:
    """One option with its value. ``by_hand``: it was set here; else it follows from answers, a profile, or defaults."""

    section: str
    name: str
    type: str
    option: Option
    value: Any
    default: Any
    by_hand: bool

    @property
    def path(self) -> str:
        """``serve.port``."""
        return f"{self.section}.{self.name}"

    @property
    def changed(self) -> bool:
        """Whether it is not at its default."""
        return bool(self.value != self.default)

    @property
    def locked(self) -> str:
        """The step that it is chosen in; "" where it is set here."""
        return LOCKED.get((self.section, self.name), "")

    @property
    def kind(self) -> str:
        """The type without the ``None`` that an unset one has."""
        return self.type.removesuffix(" | None")

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values it may have, where they can be counted; None stands among them where it may be unset."""
        if self.kind == "bool":
            found: tuple[Any, ...] = (False, True)
        else:
            found = self.option.choices
        return (None, *found) if found and self.default is None else found


def option_rows(draft: Draft, by_hand: Collection[tuple[str, str]]) -> tuple[OptionRow, ...]:
    """Every option that a person may set, in the order of the profile."""
    found = []
    for section, cls in SECTIONS.items():
        if section == "recorded":
            continue
        chosen, plain = getattr(draft, section), cls()
        for name, (field, option) in options_of(cls).items():
            found.append(
                OptionRow(
                    section,
                    name,
                    str(field.type),
                    option,
                    getattr(chosen, name),
                    getattr(plain, name),
                    (section, name) in by_hand,
                )
            )
    return tuple(found)


def matches(row: OptionRow, words: str) -> bool:
    """Whether every word stands in the option's name or meaning."""
    text = f"{row.path} {row.option.help}".lower()
    return all(word in text for word in words.lower().split())


def type_words(row: OptionRow) -> str:
    """What it may hold: ``a whole number, 0 to 65535``."""
    option = row.option
    if option.choices:
        return "one of " + ", ".join(option.choices)
    text = _TYPES.get(row.kind, row.kind)
    low, high = option.minimum, option.maximum
    if low is not None and high is not None:
        return f"{text}, {low:g} to {high:g}"
    if low is not None:
        return f"{text}, {low:g} or more"
    return text if high is None else f"{text}, {high:g} at most"


def shown_value(value: object) -> str:
    """A value in a line; "unset" where there is none."""
    if value is None:
        return "unset"
    if isinstance(value, str):
        return value or '""'
    from quantui.runtime.profile_file import toml_value

    return toml_value(value)


def edited_text(row: OptionRow) -> str:
    """The value as it is typed."""
    if row.value is None or row.value in ((), {}):
        return ""
    if isinstance(row.value, tuple):
        return ", ".join(map(str, row.value))
    return row.value if isinstance(row.value, str) else shown_value(row.value)


def read_value(draft: Draft, row: OptionRow, typed: str) -> object:
    """What ``typed`` means for the option, checked as a profile's line is; None unsets it.

    Raises QuantuiError ``profile.*`` for what a profile may not hold there.
    """
    text = typed.strip()
    if not text:
        return None
    if row.kind.startswith("tuple") and not text.startswith("["):
        from quantui.runtime.profile_file import toml_value

        items = [item.strip() for item in text.split(",") if item.strip()]
        text = toml_value(items) if "str" in row.kind else f"[{', '.join(items)}]"
    changed = apply_overrides(draft, [f"{row.path}={text}"], name="here")
    return getattr(getattr(changed, row.section), row.name)


def check_value(draft: Draft, row: OptionRow, value: object) -> QuantuiError | None:
    """Why a value that was picked contradicts the others; None where it does not."""
    from quantui.domain.profile import check_together

    try:
        check_together(draft.with_option(row.section, row.name, value), name="here")
    except QuantuiError as error:
        return error
    return None
