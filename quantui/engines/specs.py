"""What each managed engine is made of, read from ``quantui/data/engines/*.toml`` and its lock.

A file describes one engine, or a family of them: each ``[variant.X]`` table is an engine of its own, its
keys laid over the common ones, its lists put behind them. Reading is all this module does: it starts
nothing, looks at no machine and imports no engine package.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from importlib import resources
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import ExitCode, QuantuiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
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
class Built:
    """A package that exists only as source: it is built on the user's machine, which runs its code.

    The lock holds the hash of its sdist. It is built in the new environment, without isolation and after
    the wheels, so that nothing but what is locked takes part.
    """

    spec: str
    reason: str
    programs: tuple[str, ...] = ()
    """Programs the build calls, any of ``a|b``: ``cc|gcc``."""
    headers: tuple[str, ...] = ()
    """C headers it includes, which the system or Python's installation must have."""
    libraries: tuple[str, ...] = ()
    """Shared libraries it links, without ``lib`` and ``.so``."""
    install: str = ""
    """How a person gets these programs, headers and libraries."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables its build is given."""

    @property
    def name(self) -> str:
        """The package's name, as the lock spells it."""
        return self.spec.partition("==")[0]


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
    family: str
    """The name that stands for this engine and those of other accelerators; else its own."""
    accelerator: str | None
    """``cpu`` or ``cuda``, what its torch computes on; None where that makes no difference."""
    built: tuple[Built, ...] = ()

    @property
    def main_package(self) -> str:
        """What a person installs who makes such an environment by hand."""
        first = (self.built or self.requirements)[0].spec
        return re.split(r"[\[<>=!~ ]", first)[0]

    @property
    def profile_key(self) -> str:
        """Where a profile names an interpreter to use instead."""
        return "engine.python" if "serve" in self.provides else "quantization.python"

    @property
    def own_interpreter(self) -> str:
        """What a person can do who cannot have this engine: the end of a sentence."""
        return (
            f"name an interpreter that has {self.main_package} in the profile "
            f'({self.profile_key} = "...")'
        )

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


def parse_specs(text: str, lock_of: Callable[[str], str]) -> tuple[EngineSpec, ...]:
    """An engine's TOML file as the engines it describes; ``lock_of`` gives a lock's text by its name.

    Raises KeyError, TypeError or ValueError for a bad file: those that ship are tested.
    """
    data = tomllib.loads(text)
    if data["schema"] != SCHEMA:
        raise ValueError(f"engine file of schema {data['schema']}, this quantui reads {SCHEMA}")
    variants: Mapping[str, Mapping[str, Any]] = data.pop("variant", {})
    whole = [_laid_over(data, own) for own in variants.values()] or [data]
    return tuple(_spec(item, lock_of(item["lock"])) for item in whole)


def _laid_over(common: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(common)
    for key, value in own.items():
        if isinstance(value, dict):
            merged[key] = {**common.get(key, {}), **value}
        elif isinstance(value, list):
            merged[key] = [*common.get(key, ()), *value]
        else:
            merged[key] = value
    return merged


def _spec(data: Mapping[str, Any], lock_text: str) -> EngineSpec:
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
        built=tuple(
            Built(
                item["spec"],
                item["reason"],
                tuple(item.get("programs", ())),
                tuple(item.get("headers", ())),
                tuple(item.get("libraries", ())),
                item.get("install", ""),
                item.get("environment", {}),
            )
            for item in data.get("build", ())
        ),
        excluded=tuple(Excluded(i["name"], i["reason"]) for i in data.get("exclude", ())),
        warnings=tuple(Warned(i["code"], i["text"], i["source"]) for i in data.get("warning", ())),
        torch=None if torch is None else TorchSource(torch["backend"], tuple(torch["packages"])),
        download_bytes=size["download_bytes"],
        download_source=size["download_source"],
        disk_bytes=size["disk_bytes"],
        disk_source=size["disk_source"],
        lock_text=lock_text,
        family=data.get("family", data["name"]),
        accelerator=data.get("accelerator"),
    )


def load_specs(folder: Traversable | None = None) -> dict[str, EngineSpec]:
    """Every engine of ``folder`` (default: those that ship with quantui), in name order."""
    if folder is None:
        return dict(_shipped())
    specs: dict[str, EngineSpec] = {}
    for entry in folder.iterdir():
        if entry.name.endswith(".toml"):
            text = entry.read_text(encoding="utf-8")
            specs |= {spec.name: spec for spec in parse_specs(text, partial(_lock, folder))}
    return dict(sorted(specs.items()))


@cache
def _shipped() -> dict[str, EngineSpec]:
    return load_specs(resources.files("quantui") / "data" / "engines")


def _lock(folder: Traversable, name: str) -> str:
    """The text of a lock, empty when it is still to be made."""
    lock = folder / name
    return lock.read_text(encoding="utf-8") if lock.is_file() else ""


def engine_spec(name: str) -> EngineSpec:
    """The spec called ``name``; raises ``engine.unknown``, which lists the known ones."""
    specs = load_specs()
    if name not in specs:
        raise QuantuiError(
            "engine.unknown",
            f"There is no engine called {name}.",
            f"quantui can make: {', '.join(specs)}.",
            "Use one of these names, or name an interpreter of your own in the profile.",
            ExitCode.BAD_INPUT,
        )
    return specs[name]
