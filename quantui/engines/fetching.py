"""What a plan brings here before any work on the model begins: engines and snapshots of the Hub. Pure."""

from __future__ import annotations

import sys
from pathlib import PurePath
from typing import TYPE_CHECKING

from quantui.domain.plan import TO_REINSTALL, DownloadStep, InstallStep
from quantui.engines.specs import engine_spec

if TYPE_CHECKING:
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.domain.plan import EngineFacts
    from quantui.engines.planning import Facts


def install_steps(facts: Facts) -> list[InstallStep]:
    """A step for each engine that ``facts`` only assumes, the one that is needed first in front."""
    roles: list[tuple[EngineFacts, str]] = []
    if facts.adapters:
        roles.append((facts.merge_engine, "merge"))
    if facts.quantize_engine is not None:
        # What is made is proven in the main engine.
        roles += [(facts.quantize_engine, "quantize"), (facts.engine, "quantize")]
    roles.append((facts.engine, "serve"))
    absent = {engine.name: engine for engine, _ in roles if engine.absent}
    return [_install(engine, roles) for engine in absent.values()]


def _install(engine: EngineFacts, roles: list[tuple[EngineFacts, str]]) -> InstallStep:
    spec = engine_spec(engine.name)
    again = engine.origin == TO_REINSTALL
    return InstallStep(
        id=f"install-{engine.name}",
        title=f"install the engine {engine.name}{' again' if again else ''}: {spec.title}",
        engine=engine.name,
        download_bytes=spec.download_bytes,
        disk_bytes=spec.disk_bytes,
        versions=engine.versions,
        needed_by=tuple(kind for other, kind in roles if other.name == engine.name),
        force=again,
    )


def download_steps(
    model: ModelSpec, adapters: tuple[AdapterSpec, ...]
) -> list[tuple[str, ModelSpec | AdapterSpec]]:
    """The id that the download of each would have as a step."""
    ids = ["download-adapter", *(f"download-adapter-{n}" for n in range(2, len(adapters) + 1))]
    return [("download-base", model), *zip(ids, adapters, strict=False)]


def downloads(facts: Facts) -> list[DownloadStep]:
    """A step for each snapshot that is not whole on disk."""
    return [
        DownloadStep(
            id=step_id,
            title=f"download {spec.ref}",
            argv=(sys.executable, str(PurePath(facts.workers_dir, "download_snapshot.py"))),
            job=job,
            bytes=spec.download_bytes,
            path=spec.path or "",
        )
        for step_id, spec in download_steps(facts.model, facts.adapters)
        if (job := facts.download_jobs.get(step_id)) is not None
    ]
