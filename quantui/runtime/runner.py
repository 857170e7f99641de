"""The runner: does what a plan says, and yields everything that happens.

One iterator serves every face: the wizard's thread worker posts what it yields, headless prints it. It owns the
order and the end: however it ends, no process of the run is left.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quantui import __version__
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.events import (
    Answered,
    Notice,
    RunEvent,
    RunFinished,
    RunStarted,
    StepFailed,
    StepFinished,
    StepStarted,
)
from quantui.domain.formatting import format_seconds
from quantui.domain.plan import (
    CheckStep,
    DownloadStep,
    InstallStep,
    MergeStep,
    QuantizeStep,
    ServeStep,
)
from quantui.domain.plan_summary import plan_summary
from quantui.runtime.artifacts import ArtifactStore
from quantui.runtime.caches.budget import BudgetWatch
from quantui.runtime.install_run import check_installs, needless_installs, run_install
from quantui.runtime.load_record import OUT_OF_MEMORY, keep_load
from quantui.runtime.made_before import made_before
from quantui.runtime.made_hashes import Hashing
from quantui.runtime.measured import measured
from quantui.runtime.merge_run import run_merge
from quantui.runtime.merged_copy import after_quantizing, after_serving, spared_steps
from quantui.runtime.os_errors import os_error
from quantui.runtime.plan_room import check_room, with_what_could_go
from quantui.runtime.quantize_run import run_quantize
from quantui.runtime.recorder import Recorder, RunFolder, clear_abandoned, release
from quantui.runtime.run_context import RunContext
from quantui.runtime.server import (
    Server,
    api_key,
    check_can_serve,
    hold,
    start_server,
    stop_server,
)
from quantui.runtime.worker_run import run_worker

if TYPE_CHECKING:
    import threading
    from collections.abc import Generator, Iterator

    from quantui.domain.plan import Plan, Step

_HINT_S = 0.5
"""The most that a run waits at its end to learn whether the caches are over their budget."""
_LONG_S = 2.0
"""What takes longer at the end of a run is told."""


class Runner:
    """Runs one plan once.

    ``hold_server``: after the check keep serving until cancelled; otherwise stop the server then.
    """

    def __init__(self, plan: Plan, cancel: threading.Event, *, hold_server: bool = True) -> None:
        self.plan = plan
        self.hold_server = hold_server
        self.store = ArtifactStore()
        self.folder = RunFolder.create()
        self.results: dict[str, dict[str, Any]] = {}
        self._context = RunContext(self.folder, cancel)
        self._server: Server | None = None
        self._figures: dict[str, float] = {}
        self._unmerged = False
        self._hashing = Hashing()
        self._budget = BudgetWatch()

    def run(self) -> Iterator[RunEvent]:
        """All events of the run, recorded as they are yielded. The last one is RunFinished.

        Closing the iterator early stops the run as a cancel does.
        """
        recorder = Recorder(self.folder)
        try:
            # Closed here and now, not when the garbage collector comes: it holds processes.
            with contextlib.closing(self._run()) as events:
                for event in events:
                    recorder.write(event)
                    yield event
        finally:
            recorder.close()

    def _run(self) -> Generator[RunEvent, None, None]:
        started = time.monotonic()
        error: QuantuiError | None = None
        yield RunStarted(
            at=time.time(),
            run_id=self.folder.run_id,
            steps=tuple((step.id, step.title) for step in self.plan.steps),
            directory=str(self.folder.path),
            quantui_version=__version__,
            plan=plan_summary(self.plan),
        )
        try:
            for run_id, count in clear_abandoned():
                text = f"Stopped {count} processes that run {run_id} had left behind."
                yield Notice(at=time.time(), level="warning", text=text)
            for text in self.plan.notices:
                yield Notice(at=time.time(), level="info", text=text)
            self._context.start()
            spared = spared_steps(self.plan, self.store)
            spared |= needless_installs(self.plan, self.store, spared)
            # Before the hours a merge may take, not after them.
            check_installs(self.plan, spared)
            check_room(self.plan, spared | made_before(self.plan))
            for step in self.plan.steps:
                if isinstance(step, ServeStep):
                    check_can_serve(step)
            try:
                for step in self.plan.steps:
                    yield from self._spare(step) if step.id in spared else self._step(step)
            except QuantuiError as caught:
                self._keep_load(caught)
                raise
            self._keep_load(None)
            self._budget.begin()
            if self._server is not None and self.hold_server:
                text = f"Serving {self._server.step.served_name} at {self._server.url}/v1 until stopped."
                yield Notice(at=time.time(), level="info", text=text)
                yield from hold(self._context, self._server)
        except QuantuiError as caught:
            error = caught
        except OSError as caught:
            error = os_error(caught)
        finally:
            try:
                # Reached on GeneratorExit too, when nothing may be yielded any more.
                if sys.exc_info()[0] is GeneratorExit:
                    self._hashing.stop()
                    if self._server is not None:
                        self._server.process.close()
                else:
                    yield from self._end(error)
            finally:
                self._hashing.stop()
                self._context.close()
                release(self.folder)
        cancelled = error is not None and error.code == "run.cancelled"
        yield RunFinished(
            at=time.time(),
            outcome="ok" if error is None else "cancelled" if cancelled else "failed",
            exit_code=int(ExitCode.OK if error is None else error.exit_code),
            seconds=time.monotonic() - started,
            error=None if error is None else error.to_dict(),
        )

    def _end(self, error: QuantuiError | None) -> Generator[RunEvent, None, None]:
        """Stop the server, then see to what the run leaves on the disk."""
        if self._server is not None:
            yield from stop_server(self._context, self._server)
        yield from self._finish_hashing(error)
        if error is not None and error.code != "run.cancelled":
            return
        if self._server is not None:
            yield from after_serving(self.plan, self.store, self.folder.run_id)
        if hint := self._budget.hint(_HINT_S):
            yield Notice(at=time.time(), level="info", text=f"{hint}.")

    def _spare(self, step: Step) -> Iterator[RunEvent]:
        yield StepFinished(at=time.time(), step=step.id, seconds=0.0, result={"needless": True})

    def _step(self, step: Step) -> Iterator[RunEvent]:
        started = time.monotonic()
        try:
            if isinstance(step, InstallStep):
                yield StepStarted(at=time.time(), step=step.id)
                result = yield from run_install(self._context, step)
            elif isinstance(step, DownloadStep):
                yield StepStarted(at=time.time(), step=step.id)
                result = yield from run_worker(self._context, step.id, step.argv, step.job)
            elif isinstance(step, MergeStep):
                result = yield from run_merge(self._context, step, self.store)
                self._unmerged = bool(result.get("unmerged"))
            elif isinstance(step, QuantizeStep):
                result = yield from run_quantize(self._context, step, self.store)
            elif isinstance(step, ServeStep):
                yield StepStarted(at=time.time(), step=step.id, detail=self.plan.engine.python)
                self._server = yield from start_server(
                    self._context, step, unmerged=self._unmerged, figures=self._figures
                )
                result = dict(self._server.figures)
            else:
                yield StepStarted(at=time.time(), step=step.id)
                result = yield from self._check(step)
        except (QuantuiError, OSError) as caught:
            error = os_error(caught) if isinstance(caught, OSError) else caught
            error = with_what_could_go(error, step)
            yield StepFailed(at=time.time(), step=step.id, error=error.to_dict(), final=True)
            raise error from None
        self.results[step.id] = result
        seconds = time.monotonic() - started
        yield StepFinished(at=time.time(), step=step.id, seconds=seconds, result=result)
        if isinstance(step, QuantizeStep):
            # The merged model may go now.
            self._hashing.stop()
            yield from after_quantizing(self.plan, self.store, self.folder.run_id)
        doomed = self.plan.draft.cleanup.after_run == "delete-merged" and step.kind == "merge"
        if isinstance(step, MergeStep | QuantizeStep) and "path" in result and not doomed:
            self._hashing.begin(Path(result["path"]), seconds)

    def _check(self, step: CheckStep) -> Generator[RunEvent, None, dict[str, Any]]:
        server = self._server
        assert server is not None
        job = {
            "url": server.url,
            "model": server.step.served_name,
            "prompt": step.prompt,
            "max_tokens": step.max_tokens,
            "text": None if step.text is None else str(Path(step.text).expanduser().absolute()),
            "max_perplexity": step.max_perplexity,
        }
        environment = {}
        if server.step.api_key_env:
            environment["VLLM_API_KEY"] = api_key(server.step)
        worker = Path(__file__).parent.parent / "engines" / "workers" / "check_endpoint.py"
        result = yield from run_worker(
            self._context, step.id, (sys.executable, str(worker)), job, env=environment
        )
        answer = result["answer"]
        yield Answered(
            at=time.time(),
            prompt=step.prompt,
            text=answer["text"],
            tokens=answer["tokens"],
            seconds=answer["seconds"],
        )
        tree = self._context.server_tree_bytes if self.plan.engine.on_cpu else 0
        yield from measured(self.plan.estimate, server.figures, result, tree_bytes=tree)
        return result

    def _keep_load(self, error: QuantuiError | None) -> None:
        """What the load took teaches the next estimate, also when the model did not fit."""
        expected = self.plan.expectation
        if expected is None or self._unmerged:
            # With the adapter beside its base another thing is served than was estimated.
            return
        if error is not None and error.code in OUT_OF_MEMORY:
            keep_load(expected, self._context, self._figures, "out-of-memory")
        elif self._server is not None:
            keep_load(
                expected,
                self._context,
                self._figures,
                "ok",
                load_seconds=self._server.load_seconds,
                checked=self.results.get("check"),
            )

    def _finish_hashing(self, error: QuantuiError | None) -> Iterator[RunEvent]:
        """Let what was made get the rest of its hashes where that is short; not after a failure or a cancel."""
        left = self._hashing.left_s
        if error is None and left > _LONG_S:
            text = (
                "Hashing what was made, so that `quantui cache verify` can check it later: at most "
                f"{format_seconds(left)}."
            )
            yield Notice(at=time.time(), level="info", text=text)
        if error is None:
            self._hashing.finish(self._context.cancelled)
        else:
            self._hashing.stop()
