"""Engines: which interpreter a step runs with, and the environments quantui makes for it.

In this order: the interpreter a profile names; the one quantui runs in, if it has what is needed;
an environment that quantui made.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.engines.choice import default_engine_name
from quantui.engines.specs import EngineSpec, engine_spec, load_specs
from quantui.runtime import engine_store as store
from quantui.runtime.engine_install import make_environment
from quantui.runtime.engine_site import Site, look

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

__all__ = [
    "Engine",
    "EngineStatus",
    "default_engine_name",
    "engine_status",
    "find_engine",
    "install_engine",
    "list_engines",
    "remove_engine",
]

Origin = Literal["profile", "this interpreter", "managed"]
_TASKS = {"train-demo": "train the demo's model", "prove": "prove a quantized model"}
State = Literal["installed", "outdated", "broken", "half-made", "absent"]


@dataclass(frozen=True)
class Engine:
    """An interpreter that has what a step needs."""

    name: str
    python: str
    origin: Origin
    versions: dict[str, str]
    plugins: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What a person should know of it; none of it keeps the step from running."""


@dataclass(frozen=True)
class EngineStatus:
    """A known engine and what there is of it on disk; sizes in bytes."""

    spec: EngineSpec
    state: State
    path: str
    bytes_on_disk: int
    shared_bytes: int
    versions: dict[str, str]
    created: float | None
    problem: str = ""

    def to_dict(self) -> dict[str, object]:
        """The JSON form of ``quantui engine ls --json``."""
        return {
            "name": self.spec.name,
            "title": self.spec.title,
            "family": self.spec.family,
            "accelerator": self.spec.accelerator,
            "provides": sorted(self.spec.provides),
            "state": self.state,
            "path": self.path,
            "bytes_on_disk": self.bytes_on_disk,
            "shared_bytes": self.shared_bytes,
            "versions": self.versions,
            "created": self.created,
            "problem": self.problem,
            "download_bytes": self.spec.download_bytes,
            "disk_bytes": self.spec.disk_bytes,
            "warnings": [warning.text for warning in self.spec.warnings],
        }


def list_engines() -> list[EngineStatus]:
    """Every engine quantui can make, with its state; 0.1 s for each that is there."""
    return [engine_status(spec) for spec in load_specs().values()]


def engine_status(spec: EngineSpec) -> EngineStatus:
    """The state of one managed engine."""
    return _inspect(spec)[0]


def _inspect(spec: EngineSpec) -> tuple[EngineStatus, Site | None]:
    path = store.engine_path(spec.name)
    record = store.read_record(path)
    if record is None:
        leftovers = [*store.partials(spec.name), *([path] if path.exists() else [])]
        size = sum(store.disk_size(folder).total for folder in leftovers)
        text = (
            "An install was interrupted or is running; the next install clears it."
            if leftovers
            else ""
        )
        state: State = "half-made" if leftovers else "absent"
        return EngineStatus(spec, state, str(path), size, 0, {}, None, text), None
    site: Site | None = None
    state, problem = "installed", ""
    try:
        site = look(str(store.engine_python(spec.name)), spec.imports)
    except QuantuiError as error:
        state, problem = "broken", f"{error.what} {error.why}"
    if site is not None and site.missing:
        state, problem = "broken", f"It lacks {', '.join(site.missing)}."
    elif site is not None and record.lock_hash != spec.lock_hash:
        state = "outdated"
        problem = f"Made from another lock, by quantui {record.quantui_version}; it still works."
    status = EngineStatus(
        spec=spec,
        state=state,
        path=str(path),
        bytes_on_disk=record.bytes_on_disk,
        shared_bytes=record.shared_bytes,
        versions=record.versions if site is None else site.versions(),
        created=record.created,
        problem=problem,
    )
    return status, site


def find_engine(name: str, *, python: str | None = None, purpose: str = "serve") -> Engine:
    """The interpreter for ``purpose``: a key of the spec's ``provides``, such as ``merge`` or
    ``quantize-autoawq``.

    Raises ``engine.python-missing``, ``engine.python-broken``, ``engine.lacks-vllm``,
    ``engine.lacks-packages`` for an interpreter that was named; ``engine.not-installed`` or
    ``engine.broken`` when none was named and none is there; ``engine.unknown``.
    """
    spec = engine_spec(name)
    modules = spec.provides[purpose]
    if python is not None:
        named = look(python, {*modules, *spec.imports})
        if set(modules) & set(named.missing):
            raise _lacks(spec, named, modules, purpose)
        # Fewer packages than quantui's own engine: said now, for another step may want them.
        rest = f"{named.interpreter} lacks {', '.join(sorted(named.missing))}."
        return _engine(spec, named, "profile", rest if named.missing else "")
    # Asked of this process first: a tenth of a second is saved where quantui stands alone.
    here = look(sys.executable, modules) if all(map(find_spec, modules)) else None
    if here and not here.missing and _for_same_hardware(spec, here):
        return _engine(spec, here, "this interpreter")
    status, site = _inspect(spec)
    if site is not None and status.state in ("installed", "outdated"):
        return _engine(spec, site, "managed", status.problem)
    if status.state == "broken":
        raise QuantuiError(
            "engine.broken",
            f"The environment {name} at {status.path} is broken.",
            status.problem,
            f"Make it again: quantui engine install {name} --force",
            ExitCode.ENGINE,
        )
    raise QuantuiError(
        "engine.not-installed",
        f"The engine {name} is not installed.",
        f"It would download about {spec.download_bytes / 1e9:.1f} GB and take "
        f"{spec.disk_bytes / 1e9:.1f} GB on disk."
        + (" An earlier install did not finish." if status.state == "half-made" else ""),
        f"quantui engine install {name}",
        ExitCode.ENGINE,
    )


def install_engine(
    name: str,
    *,
    on_event: Callable[[dict[str, Any]], None],
    cancel: threading.Event,
    force: bool = False,
) -> Engine:
    """Make the environment ``name`` as :func:`.make_environment` does, and give it as an engine."""
    spec = engine_spec(name)
    make_environment(spec, on_event=on_event, cancel=cancel, force=force)
    return _engine(spec, look(str(store.engine_python(name)), spec.imports), "managed")


def remove_engine(name: str) -> int:
    """Delete the environment ``name`` and its leftovers; gives their bytes.

    :func:`engine_status` tells the size beforehand: show it before calling this. Raises
    ``engine.in-use``, ``engine.busy``, and ``engine.not-installed`` when there is nothing.
    """
    spec = engine_spec(name)
    path = store.engine_path(spec.name)
    with store.exclusive(spec.name):
        folders = [*store.partials(spec.name), *([path] if path.exists() else [])]
        if not folders:
            raise QuantuiError(
                "engine.not-installed",
                f"The engine {spec.name} is not installed.",
                f"There is nothing at {path}.",
                "`quantui engine ls` shows what there is.",
                ExitCode.ENGINE,
            )
        total = 0
        for folder in folders:
            store.refuse_when_used(spec.name, folder)
            total += store.disk_size(folder).total
            doomed = folder
            if folder == path:
                # Renamed first: what an interrupted removal leaves is plainly no engine.
                doomed = path.with_name(f"{spec.name}.old-{os.getpid()}")
                path.rename(doomed)
            store.remove_tree(doomed)
        return total


def _engine(spec: EngineSpec, site: Site, origin: Origin, problem: str = "") -> Engine:
    problems = [problem] if problem else []
    if origin == "profile" and not _for_same_hardware(spec, site):
        problems.append(
            f"What {site.interpreter} holds is for {'the CPU' if site.for_cpu() else 'GPUs'}; "
            f"{spec.name} is {spec.title}."
        )
    return Engine(
        spec.name, site.interpreter, origin, site.versions(), site.plugins, tuple(problems)
    )


def _for_same_hardware(spec: EngineSpec, site: Site) -> bool:
    return spec.accelerator is None or site.for_cpu() == (spec.accelerator == "cpu")


def _lacks(spec: EngineSpec, site: Site, modules: tuple[str, ...], purpose: str) -> QuantuiError:
    missing = [module for module in modules if module in site.missing]
    key = "quantization.python" if purpose.startswith("quantize-") else spec.profile_key
    task = purpose.replace("quantize-", "quantize with ")
    return QuantuiError(
        "engine.lacks-vllm" if "vllm" in missing else "engine.lacks-packages",
        f"The interpreter {site.interpreter} lacks {', '.join(missing)}.",
        f"{key} names it, and to {_TASKS.get(purpose, task)} it needs that "
        f"(it is Python {site.python} at {site.prefix}).",
        f"Install it there, name another interpreter, or leave {key} out of the profile to use an "
        f"environment that quantui makes ({spec.name}).",
        ExitCode.ENGINE,
    )
