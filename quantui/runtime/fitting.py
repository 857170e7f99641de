"""``quantui fit`` without its printing: one method, one request, on the best of the devices there are."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from quantui import __version__
from quantui.domain.choosing import answer_documents as documents
from quantui.domain.choosing.adapter_advice import lora_rank
from quantui.domain.described_sizes import ASSUMED_FREE
from quantui.domain.fitting.fit import Fit, FitRequest, LoraSlots, fit
from quantui.domain.fitting.placement import check_indices, devices_for, placements, slots_for
from quantui.domain.formatting import gpu_numbers
from quantui.domain.hardware_checks import min_compute_capability
from quantui.domain.support.method_formats import stored_candidates
from quantui.domain.support.method_support import Support, support
from quantui.domain.versions import version_numbers
from quantui.runtime.learned import correction

if TYPE_CHECKING:
    from quantui.domain.choosing.layouts import Layout, Slot
    from quantui.domain.hardware import Gpu, HardwareReport
    from quantui.domain.methods import Method
    from quantui.runtime.subject import Subject

FROM_TABLE = "hardware.from-table"
_ORDER = ("fits", "tight", "does not fit", "unsupported")


@dataclass(frozen=True)
class FitAnswer:
    """The answer, with all it was made from. ``layout``: the devices that were counted with."""

    subject: Subject
    method: Method
    request: FitRequest
    layout: Layout
    fit: Fit
    support: Support
    lacking: str = ""
    """Why there are not enough devices; "" when there are."""
    useless: bool = False
    """vLLM can use none of the devices, whatever the method."""
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> str:
        """``fits``, ``tight``, ``does not fit`` or ``unsupported``."""
        unsupported = self.lacking or not self.support.supported
        return "unsupported" if unsupported else self.fit.verdict

    @property
    def reasons(self) -> tuple[str, ...]:
        """What the verdict rests on."""
        refused = self.support.reasons
        if self.lacking and (not refused or not self.useless):
            refused = (self.lacking, *refused)
        return refused or self.fit.reasons

    @property
    def change(self) -> tuple[str, str] | None:
        """The smallest change that helps: the option to give, "" where it is none of `fit`'s, and what it means."""
        if self.verdict == "unsupported":
            if self.lacking:
                return None
            fixes = [refused.fix for refused in self.support.refused if refused.fix]
            if fixes:
                return "", _in_options(fixes[0])
        change = self.fit.smallest_change
        return None if change is None else (f"{change.option} {change.value}".strip(), change.text)

    @property
    def on_cpu(self) -> bool:
        """Whether vLLM's CPU engine serves, from the RAM."""
        return self.layout.on_cpu

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that were counted with, MIG slices standing for themselves."""
        return self.layout.gpus

    @property
    def cautions(self) -> tuple[str, ...]:
        """What to mind though it is supported."""
        return self.support.cautions

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, which the README documents."""
        subject, request, found = self.subject, self.request, self.fit
        change = self.change
        return {
            "schema": documents.SCHEMA,
            "quantui_version": __version__,
            "model": documents.model_part(subject.model, subject.shape),
            "adapter": documents.adapter_part(subject.adapter),
            "method": self.method.name,
            "method_title": self.method.title,
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "cautions": list(self.cautions),
            "smallest_change": None
            if change is None
            else {"option": change[0] or None, "text": change[1]},
            **documents.memory_part(found),
            "max_context": found.max_context,
            "safe_context": found.safe_context,
            "context": request.context,
            "max_model_len": found.max_model_len,
            "users": request.users,
            "max_users": found.users,
            "missing_bytes": found.missing_bytes,
            "tensor_parallel": request.tensor_parallel,
            "pipeline_parallel": request.pipeline_parallel,
            "max_num_seqs": found.max_num_seqs,
            "max_num_batched_tokens": found.max_num_batched_tokens,
            "kv_dtype": request.kv_dtype,
            "dtype": request.dtype,
            "eager": request.eager,
            "gpus": [gpu.index for gpu in self.gpus],
            "on_cpu": self.on_cpu,
            "vllm_version": subject.engine.version,
            "vllm_version_origin": subject.engine.origin,
            "hardware": documents.hardware_part(subject.hardware, self.gpus, subject.described_by),
            "notes": list(self.notes),
        }


def fit_here(
    subject: Subject, method: Method, request: FitRequest, gpus: tuple[int, ...] | None = None
) -> FitAnswer:
    """Whether ``request`` can be served with ``method`` on the subject's machine.

    ``gpus``: the only ones that may be used, by index; empty: the CPU; None: those that vLLM would see. Of
    several ways to take as many as the request spreads over, the one that holds most is told. An adapter of
    the subject is served beside the model. Raises ``hardware.no-such-gpu`` (exit code 3).
    """
    report = subject.hardware
    check_indices(report, gpus)
    request = replace(request, vllm_version=subject.engine.version)
    if subject.adapter is not None and request.lora_slots is None:
        rank = lora_rank((subject.adapter,)) or subject.adapter.rank or 16
        request = replace(request, lora_slots=LoraSlots(1, rank))
    method, stored = _as_stored(method, subject)
    lowest = min_compute_capability(version_numbers(subject.engine.version))
    slots, notes, useless = slots_for(report, gpus, lowest)
    found = [
        _answer(subject, method, request, layout, slots, useless or lacking)
        for layout, lacking in placements(slots, request)
    ]
    best = min(found, key=_rank)
    shape_notes = (*stored, *subject.notes, *subject.shape.notes)
    return replace(
        best,
        useless=bool(useless),
        notes=(*(() if useless else notes), *filled_in(report), *shape_notes),
    )


def _as_stored(method: Method, subject: Subject) -> tuple[Method, tuple[str, ...]]:
    """The method that the checkpoint is stored in, where that is what is meant, and a note that says so.

    People call a format by its algorithm, its family or its file format: an AWQ model that llm-compressor wrote is
    stored in compressed-tensors, "fp8" may be any of its kinds.
    """
    name = subject.shape.quantization
    read = () if name is None or method.name == "none" else stored_candidates(name, subject.shape)
    if not read or method in read:
        return method, ()
    first = read[0]
    alike = (first.weight_bits, first.activation_bits) == (
        method.weight_bits,
        method.activation_bits,
    )
    if (
        name in method.vllm_names
        or method.family == first.family
        or (alike and not method.in_flight)
    ):
        return first, (f"The checkpoint is stored in {name}: it is served, and counted, as that.",)
    return method, ()


def filled_in(report: HardwareReport) -> tuple[str, ...]:
    """What the description of a machine left out and what was taken for it, equal GPUs together."""
    said: dict[str, list[int]] = {}
    for gpu in report.gpus:
        for problem in gpu.problems:
            if problem.code in (FROM_TABLE, ASSUMED_FREE):
                text = problem.what.removeprefix(f"GPU {gpu.index}: ")
                said.setdefault(text, []).append(gpu.index)
    lines = [f"{gpu_numbers(indices)}: {text}" for text, indices in said.items()]
    if not report.gpus:
        lines += [one.what for one in report.problems if one.code == ASSUMED_FREE]
    return tuple(lines)


def _answer(
    subject: Subject,
    method: Method,
    request: FitRequest,
    layout: Layout,
    slots: tuple[Slot, ...],
    lacking: str,
) -> FitAnswer:
    capabilities = subject.engine.capabilities
    names = None if capabilities is None else {one.name for one in capabilities.methods}
    able = support(
        method,
        gpus=layout.gpus,
        on_cpu=layout.on_cpu,
        shape=subject.shape,
        dtype=request.dtype,
        tensor_parallel=request.tensor_parallel,
        pipeline_parallel=request.pipeline_parallel,
        vllm_version=subject.engine.version,
        capabilities=names,
        packages=subject.engine.packages,
        stored_as=subject.shape.quantization,
        config=subject.model.config,
        cpu_flags=subject.hardware.host.cpu_flags,
    )
    if request.dtype == "auto" and able.dtype:
        request = replace(request, dtype=able.dtype)
    request = replace(request, eager=request.eager or able.eager)
    found = fit(
        subject.shape,
        subject.census,
        method,
        devices_for(layout, slots, subject.hardware),
        request,
        calibration=correction(
            subject,
            method.name,
            layout.gpus,
            tensor_parallel=request.tensor_parallel,
            pipeline_parallel=request.pipeline_parallel,
        ),
        stored_bytes=subject.model.weight_bytes,
        suggest=able.supported and not lacking,
    )
    return FitAnswer(subject, method, request, layout, found, able, lacking)


def _in_options(fix: str) -> str:
    """A fix that is told in a profile's keys, in the command's options."""
    fix = re.sub(r"[Ss]et serve\.(dtype|tensor_parallel) = \"?(\w+)\"?", _option, fix)
    return fix.replace("serve.visible_devices", "--gpus")


def _option(key: re.Match[str]) -> str:
    name = "--tp" if key[1] == "tensor_parallel" else f"--{key[1]}"
    verb = "Add" if key[0][0] == "S" else "add"
    return f"{verb} {name} {key[2]}"


def _rank(answer: FitAnswer) -> tuple[int, int]:
    """The best first: by verdict, then by the context that it leaves room for."""
    return _ORDER.index(answer.verdict), -(answer.fit.max_context or 0)
