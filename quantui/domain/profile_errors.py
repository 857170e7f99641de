"""What is said of a mistake in a profile: where it stands, what it is, and the nearest name that is right."""

from __future__ import annotations

import difflib
from typing import Any

from quantui.domain.draft import SECTIONS, options_of
from quantui.domain.errors import ExitCode, QuantuiError

SECRETS = frozenset({"api_key", "apikey", "hf_token", "token", "password", "secret"})
"""Names that a secret goes by: none of them is an option."""


def shown(value: object) -> str:
    """A value as TOML holds it, in words."""
    kinds = {str: "the string", bool: "", int: "the number", float: "the number", list: "the list"}
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a table"
    return f"{kinds.get(type(value), '')} {value!r}".strip()


def unknown_key(
    name: str, text: str, parents: tuple[str, ...], key: str, known: dict[str, Any]
) -> QuantuiError:
    """``key`` is none of ``known``."""
    if key.lower().replace("-", "_") in SECRETS:
        return secret_key(name, text, parents, key)
    near = difflib.get_close_matches(key, known, 1, 0.5)
    path = ".".join((*parents, key))
    elsewhere = [f"{section}.{key}" for section, cls in SECTIONS.items() if key in options_of(cls)]
    if elsewhere:
        fix = f"Did you mean `{'` or `'.join(elsewhere[:2])}`?"
    elif near:
        fix = f"Did you mean `{'.'.join((*parents, near[0]))}`?"
    else:
        fix = f"Known here: {', '.join(known)}."
    return QuantuiError(
        "profile.unknown-key",
        f"{name}{line_of(text, parents, key)}: unknown key `{path}`.",
        fix=fix,
    )


def secret_key(name: str, text: str, parents: tuple[str, ...], key: str) -> QuantuiError:
    """``key`` would hold a secret."""
    return QuantuiError(
        "profile.secret",
        f"{name}{line_of(text, parents, key)}: `{key}` would put a secret into the profile.",
        "Profiles are shared and committed.",
        "Name the environment variable that holds the key in `serve.api_key_env`; "
        "a Hub token goes into HF_TOKEN.",
    )


def wrong_value(
    code: str,
    name: str,
    text: str,
    parents: tuple[str, ...],
    key: str,
    message: str,
    fix: str,
) -> QuantuiError:
    """``profile.CODE``: the value of ``key`` is not right."""
    path = ".".join((*parents, key))
    return QuantuiError(
        f"profile.{code}",
        f"{name}{line_of(text, parents, key)}: `{path}` {message}.",
        fix=fix,
        exit_code=ExitCode.BAD_INPUT,
    )


def line_of(text: str, parents: tuple[str, ...], key: str) -> str:
    """`` line N`` of TOML where ``key`` is set below the table ``parents``, or nothing when it is not seen.

    A key of an inline table is on the line of that table.
    """
    wanted = (*parents, key)
    table: tuple[str, ...] = ()
    inside_string = False
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        was_inside = inside_string
        inside_string ^= (line.count('"""') + line.count("'''")) % 2 == 1
        if was_inside:
            continue
        if line.startswith("["):
            table = tuple(part.strip(" \"'") for part in line.strip("[] ").split("]")[0].split("."))
            if table[: len(wanted)] == wanted:
                return f" line {number}"
        else:
            left = tuple(part.strip(" \"'") for part in line.partition("=")[0].split("."))
            if "=" in line and (*table, *left)[: len(wanted)] == wanted:
                return f" line {number}"
    return line_of(text, parents[:-1], parents[-1]) if parents else ""
