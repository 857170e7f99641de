"""Profiles: TOML text to a :class:`Draft`, strictly.

A typo must not be served in silence: unknown keys, wrong types and values out of range are refused with
the line they stand on and the nearest name that would be right. Writing is in ``runtime.profile_file``,
because keeping comments takes tomlkit.
"""

from __future__ import annotations

import difflib
import math
import tomllib
from typing import TYPE_CHECKING, Any

from quantui.domain.draft import SECTIONS, Draft, Option, options_of
from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    import dataclasses

SCHEMA = 1
"""Version of the profile's layout. A higher number in a file is a newer quantui's."""

_SECRETS = frozenset({"api_key", "api-key", "hf_token", "token", "password", "secret"})


def parse_profile(text: str, *, name: str = "profile") -> Draft:
    """The draft that ``text`` describes; ``name`` is the file's name for messages.

    Raises QuantuiError (exit code 2), code ``profile.*``, at the first thing that is wrong.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
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
        raise _error(
            "wrong-type", name, text, (), "schema", f"must be a whole number, not {schema!r}"
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
            raise _unknown(name, text, (), section, SECTIONS)
        if not isinstance(table, dict):
            raise _error("wrong-type", name, text, (), section, f"must be a table: [{section}]")
        for key, value in table.items():
            draft = set_option(draft, section, key, value, name=name, text=text)
    if not draft.model.id:
        raise QuantuiError(
            "profile.no-model",
            f"{name} names no model.",
            fix='Add a table `[model]` with `id = "FOLDER-OR-HUB-ID"`.',
        )
    return draft


def set_option(
    draft: Draft, section: str, key: str, value: object, *, name: str = "profile", text: str = ""
) -> Draft:
    """``draft`` with ``section.key`` set to a value as TOML holds it, checked."""
    options = options_of(SECTIONS[section])
    if key not in options:
        raise _unknown(name, text, (section,), key, options)
    field, option = options[key]
    return draft.with_option(section, key, _checked(name, text, section, field, option, value))


def apply_overrides(draft: Draft, assignments: list[str]) -> Draft:
    """``draft`` with ``section.key=value`` assignments applied (the ``--set`` flag).

    The value is read as TOML; what is not TOML is taken as a string, so quotes may be left out.
    """
    for assignment in assignments:
        path, equals, raw = assignment.partition("=")
        section, dot, key = path.strip().partition(".")
        if not (equals and dot and key):
            raise QuantuiError(
                "arguments.bad-set",
                f"--set {assignment} is not of the form SECTION.KEY=VALUE.",
                fix="For example: --set serve.port=8001",
            )
        if section not in SECTIONS:
            raise _unknown("--set", "", (), section, SECTIONS)
        value: object
        try:
            value = tomllib.loads(f"value = {raw}")["value"]
        except tomllib.TOMLDecodeError:
            value = raw
        if section == "serve" and key.startswith("extra_args."):
            argument = key.removeprefix("extra_args.")
            value = {**draft.serve.extra_args, argument: value}
            key = "extra_args"
        draft = set_option(draft, section, key, value, name="--set")
    return draft


def _checked(
    name: str,
    text: str,
    section: str,
    field: dataclasses.Field[Any],
    option: Option,
    value: object,
) -> object:
    def refuse(code: str, message: str) -> QuantuiError:
        return _error(code, name, text, (section,), field.name, message)

    kind = str(field.type).removesuffix(" | None")
    if kind == "bool":
        if not isinstance(value, bool):
            raise refuse("wrong-type", f"must be true or false, not {_shown(value)}")
    elif kind in ("int", "float"):
        if isinstance(value, bool) or not isinstance(value, int if kind == "int" else int | float):
            noun = "a whole number" if kind == "int" else "a number"
            raise refuse("wrong-type", f"must be {noun}, not {_shown(value)}")
        value = value if kind == "int" else float(value)
        _in_range(value, option, refuse)
    elif kind == "str":
        if not isinstance(value, str):
            raise refuse("wrong-type", f"must be a string, not {_shown(value)}")
        if option.choices and value not in option.choices:
            near = difflib.get_close_matches(value, option.choices, 1, 0.4)
            hint = f' (nearest: "{near[0]}")' if near else ""
            allowed = ", ".join(f'"{choice}"' for choice in option.choices)
            raise refuse("bad-choice", f"must be one of {allowed}, not {_shown(value)}{hint}")
    elif kind.startswith("tuple[int"):
        if not isinstance(value, list | tuple) or not all(type(item) is int for item in value):
            raise refuse("wrong-type", f"must be a list of whole numbers, not {_shown(value)}")
        for item in value:
            _in_range(item, option, refuse)
        if len(set(value)) != len(value):
            raise refuse("bad-choice", "names a device twice")
        value = tuple(value)
    else:
        if not isinstance(value, dict):
            raise refuse("wrong-type", f"must be a table, not {_shown(value)}")
        for key in value:
            if key.replace("-", "_") in _SECRETS:
                raise _secret(name, text, (section, field.name), key)
    return value


def _in_range(value: object, option: Option, refuse: Any) -> None:  # noqa: ANN401 - a closure
    assert isinstance(value, int | float)
    low, high = option.minimum, option.maximum
    if not math.isfinite(value) or (low is not None and value < low):
        raise refuse("out-of-range", f"must be at least {low:g}, not {value}")
    if high is not None and value > high:
        raise refuse("out-of-range", f"must be at most {high:g}, not {value}")


def _shown(value: object) -> str:
    kinds = {str: "the string", bool: "", int: "the number", float: "the number", list: "the list"}
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return f"{kinds.get(type(value), '')} {value!r}".strip()


def _unknown(
    name: str, text: str, parents: tuple[str, ...], key: str, known: dict[str, Any]
) -> QuantuiError:
    if key.lower().replace("-", "_") in _SECRETS:
        return _secret(name, text, parents, key)
    near = difflib.get_close_matches(key, known, 1, 0.5)
    path = ".".join((*parents, key))
    elsewhere = [f"{section}.{key}" for section, cls in SECTIONS.items() if key in options_of(cls)]
    if near:
        fix = f"Did you mean `{'.'.join((*parents, near[0]))}`?"
    elif elsewhere:
        fix = f"Did you mean `{elsewhere[0]}`?"
    else:
        fix = f"Known here: {', '.join(known)}."
    return QuantuiError(
        "profile.unknown-key", f"{name}{_line(text, parents, key)}: unknown key `{path}`.", fix=fix
    )


def _secret(name: str, text: str, parents: tuple[str, ...], key: str) -> QuantuiError:
    return QuantuiError(
        "profile.secret",
        f"{name}{_line(text, parents, key)}: `{key}` would put a secret into the profile.",
        "Profiles are shared and committed.",
        "Name the environment variable that holds the key in `serve.api_key_env`; "
        "a Hub token goes into HF_TOKEN.",
    )


def _error(
    code: str, name: str, text: str, parents: tuple[str, ...], key: str, message: str
) -> QuantuiError:
    path = ".".join((*parents, key))
    return QuantuiError(
        f"profile.{code}",
        f"{name}{_line(text, parents, key)}: `{path}` {message}.",
        exit_code=ExitCode.BAD_INPUT,
    )


def _line(text: str, parents: tuple[str, ...], key: str) -> str:
    """`` line N`` where ``key`` is set below the table ``parents``, or nothing when it is not seen."""
    table: tuple[str, ...] = ()
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("["):
            table = tuple(part.strip(" \"'") for part in line.strip("[] ").split("]")[0].split("."))
            if table == (*parents, key):
                return f" line {number}"
        else:
            left = tuple(part.strip(" \"'") for part in line.partition("=")[0].split("."))
            if "=" in line and (*table, *left) == (*parents, key):
                return f" line {number}"
    return ""
