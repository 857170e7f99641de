"""What each managed engine is made of, read from ``quantui/data/engines/*.toml`` and its lock.

Reading is all this module does: it starts nothing, looks at no machine and imports no engine
package.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.resources.abc import Traversable

SCHEMA = 1
_PINNED = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^\s;\\]+)", re.MULTILINE
)


@dataclass(frozen=True)
class Requirement:
    """One package the engine is asked to hold, in pip's notation, and why."""

    spec: str
    reason: str
    no_deps: bool = False
    """Locked and installed without what it requires."""


@dataclass(frozen=True)
class Excluded:
    """A package that others require and that must not be there."""

    name: str
    reason: str


@dataclass(frozen=True)
class Warned:
    """What a person has to read before the engine is installed."""

    code: str
    text: str
    source: str


@dataclass(frozen=True)
class PlatformNeeds:
    """Where the engine runs. Versions are texts such as ``3.11`` or ``7.5``; None is no demand."""

    system: str
    machines: tuple[str, ...]
    python: str
    glibc: str | None = None
    compute_capability: str | None = None
    cuda_driver: str | None = None


@dataclass(frozen=True)
class TorchSource:
    """``packages`` come from PyTorch's index for ``backend``, or from a find-links folder."""

    backend: str
    packages: tuple[str, ...]


@dataclass(frozen=True)
class EngineSpec:
    """One engine that quantui can make: what it provides, what it takes, and its lock."""

    name: str
    title: str
    provides: Mapping[str, tuple[str, ...]]
    """Purpose (``serve``, ``merge``, ``train-demo``) to the modules an interpreter needs for it."""
    python: str
    """The version of Python the lock was made for, ``major.minor``."""
    imports: tuple[str, ...]
    """Modules that import in a whole environment; the proof after the install."""
    platform: PlatformNeeds
    requirements: tuple[Requirement, ...]
    excluded: tuple[Excluded, ...]
    warnings: tuple[Warned, ...]
    torch: TorchSource | None
    download_bytes: int
    download_source: str
    disk_bytes: int
    disk_source: str
    lock_text: str
    """The lock: pip's requirement format, every package pinned and hashed."""

    @cached_property
    def lock_hash(self) -> str:
        """SHA-256 of the lock, which tells whether an environment was made from it."""
        return hashlib.sha256(self.lock_text.encode()).hexdigest()

    @cached_property
    def locked_versions(self) -> dict[str, str]:
        """Package name, as the lock spells it, to its pinned version."""
        return {m["name"].lower(): m["version"] for m in _PINNED.finditer(self.lock_text)}

    def lock_entries(self) -> tuple[str, ...]:
        """The lock split into one text a package, its hashes included, comments left out."""
        entries: list[str] = []
        for line in self.lock_text.splitlines():
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            if line[0].isspace() and entries:
                entries[-1] += "\n" + line
            else:
                entries.append(line)
        return tuple(entries)


def parse_spec(text: str, lock_text: str) -> EngineSpec:
    """An engine's TOML file and its lock as an :class:`EngineSpec`.

    Raises KeyError, TypeError or ValueError for a bad file: those that ship are tested.
    """
    data = tomllib.loads(text)
    if data["schema"] != SCHEMA:
        raise ValueError(f"engine file of schema {data['schema']}, this quantui reads {SCHEMA}")
    needs: Mapping[str, Any] = data["platform"]
    size: Mapping[str, Any] = data["size"]
    torch: Mapping[str, Any] | None = data.get("torch")
    return EngineSpec(
        name=data["name"],
        title=data["title"],
        provides={key: tuple(modules) for key, modules in data["provides"].items()},
        python=data["python"],
        imports=tuple(data["imports"]),
        platform=PlatformNeeds(
            system=needs["system"],
            machines=tuple(needs["machines"]),
            python=needs["python"],
            glibc=needs.get("glibc"),
            compute_capability=needs.get("compute_capability"),
            cuda_driver=needs.get("cuda_driver"),
        ),
        requirements=tuple(
            Requirement(item["spec"], item["reason"], item.get("no_deps", False))
            for item in data["requirement"]
        ),
        excluded=tuple(Excluded(i["name"], i["reason"]) for i in data.get("exclude", ())),
        warnings=tuple(Warned(i["code"], i["text"], i["source"]) for i in data.get("warning", ())),
        torch=None if torch is None else TorchSource(torch["backend"], tuple(torch["packages"])),
        download_bytes=size["download_bytes"],
        download_source=size["download_source"],
        disk_bytes=size["disk_bytes"],
        disk_source=size["disk_source"],
        lock_text=lock_text,
    )


def load_specs(folder: Traversable | None = None) -> dict[str, EngineSpec]:
    """Every engine of ``folder`` (default: those that ship with quantui), in name order."""
    folder = folder or resources.files("quantui") / "data" / "engines"
    specs: dict[str, EngineSpec] = {}
    for entry in sorted(folder.iterdir(), key=lambda item: item.name):
        if entry.name.endswith(".toml"):
            text = entry.read_text(encoding="utf-8")
            lock = folder / str(tomllib.loads(text)["lock"])
            spec = parse_spec(text, lock.read_text(encoding="utf-8") if lock.is_file() else "")
            specs[spec.name] = spec
    return specs


def engine_spec(name: str) -> EngineSpec:
    """The spec called ``name``; raises ``engine.unknown``, which lists the known ones."""
    specs = load_specs()
    if name not in specs:
        raise QuantuiError(
            "engine.unknown",
            f"There is no engine called {name}.",
            f"quantui can make: {', '.join(specs)}.",
            "Use one of these names, or name an interpreter of your own in the profile (python = "
            "...).",
            ExitCode.BAD_INPUT,
        )
    return specs[name]
