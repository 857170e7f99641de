"""Profiles: TOML text to a :class:`Draft`, strictly.

A typo must not be served in silence: unknown keys, wrong types and values out of range are refused with
the line they stand on and the nearest name that would be right. Writing is in ``runtime.profile_file``,
because keeping comments takes tomlkit.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import re
import tomllib
from typing import TYPE_CHECKING, Any

from quantui.domain.draft import SECTIONS, Draft, Option, options_of
from quantui.domain.errors import QuantuiError
from quantui.domain.profile_errors import SECRETS, secret_key, shown, unknown_key, wrong_value

if TYPE_CHECKING:
    import dataclasses

SCHEMA = 1
"""Version of the profile's layout. A higher number in a file is a newer quantui's."""

_LARGEST = 2**63 - 1
"""TOML's own limit for whole numbers; Python's parser has none."""
_OWN_OPTIONS = {
    "model": "model.id",
    "host": "serve.host",
    "port": "serve.port",
    "served_model_name": "serve.served_name",
}
"""vLLM's arguments that quantui has to know itself, to reach the server it starts."""
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_profile(text: str, *, name: str = "profile") -> Draft:
    """The draft that ``text`` describes; ``name`` is the file's name for messages.

    Raises QuantuiError (exit code 2), code ``profile.*``, at the first thing that is wrong.
    """
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        # Besides TOMLDecodeError: numbers of thousands of digits, and nesting without end.
        raise QuantuiError(
            "profile.syntax",
            f"{name} is not valid TOML: {error}.",
            fix="Mend the line named above.",
        ) from None
    schema = data.pop("schema", None)
    if schema is None:
        raise QuantuiError(
            "profile.no-schema",
            f"{name} has no `schema`.",
            "Every profile says which layout it has, so that later versions can read it.",
            f"Put `schema = {SCHEMA}` on its first line.",
        )
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise wrong_value(
            "wrong-type",
            name,
            text,
            (),
            "schema",
            f"must be a whole number, not {shown(schema)}",
            f"Put `schema = {SCHEMA}` on its first line.",
        )
    if schema > SCHEMA:
        raise QuantuiError(
            "profile.newer-schema",
            f"{name} has schema {schema}; this quantui reads up to {SCHEMA}.",
            "It was written by a newer quantui.",
            "Update quantui (`pip install --upgrade quantui`).",
        )
    draft = Draft()
    for section, table in data.items():
        if section not in SECTIONS:
            raise unknown_key(name, text, (), section, SECTIONS)
        if not isinstance(table, dict):
            fix = f"Begin a line with [{section}] and put its options below."
            raise wrong_value("wrong-type", name, text, (), section, "must be a table", fix)
        for key, value in table.items():
            draft = set_option(draft, section, key, value, name=name, text=text)
    if not draft.model.id and draft.adapter.id is None:
        raise QuantuiError(
            "profile.no-model",
            f"{name} names no model.",
            fix='Add a table `[model]` with `id = "FOLDER-OR-HUB-ID"`, or name an adapter that has a base.',
        )
    check_together(draft, name=name, text=text)
    return draft


def check_together(draft: Draft, *, name: str, text: str = "") -> None:
    """Refuse options that are right one by one and contradict each other."""

    def refuse(section: str, key: str, message: str, fix: str) -> QuantuiError:
        return wrong_value("contradiction", name, text, (section,), key, message, fix)

    adapter = draft.adapter
    if adapter.id is None and (adapter.also or adapter.weights):
        key = "also" if adapter.also else "weights"
        raise refuse("adapter", key, "needs a first adapter", "Name the first one in `adapter.id`.")
    if len(set(adapter.refs)) != len(adapter.refs):
        fix = "Name each adapter once, and give it the sum of its weights."
        raise refuse("adapter", "also", "names an adapter twice", fix)
    if adapter.weights and len(adapter.weights) != len(adapter.refs):
        numbers, adapters = len(adapter.weights), len(adapter.refs)
        of = "1 adapter" if adapters == 1 else f"{adapters} adapters"
        message = f"has {numbers} number{'' if numbers == 1 else 's'} for {of}"
        fix = "Give one for each: `adapter.id` first, then those of `adapter.also` in order."
        raise refuse("adapter", "weights", message, fix)
    plain = len(adapter.refs) < 2 and adapter.weights in ((), (1.0,))
    if draft.merge.on_failure == "serve-lora" and not plain:
        message = '"serve-lora" is possible with one adapter of weight 1'
        fix = "vLLM serves one adapter as it is. Leave the line out."
        raise refuse("merge", "on_failure", message, fix)


def set_option(
    draft: Draft, section: str, key: str, value: object, *, name: str = "profile", text: str = ""
) -> Draft:
    """``draft`` with ``section.key`` set to a value as TOML holds it, checked."""
    options = options_of(SECTIONS[section])
    if key not in options:
        raise unknown_key(name, text, (section,), key, options)
    field, option = options[key]
    return draft.with_option(section, key, _checked(name, text, section, field, option, value))


def apply_overrides(draft: Draft, assignments: list[str], *, name: str = "--set") -> Draft:
    """``draft`` with ``section.key=value`` assignments applied (the ``--set`` flag); ``name`` is where they stand.

    The value is read as TOML; where a string is wanted, or it is no TOML, it is the text as it stands, so
    quotes may be left out. Nothing after the ``=`` unsets an option that may be unset.
    """
    for assignment in assignments:
        path, equals, raw = assignment.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            raise QuantuiError(
                "arguments.bad-set",
                f"{name} {assignment} is not of the form SECTION.KEY=VALUE.",
                fix="For example: --set serve.port=8001",
            )
        if section not in SECTIONS:
            raise unknown_key(name, "", (), section, SECTIONS)
        value = _value_of(section, key, raw)
        if value is None:
            draft = draft.with_option(section, key, None)
            continue
        if section == "serve" and key.startswith("extra_args."):
            argument = key.removeprefix("extra_args.")
            value = {**draft.serve.extra_args, argument: value}
            key = "extra_args"
        draft = set_option(draft, section, key, value, name=name)
    check_together(draft, name=name)
    return draft


def _value_of(section: str, key: str, raw: str) -> object:
    """What the text after ``--set SECTION.KEY=`` means; None where it unsets the option."""
    declared = options_of(SECTIONS[section]).get(key)
    kind = str(declared[0].type) if declared else ""
    if not raw and kind.endswith("| None"):
        return None
    value: object = raw
    with contextlib.suppress(ValueError, RecursionError):
        parsed = tomllib.loads(f"value = {raw}")
        # A line break in the text would begin another key.
        value = parsed["value"] if len(parsed) == 1 else raw
    return value if isinstance(value, str) or not kind.startswith("str") else raw


def _checked(
    name: str,
    text: str,
    section: str,
    field: dataclasses.Field[Any],
    option: Option,
    value: object,
) -> object:
    def refuse(code: str, message: str) -> QuantuiError:
        return wrong_value(
            code, name, text, (section,), field.name, message, f"Its meaning: {option.help}"
        )

    kind = str(field.type).removesuffix(" | None")
    if kind == "bool":
        if not isinstance(value, bool):
            raise refuse("wrong-type", f"must be true or false, not {shown(value)}")
    elif kind in ("int", "float"):
        if isinstance(value, bool) or not isinstance(value, int if kind == "int" else int | float):
            noun = "a whole number" if kind == "int" else "a number"
            raise refuse("wrong-type", f"must be {noun}, not {shown(value)}")
        _in_range(value, option, refuse)
        value = value if kind == "int" else float(value)
    elif kind == "str":
        _plain_text(value, refuse, may_be_empty=field.default == "")
        assert isinstance(value, str)
        if field.name == "api_key_env" and not _VARIABLE.fullmatch(value):
            # Not shown: it may be the key itself.
            raise refuse("bad-string", "must be the name of an environment variable, not a key")
        if option.choices and value not in option.choices:
            near = difflib.get_close_matches(value, option.choices, 1, 0.4)
            hint = f' (nearest: "{near[0]}")' if near else ""
            allowed = ", ".join(f'"{choice}"' for choice in option.choices)
            raise refuse("bad-choice", f"must be one of {allowed}, not {shown(value)}{hint}")
    elif kind.startswith("tuple"):
        value = _checked_list(kind, option, refuse, value)
    else:
        if not isinstance(value, dict):
            raise refuse("wrong-type", f"must be a table, not {shown(value)}")
        for key in value:
            plain = key.lstrip("-").replace("-", "_").lower()
            if plain in SECRETS:
                raise secret_key(name, text, (section, field.name), key)
            if plain in _OWN_OPTIONS:
                raise refuse("own-option", f"may not hold `{key}`: set {_OWN_OPTIONS[plain]}")
    return value


def _checked_list(kind: str, option: Option, refuse: Any, value: object) -> tuple[Any, ...]:  # noqa: ANN401
    types, noun = {
        "tuple[int, ...]": ((int,), "whole numbers"),
        "tuple[float, ...]": ((int, float), "numbers"),
        "tuple[str, ...]": ((str,), "strings"),
    }[kind]
    if not isinstance(value, list | tuple) or not all(type(item) in types for item in value):
        raise refuse("wrong-type", f"must be a list of {noun}, not {shown(value)}")
    for item in value:
        if isinstance(item, str):
            _plain_text(item, refuse)
        else:
            _in_range(item, option, refuse)
    if kind == "tuple[int, ...]" and len(set(value)) != len(value):
        raise refuse("bad-choice", "names a device twice")
    if kind == "tuple[float, ...]" and 0 in value:
        raise refuse("bad-choice", "holds a 0, which would leave an adapter out")
    return tuple(map(float, value)) if kind == "tuple[float, ...]" else tuple(value)


def _plain_text(value: object, refuse: Any, *, may_be_empty: bool = False) -> None:  # noqa: ANN401
    if not isinstance(value, str):
        raise refuse("wrong-type", f"must be a string, not {shown(value)}")
    if not value and not may_be_empty:
        raise refuse("bad-string", "must not be empty; leave the line out instead")
    if "\0" in value or _not_unicode(value):
        raise refuse("bad-string", "holds a character that no file and no argument can have")


def _not_unicode(value: str) -> bool:
    """Whether it holds surrogates: bytes of a command line that are not UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in value)


def _in_range(value: object, option: Option, refuse: Any) -> None:  # noqa: ANN401 - a closure
    assert isinstance(value, int | float)
    low, high = option.minimum, option.maximum
    if isinstance(value, float) and not math.isfinite(value):
        raise refuse("out-of-range", f"must be a finite number, not {value}")
    if low is not None and value < low:
        raise refuse("out-of-range", f"must be at least {low:g}, not {value}")
    if value > (_LARGEST if high is None else high):
        raise refuse("out-of-range", f"must be at most {high or _LARGEST:g}, not {value}")
