"""Profiles on disk: read strictly, written with tomlkit so that a person's comments survive."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import MutableMapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomlkit

from quantui.domain.draft import SECTIONS, Draft, Option, options_of
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.profile import SCHEMA, parse_profile
from quantui.runtime.models import looks_like_path

_WIDTH = 110


def load_profile(path: Path) -> Draft:
    """The draft in the file. Relative folders in it are relative to the file, not to where quantui runs."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise QuantuiError(
            "profile.not-found",
            f"There is no profile {path}.",
            fix="Write one with `quantui init MODEL --out prod.toml`, or see `quantui demo`.",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise QuantuiError(
            "profile.unreadable",
            f"{path} could not be read.",
            str(error),
            "Name a file that you may read: TOML, in UTF-8.",
        ) from None
    return anchored(parse_profile(text, name=path.name), path.absolute().parent)


def anchored(draft: Draft, folder: Path) -> Draft:
    """``draft`` with relative paths made absolute below ``folder``; Hub ids stay as they are."""

    def path_of(ref: str | None) -> str | None:
        if not ref or ref.startswith("~") or Path(ref).is_absolute():
            return ref
        return str(folder / ref) if looks_like_path(ref) or _is_folder(folder / ref) else ref

    def file_of(name: str | None) -> str | None:
        return name and str(folder / _expanded(name))

    python = draft.engine.python
    return replace(
        draft,
        model=replace(draft.model, id=path_of(draft.model.id) or ""),
        adapter=replace(
            draft.adapter,
            id=path_of(draft.adapter.id),
            also=tuple(path_of(ref) or "" for ref in draft.adapter.also),
        ),
        check=replace(draft.check, text=file_of(draft.check.text)),
        engine=replace(
            draft.engine, python=file_of(python) if python and "/" in python else python
        ),
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        # A Hub id, or nonsense, that no file can be called.
        return False


def _expanded(name: str) -> Path:
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def save_profile(path: Path, draft: Draft, *, afresh: bool = False) -> None:
    """Write ``draft`` to ``path``, atomically.

    A file that is there keeps its comments and layout, and only values that differ are touched; a new one,
    or one written ``afresh``, has every option explained, the unset ones as comments.
    """
    # What a link points to is written, and keeps its permissions.
    target = path.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        there = target.exists()
        if there and not afresh:
            text = _updated(target.read_text(encoding="utf-8"), draft, path)
        else:
            text = render_profile(draft)
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        if there:
            shutil.copymode(target, partial)
        partial.replace(target)
    except (OSError, UnicodeError) as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise QuantuiError(
            "profile.cannot-write",
            f"{path} could not be written.",
            str(error),
            "Choose another place.",
            ExitCode.BAD_INPUT,
        ) from None


def _updated(text: str, draft: Draft, path: Path) -> str:
    """``text`` with the values changed that ``draft`` has otherwise, paths compared as they are meant."""
    before = anchored(parse_profile(text, name=path.name), path.absolute().parent)
    document = tomlkit.parse(text)
    for section, cls in SECTIONS.items():
        for name in options_of(cls):
            was, value = (
                getattr(getattr(before, section), name),
                getattr(getattr(draft, section), name),
            )
            if was != value:
                _set(document, section, name, value)
    return tomlkit.dumps(document)


def _set(document: tomlkit.TOMLDocument, section: str, name: str, value: object) -> None:
    table: Any = document.get(section)
    if table is None:
        document[section] = tomlkit.table()
        table = document[section]
    current = table.get(name)
    if value is None:
        del table[name]
    elif isinstance(value, dict) and isinstance(current, MutableMapping):
        for key in [key for key in current if key not in value]:
            del current[key]
        for key, item in value.items():
            if current.get(key) != item:
                current[key] = _item(item)
    else:
        table[name] = _item(value)


def render_chosen(draft: Draft) -> str:
    """What ``draft`` has otherwise than a new one, without explanations: a valid profile in a few lines."""
    document = tomlkit.document()
    document.add("schema", tomlkit.item(SCHEMA))
    for section, cls in SECTIONS.items():
        chosen, plain = getattr(draft, section), cls()
        table = tomlkit.table()
        for name in options_of(cls):
            value = getattr(chosen, name)
            if value is not None and value != getattr(plain, name):
                table.add(name, _item(value))
        if len(table):
            document.add(section, table)
    return tomlkit.dumps(document)


def render_profile(draft: Draft) -> str:
    """A new profile's text."""
    document = tomlkit.document()
    document.add(tomlkit.comment("A quantui profile. Replay it with: quantui --profile THIS-FILE"))
    document.add(tomlkit.comment("Relative folders are relative to this file."))
    document.add("schema", tomlkit.item(SCHEMA))
    for section, cls in SECTIONS.items():
        chosen = getattr(draft, section)
        if section == "recorded" and chosen == cls():
            continue
        table = tomlkit.table()
        table.add(tomlkit.comment((cls.__doc__ or "").strip().splitlines()[0]))
        for name, (_, option) in options_of(cls).items():
            value = getattr(chosen, name)
            if section == "recorded":
                if value is not None:
                    table.add(name, _item(value))
                continue
            for line in _help(option):
                table.add(tomlkit.comment(line))
            if value is None or value in ((), {}):
                example = option.example if value is None else value
                table.add(tomlkit.comment(f"{name} = {_item(example).as_string()}"))
            else:
                table.add(name, _item(value))
        document.add(section, table)
    return tomlkit.dumps(document)


def toml_value(value: object) -> str:
    """An option's value as a profile would hold it: ``[0, 1]``, ``true``, ``"bfloat16"``."""
    return str(_item(value).as_string())


def _help(option: Option) -> list[str]:
    import textwrap

    return textwrap.wrap(option.help, _WIDTH)


def _item(value: object) -> Any:  # noqa: ANN401 - one of tomlkit's items
    if isinstance(value, tuple):
        return tomlkit.item(list(value))
    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return table
    return tomlkit.item(value)
