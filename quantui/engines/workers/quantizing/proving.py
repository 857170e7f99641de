"""The frame of every proof that a checkpoint loads: what to measure, and what counts as broken."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import child_worker
import quantui_wire as wire

from quantizing import held_out, reference
from quantizing.job import ModelJob

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantizing.held_out import HeldOut, Perplexity
    from quantizing.reference import Reference

TOKENS = 4096
"""Held-out tokens measured unless the job says otherwise."""

INSIDE = "inside"
"""Set in the job of the process that loads the model."""


@dataclass(frozen=True)
class Question:
    """What the runtime is asked: windows of token ids, and the prompts of the reference if there is one."""

    model: ModelJob
    held_out: HeldOut
    windows: list[list[int]]
    reference: Reference | None

    @property
    def prompts(self) -> list[list[int]]:
        """Token ids of the prompts whose answers are known."""
        return [ids.tolist() for ids in self.reference.prompts] if self.reference else []


def in_a_child(job: Mapping[str, Any], program: str) -> dict[str, Any]:
    """The result of ``program`` for ``job``, in a process of its own.

    A kernel that the machine has not, or that meets sizes it was not made for, ends the process that runs
    it: that too is a checkpoint that does not load.

    Raises:
        WorkerError: ``prove.does-not-load`` (exit code 6), and the child's own errors.
    """
    try:
        return child_worker.run_child(program, {**job, INSIDE: True})
    except wire.WorkerError as error:
        code, why = str(error.event["code"]), str(error.event["why"])
        if code != "worker.died" or why.startswith(f"Signal {signal.SIGKILL.value} "):
            raise
        raise does_not_load(job["model"], f"The process that loaded it died. {why}") from error


def question(job: Mapping[str, Any]) -> Question:
    """What ``job`` asks for.

    Raises:
        WorkerError: ``quantize.bad-reference``, ``quantize.no-tokenizer`` and those of ``held_out``.
    """
    from quantizing import models

    model = ModelJob.read(job)
    known = reference.read(Path(job["reference"])) if job.get("reference") else None
    tokens = int(job.get("tokens") or TOKENS)
    text = job.get("text")
    if known is not None and known.held_out.text == (text or held_out.BUILT_IN):
        text_ids = known.held_out
    else:
        text_ids = held_out.held_out(model.model, models.load_tokenizer(model), text, tokens)
    return Question(model, text_ids, text_ids.windows(tokens), known)


def refuse_broken(job: Mapping[str, Any], measured: Perplexity) -> None:
    """Raise ``prove.not-finite`` when a log-likelihood is no number."""
    if not measured.finite:
        raise wire.WorkerError(
            "prove.not-finite",
            f"{job['model']} loads, and answers with NaN or infinity.",
            "Quantizing it went wrong: a scale of zero, or values that this dtype cannot hold.",
            "Quantize it another way; the log of the producer may tell more.",
            exit_code=6,
        )


def does_not_load(model: object, why: str, detail: tuple[str, ...] = ()) -> wire.WorkerError:
    """The error of a checkpoint that the runtime does not take."""
    return wire.WorkerError(
        "prove.does-not-load",
        f"{model} was written, and does not load.",
        why,
        "Choose another method or producer for this model; the log has all of it.",
        exit_code=6,
        detail=detail,
    )


def cause(error: BaseException) -> str:
    """The innermost exception in one line, as ``Type: message``."""
    seen = {id(error)}
    while (inner := error.__cause__ or error.__context__) is not None and id(inner) not in seen:
        seen.add(id(inner))
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:400]
