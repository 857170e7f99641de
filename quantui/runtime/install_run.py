"""The steps of a run that install engines: uv in a thread of its own, told as events of the run."""

from __future__ import annotations

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import LogLine, Notice, RunEvent
from quantui.domain.formatting import format_bytes
from quantui.domain.plan import InstallStep, MergeStep, QuantizeStep
from quantui.engines.specs import engine_spec
from quantui.runtime import engine_store as store
from quantui.runtime.caches.room import told_what_could_go
from quantui.runtime.engine_install import check_platform
from quantui.runtime.engines import install_engine
from quantui.runtime.log_tail import LogTail
from quantui.runtime.paths import engines_dir
from quantui.runtime.worker_run import cancelled, event_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping

    from quantui.domain.plan import Plan, Step
    from quantui.runtime.artifacts import ArtifactStore
    from quantui.runtime.run_context import RunContext

_TICK_S = 0.1


def needless_installs(
    plan: Plan, artifacts: ArtifactStore, spared: frozenset[str]
) -> frozenset[str]:
    """The installs for steps that will do nothing: ``spared`` ones, and those whose artifact was made before."""

    def idle(step: Step) -> bool:
        if step.id in spared:
            return True
        if not isinstance(step, MergeStep | QuantizeStep) or step.recreate or step.to_folder:
            return False
        return artifacts.find(step.artifact) is not None

    needless: set[str] = set()
    for install in plan.steps:
        if isinstance(install, InstallStep):
            users = [step for step in plan.steps if step.kind in install.needed_by]
            if users and all(map(idle, users)):
                needless.add(install.id)
    return frozenset(needless)


def check_installs(plan: Plan, spared: frozenset[str]) -> None:
    """Raise what would stop an install before anything is downloaded: the platform, or the disk for all of them."""
    steps = [s for s in plan.steps if isinstance(s, InstallStep) and s.id not in spared]
    for step in steps:
        check_platform(engine_spec(step.engine))
    need = sum(step.disk_bytes for step in steps)
    if not need:
        return
    folder = engines_dir()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < need:
        error = QuantuiError(
            "disk.not-enough",
            f"The engines to install take {format_bytes(need)} on disk; {folder} has {format_bytes(free)} free.",
            "They are " + " and ".join(step.engine for step in steps) + ".",
            "Free space, or put quantui on another disk with QUANTUI_HOME.",
            ExitCode.DOES_NOT_FIT,
        )
        raise told_what_could_go(error, folder, need)


def run_install(
    context: RunContext, step: InstallStep
) -> Generator[RunEvent, None, dict[str, Any]]:
    """Install the engine of ``step``; yields what the install tells, and gives its versions and size.

    Raises what an install raises, and ``run.cancelled``; nothing half made and no process is left in any case.
    """
    told: SimpleQueue[dict[str, Any]] = SimpleQueue()
    stop = threading.Event()
    log = _InstallLog(context, step)
    with ThreadPoolExecutor(1, thread_name_prefix="quantui-install") as pool:
        running = pool.submit(
            install_engine, step.engine, on_event=told.put, cancel=stop, force=step.force
        )
        try:
            while not running.done() or not told.empty():
                try:
                    message = told.get(timeout=_TICK_S)
                except Empty:
                    pass
                else:
                    kind = message.get("type")
                    if kind == "phase":
                        # From here on the log is this install's: an earlier one's was there before.
                        log.begin()
                    if (event := event_of(step.id, kind, message)) is not None:
                        yield event
                yield from log.lines()
                yield from context.samples()
                if context.cancelled():
                    stop.set()
            yield from log.lines(final=True)
        finally:
            stop.set()
    if context.cancelled():
        raise cancelled()
    engine = running.result()
    yield from _differences(step, engine.versions)
    record = store.read_record(store.engine_path(step.engine))
    return {
        "engine": engine.name,
        "python": engine.python,
        "versions": dict(engine.versions),
        "bytes": None if record is None else record.bytes_on_disk,
    }


def _differences(step: InstallStep, real: Mapping[str, str]) -> Iterator[Notice]:
    """A word where the plan was made for other versions than there are now."""
    changed = [
        f"{name} {real.get(name, 'is absent')} (planned: {step.versions.get(name, 'absent')})"
        for name in sorted({*step.versions, *real} - {"python"})
        if step.versions.get(name) != real.get(name)
    ]
    if changed:
        text = f"{step.engine} is not what the plan was made for: {', '.join(changed)}."
        yield Notice(at=time.time(), step=step.id, level="warning", text=text)


class _InstallLog:
    """The install's log, which belongs to the engines, copied into the run's folder as it grows."""

    def __init__(self, context: RunContext, step: InstallStep) -> None:
        self._step = step.id
        self._own = context.folder.log(step.id)
        self._path = engines_dir() / f"{step.engine}.install.log"
        self._tail: LogTail | None = None

    def begin(self) -> None:
        """The log that is there is of this install."""
        self._tail = self._tail or LogTail(self._path)

    def lines(self, *, final: bool = False) -> Iterator[LogLine]:
        """What is new in it."""
        lines = [] if self._tail is None else self._tail.lines(final=final)
        if lines:
            with self._own.open("a", encoding="utf-8") as own:
                own.writelines(f"{line}\n" for line in lines)
        for line in lines:
            yield LogLine(at=time.time(), step=self._step, text=line)
