"""``settings.toml`` in quantui's home: what holds for every run on this machine. Read strictly, as profiles are.

The file is made once something is set; comments and layout of a person's own stay when it is changed.
"""

from __future__ import annotations

import contextlib
import difflib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quantui.domain.draft import Option, option, options_of
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.profile_errors import line_of, shown
from quantui.domain.quantities import data_size
from quantui.runtime.paths import home

if TYPE_CHECKING:
    import dataclasses
    from pathlib import Path

_MOST_DAYS = 3650
_LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class CacheSettings:
    """What takes the disk: ``quantui cache`` and the hints that name it. Sizes are bytes."""

    budget: int | None = option(
        None,
        'The most that models, artifacts, engines and caches together may take, as "200GB" (10^9 bytes each) or '
        '"200GiB" (2^30). `quantui cache prune` deletes down to it; more than it is only hinted at, never deleted '
        "unasked. Unset: no limit.",
        example="200GB",
    )
    keep_free: int | None = option(
        None,
        'What `quantui cache prune` leaves free on each disk that holds some of it, as "50GB". Unset: nothing.',
        example="50GB",
    )
    trash_days: int = option(
        7,
        "Days after which `quantui cache prune` empties what was moved to the trash.",
        minimum=0,
        maximum=_MOST_DAYS,
    )
    hub_roots: tuple[str, ...] = option(
        (),
        "More folders that huggingface_hub keeps a cache in, besides those of this environment (HF_HOME, "
        "HF_HUB_CACHE).",
        example=["/data/hf/hub"],
    )


@dataclass(frozen=True)
class Settings:
    """All settings; each table of the file is a field."""

    cache: CacheSettings = CacheSettings()


_TABLES: dict[str, type[Any]] = {"cache": CacheSettings}
_SIZES = frozenset({"budget", "keep_free"})


def settings_file() -> Path:
    """Where they are kept: ``settings.toml`` of quantui's home."""
    return home() / "settings.toml"


def read_settings() -> Settings:
    """The settings; the defaults where there is no file.

    Raises QuantuiError ``settings.*`` (exit code 2), with line and nearest name, at the first thing that is wrong.
    """
    return parse_settings(_text())


def parse_settings(text: str, *, name: str = "settings.toml") -> Settings:
    """The settings that TOML ``text`` holds; ``name`` is the file's for messages. Raises as :func:`read_settings`."""
    if not text.strip():
        return Settings()
    import tomllib

    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise QuantuiError(
            "settings.syntax",
            f"{name} is not valid TOML: {error}.",
            fix=f"Mend the line named above in {settings_file()}.",
        ) from None
    tables = {}
    for section, table in data.items():
        if section not in _TABLES:
            raise _unknown(name, text, (), section, list(_TABLES))
        if not isinstance(table, dict):
            fix = f"Begin a line with [{section}] and put its options below."
            raise _wrong(name, text, (), section, "must be a table", fix)
        options = options_of(_TABLES[section])
        values = {}
        for key, value in table.items():
            if key not in options:
                raise _unknown(name, text, (section,), key, list(options))
            values[key] = _checked(name, text, section, options[key], value)
        tables[section] = _TABLES[section](**values)
    return Settings(**tables)


def change_setting(path: str, value: str | int | list[str] | None) -> Settings:
    """Set ``cache.budget`` and the like to a value as TOML holds it, or unset it (None); gives what then holds.

    The file is written whole or not at all. Raises QuantuiError ``settings.*``: a wrong value, or a file that is
    wrong already (it is left as it is) or cannot be written.
    """
    import tomlkit

    section, _, key = path.partition(".")
    before = _text()
    parse_settings(before)
    if not before.strip():
        before = _new_text()
    text = _uncommented(before, section, key, value)
    if text is None:
        document: Any = tomlkit.parse(before)
        if section not in document:
            document[section] = tomlkit.table()
        if value is not None:
            document[section][key] = value
        elif key in document[section]:
            del document[section][key]
        text = tomlkit.dumps(document)
    after = parse_settings(text)
    _write(text)
    return after


def _uncommented(
    text: str, section: str, key: str, value: str | int | list[str] | None
) -> str | None:
    """``text`` with the example of ``key``, a comment below its explanation, made the setting, or the other way round.

    None where no such line is there to be changed.
    """
    import re

    import tomlkit

    there, example = rf"(?m)^{key} *=.*$", rf"(?m)^# ?{key} *=.*$"
    if value is None:
        changed, times = re.subn(there, lambda found: f"# {found[0]}", text)
    elif not re.search(there, text):
        line = f"{key} = {tomlkit.item(value).as_string()}"
        changed, times = re.subn(example, lambda _: line, text, count=1)
    else:
        return None
    try:
        before, after = (tomlkit.parse(one).unwrap() for one in (text, changed))
    except ValueError:
        return None
    wanted = {**before.get(section, {}), key: value}
    if value is None:
        del wanted[key]
    return changed if times == 1 and after == {**before, section: wanted} else None


def _new_text() -> str:
    """A file that explains every setting and sets none."""
    import textwrap

    import tomlkit

    document = tomlkit.document()
    document.add(tomlkit.comment("quantui's settings on this machine."))
    for section, kind in _TABLES.items():
        table = tomlkit.table()
        for name, (field, declared) in options_of(kind).items():
            for line in textwrap.wrap(declared.help, 110):
                table.add(tomlkit.comment(line))
            example = declared.example if field.default in (None, ()) else field.default
            table.add(tomlkit.comment(f"{name} = {tomlkit.item(example).as_string()}"))
        document.add(section, table)
    return tomlkit.dumps(document)


def _text() -> str:
    """What the file holds; "" where there is none."""
    path = settings_file()
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST_FILE).decode("utf-8-sig")
    except (FileNotFoundError, NotADirectoryError):
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise QuantuiError(
            "settings.unreadable",
            f"{path} could not be read.",
            str(error),
            "It must be a file that you may read: TOML, in UTF-8. Without it the defaults hold.",
        ) from None


def _write(text: str) -> None:
    # What a link points to is written.
    path = settings_file()
    partial = path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()
        partial = target.with_name(f".{target.name}.{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        if partial != path:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        raise QuantuiError(
            "settings.cannot-write",
            f"{path} could not be written.",
            error.strerror or str(error),
            "Make the folder writable, or set QUANTUI_HOME to another one.",
        ) from None


def _checked(
    name: str,
    text: str,
    section: str,
    declared: tuple[dataclasses.Field[Any], Option],
    value: object,
) -> object:
    field, about = declared
    fix = f"Its meaning: {about.help}"

    def refuse(message: str) -> QuantuiError:
        return _wrong(name, text, (section,), field.name, message, fix)

    if field.name in _SIZES:
        if not isinstance(value, str):
            raise refuse(f'must be a size in quotes, as "{about.example}", not {shown(value)}')
        try:
            return data_size(field.name, value)
        except QuantuiError:
            raise refuse(f'must be a size, as "{about.example}", not {shown(value)}') from None
    if field.name == "hub_roots":
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise refuse(f"must be a list of folders in quotes, not {shown(value)}")
        for one in value:
            if "\0" in one or not one.startswith(("/", "~")):
                raise refuse(f"must hold whole paths, from / or ~ on, not {shown(one)}")
        return tuple(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise refuse(f"must be a whole number, not {shown(value)}")
    low, high = about.minimum or 0, about.maximum or _MOST_DAYS
    if not low <= value <= high:
        raise refuse(f"must be from {low:g} to {high:g}, not {value}")
    return value


def _unknown(
    name: str, text: str, parents: tuple[str, ...], key: str, known: list[str]
) -> QuantuiError:
    near = difflib.get_close_matches(key, known, 1, 0.5)
    if not near and not parents:
        near = [f"{section}.{key}" for section, kind in _TABLES.items() if key in options_of(kind)]
    path = ".".join((*parents, key))
    nearest = ".".join((*parents, near[0])) if near else ""
    fix = f"Did you mean `{nearest}`?" if near else f"Known here: {', '.join(known)}."
    return QuantuiError(
        "settings.unknown-key",
        f"{name}{line_of(text, parents, key)}: unknown key `{path}`.",
        fix=fix,
    )


def _wrong(
    name: str, text: str, parents: tuple[str, ...], key: str, message: str, fix: str
) -> QuantuiError:
    path = ".".join((*parents, key))
    return QuantuiError(
        "settings.bad-value",
        f"{name}{line_of(text, parents, key)}: `{path}` {message}.",
        fix=fix,
        exit_code=ExitCode.BAD_INPUT,
    )
