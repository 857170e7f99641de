"""Profiles on disk: read strictly, written with tomlkit so that a person's comments survive."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.items import Item, Table

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
        inside = folder / ref
        return str(inside) if looks_like_path(ref) or inside.is_dir() else ref

    def file_of(name: str | None) -> str | None:
        return name if not name or name.startswith("~") else str(folder / name)

    return replace(
        draft,
        model=replace(draft.model, id=path_of(draft.model.id) or ""),
        adapter=replace(draft.adapter, id=path_of(draft.adapter.id)),
        check=replace(draft.check, text=file_of(draft.check.text)),
        engine=replace(
            draft.engine,
            python=file_of(draft.engine.python)
            if draft.engine.python and "/" in draft.engine.python
            else draft.engine.python,
        ),
    )


def save_profile(path: Path, draft: Draft) -> None:
    """Write ``draft`` to ``path``, atomically.

    A file that is there keeps its comments and layout, and only values that differ are touched; a new one
    has every option explained, the unset ones as comments.
    """
    if path.exists():
        text = path.read_text(encoding="utf-8")
        parse_profile(text, name=path.name)
        document = tomlkit.parse(text)
        for section, cls in SECTIONS.items():
            _update(document, section, cls, draft)
        text = tomlkit.dumps(document)
    else:
        text = render_profile(draft)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise QuantuiError(
            "profile.cannot-write",
            f"{path} could not be written.",
            str(error),
            "Choose another place.",
            ExitCode.BAD_INPUT,
        ) from None


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


def _update(document: tomlkit.TOMLDocument, section: str, cls: type, draft: Draft) -> None:
    chosen = getattr(draft, section)
    table = document.get(section)
    for name, (field, _) in options_of(cls).items():
        value = getattr(chosen, name)
        current: Any = table.get(name) if isinstance(table, Table) else None
        plain = current.unwrap() if isinstance(current, Item) else current
        wanted = list(value) if isinstance(value, tuple) else value
        if plain == wanted:
            continue
        if current is None and (wanted is None or wanted == field.default or wanted in ([], {})):
            continue
        if table is None:
            table = tomlkit.table()
            document.add(section, table)
        if wanted is None:
            table.remove(name)
        else:
            table[name] = _item(value)
