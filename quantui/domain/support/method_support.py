"""Whether a method can run on given devices with a given vLLM, and how; refusals in that machine's terms.

Rules are vLLM 0.32's; where an older version differs, the rule names the version. A fact that is unknown
(a GPU's compute capability, a model's heads) gives a caution, never a refusal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from quantui.domain.methods import method as method_named
from quantui.domain.support.method_devices import device_findings
from quantui.domain.support.method_engines import engine_findings
from quantui.domain.support.method_findings import (
    CATALOGUE_VLLM,
    Case,
    Finding,
    Refused,
    dotted,
)
from quantui.domain.support.method_formats import field_findings, stored_candidates
from quantui.domain.support.method_splits import split_findings
from quantui.domain.versions import version_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.hardware import Gpu
    from quantui.domain.methods import Method

How = Literal["native", "weight-only", "none"]
"""native: computed in the method's own widths (for weight-only methods, with their kernels); weight-only: stored so
and computed in 16 bit because a device lacks the units; none: not at all."""


@dataclass(frozen=True)
class Support:
    """What :func:`support` finds.

    ``reasons`` are refusals in this machine's terms, empty when ``supported``; ``cautions`` do not refuse.
    ``refused`` holds the reasons with why and fix. ``dtype`` is what ``--dtype`` has to be for it to work, None
    where the model's own will do; ``eager`` that vLLM runs it without CUDA graphs.
    """

    supported: bool
    how: How = "native"
    reasons: tuple[str, ...] = ()
    cautions: tuple[str, ...] = ()
    dtype: str | None = None
    eager: bool = False
    refused: tuple[Refused, ...] = ()


def support(
    method: Method | str,
    *,
    gpus: Sequence[Gpu] = (),
    on_cpu: bool = False,
    shape: ModelShape | None = None,
    dtype: str | None = "auto",
    tensor_parallel: int = 1,
    pipeline_parallel: int = 1,
    vllm_version: str | None = None,
    capabilities: Collection[str] | None = None,
    packages: Collection[str] | None = None,
    stored_as: str | None = None,
    config: Mapping[str, Any] | None = None,
    cpu_flags: Collection[str] | None = None,
) -> Support:
    """Whether ``method`` works on all of ``gpus`` (or the CPU) with a vLLM of ``vllm_version``.

    ``capabilities`` are the quantization names that the engine registers, ``packages`` the distributions in it; None:
    not asked. ``stored_as`` is what the checkpoint is quantized with, by the catalogue's name or as its
    ``quant_method``; None: it is in 16 bit, or is still to be made; ``config`` is then its config.json, if at hand.
    ``dtype`` is vLLM's ``--dtype``, ``cpu_flags`` the host's instruction sets as the probe names them ("amx_tile").
    """
    chosen = method_named(method) if isinstance(method, str) else method
    case = Case(
        method=chosen,
        gpus=() if on_cpu else tuple(gpus),
        on_cpu=on_cpu,
        shape=shape,
        dtype=dtype or "auto",
        tensor_parallel=tensor_parallel,
        pipeline_parallel=pipeline_parallel,
        version=version_numbers(vllm_version),
        capabilities=capabilities,
        packages=packages,
        stored_as=stored_as,
        cpu_flags=cpu_flags,
    )
    findings: tuple[Finding, ...] = tuple(_findings(case))
    if config is not None and stored_as is not None:
        findings += tuple(field_findings(config, on_cpu=on_cpu, version=case.version))
    refused = tuple(found for found in findings if isinstance(found, Refused))
    cautions = dict.fromkeys(found.text for found in findings if not isinstance(found, Refused))
    wanted = next((found.dtype for found in findings if found.dtype), None)
    lowered = any(found.weight_only for found in findings)
    return Support(
        supported=not refused,
        how="none" if refused else "weight-only" if lowered else "native",
        reasons=tuple(dict.fromkeys(found.text for found in refused)),
        cautions=tuple(cautions),
        dtype=None if refused else wanted,
        eager=any(found.eager for found in findings),
        refused=refused,
    )


def _findings(case: Case) -> Iterator[Finding]:
    if case.stored_as is None:
        yield from _of(case)
        return
    read = stored_candidates(case.stored_as, case.shape)
    if case.method.name == "none":
        if not read:
            yield from _unknown_format(case)
        elif len({one.family for one in read}) > 1:
            yield Finding(
                f"The checkpoint's scheme within {case.stored_as[:40]} is not known: "
                "what it needs could not be checked."
            )
            yield from _of(case)
        else:
            # What runs is the checkpoint's own format.
            yield from _of(case.with_method(read[0]))
    elif case.method in read:
        yield from _of(case)
    elif any(case.method.argument in one.vllm_names for one in read):
        # The same name to vLLM, which finds the rest in the checkpoint.
        yield from _of(case.with_method(read[0]))
    else:
        yield Refused(
            f"The checkpoint is already quantized ({case.stored_as[:40]}).",
            why=f"vLLM cannot apply {case.method.title} on top of it.",
            fix='Set quantization.method = "none" to serve it as it is, or give the 16-bit model.',
        )


def _unknown_format(case: Case) -> Iterator[Finding]:
    name = (case.stored_as or "")[:40]
    if case.capabilities is not None and case.stored_as not in case.capabilities:
        yield Refused(
            f"This engine's vLLM does not read checkpoints quantized with {name}.",
            why=f"It registers {', '.join(sorted(case.capabilities))}.",
            fix="Give the 16-bit model, or a variant in a format that it reads.",
        )
    elif case.capabilities is None and name and case.version[:2] <= CATALOGUE_VLLM:
        yield Refused(
            "The checkpoint does not name its quant_method: vLLM cannot know its format."
            if name == "unknown"
            else f"vLLM {dotted(case.version)} does not read checkpoints quantized with {name}.",
            why="vLLM refuses a quant_method that neither it nor a plugin registers (config/model.py, "
            "_verify_quantization).",
            fix="Give the 16-bit model, or a variant in a format that it reads.",
        )
    else:
        yield Finding(f"The catalogue does not know the format {name}: what it needs is unknown.")
    yield from _of(case)


def _of(case: Case) -> Iterator[Finding]:
    yield from engine_findings(case)
    yield from device_findings(case)
    yield from split_findings(case)
