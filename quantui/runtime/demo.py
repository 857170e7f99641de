"""The demo's model: made once by a worker, then found again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003 - read at run time by dataclasses
from typing import TYPE_CHECKING, Any

from quantui import __version__
from quantui.domain.errors import QuantuiError
from quantui.domain.events import (
    RunEvent,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    StepStarted,
)
from quantui.runtime.paths import home
from quantui.runtime.recorder import Recorder, RunFolder, release
from quantui.runtime.resolve import WORKERS
from quantui.runtime.run_context import RunContext
from quantui.runtime.worker_run import run_worker

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator

_STEP = "make-demo"


@dataclass(frozen=True)
class DemoModel:
    """A small base model, a LoRA adapter for it, and what was measured while making them."""

    path: Path
    facts: dict[str, Any]

    @property
    def base(self) -> Path:
        """The base checkpoint."""
        return self.path / "base"

    @property
    def adapter(self) -> Path:
        """The adapter."""
        return self.path / "adapter"


def demo_folder() -> Path:
    """Where the demo's model is, or would be: named by a hash of the programs that make it."""
    digest = hashlib.sha256()
    sources = [WORKERS / "make_demo.py", *sorted((WORKERS / "demo_model").glob("*.py"))]
    for source in sources:
        digest.update(source.read_bytes())
    return home() / "demo" / digest.hexdigest()[:12]


def find_demo() -> DemoModel | None:
    """The demo's model if it was made; its folder appears whole or not at all."""
    path = demo_folder()
    try:
        return DemoModel(path, json.loads((path / "demo.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def make_demo(python: str, cancel: threading.Event) -> Iterator[RunEvent]:
    """Make the demo's model with an engine's interpreter; events as those of a run."""
    folder = RunFolder.create()
    recorder = Recorder(folder)
    started = time.monotonic()
    try:
        with contextlib.closing(_make(python, folder, cancel, started)) as events:
            for event in events:
                recorder.write(event)
                yield event
    finally:
        recorder.close()
        release(folder)


def _make(
    python: str, folder: RunFolder, cancel: threading.Event, started: float
) -> Generator[RunEvent, None, None]:
    title = "train a small model and a LoRA adapter (once, two to three minutes on 2 cores)"
    yield RunStarted(
        at=time.time(),
        run_id=folder.run_id,
        steps=((_STEP, title),),
        directory=str(folder.path),
        quantui_version=__version__,
    )
    yield StepStarted(at=time.time(), step=_STEP)
    context = RunContext(folder, cancel)
    context.start()
    error: QuantuiError | None = None
    try:
        argv = (python, str(WORKERS / "make_demo.py"))
        result = yield from run_worker(context, _STEP, argv, {"out": str(demo_folder())})
    except QuantuiError as caught:
        error = caught
        yield StepFailed(at=time.time(), step=_STEP, error=caught.to_dict(), final=True)
    else:
        seconds = time.monotonic() - started
        yield StepFinished(at=time.time(), step=_STEP, seconds=seconds, result=result)
    finally:
        context.close()
    cancelled = error is not None and error.code == "run.cancelled"
    yield RunFinished(
        at=time.time(),
        outcome="ok" if error is None else "cancelled" if cancelled else "failed",
        exit_code=0 if error is None else int(error.exit_code),
        seconds=time.monotonic() - started,
        error=None if error is None else error.to_dict(),
    )
