"""What the checks of :mod:`quantui.domain.support.method_support` are asked, and how they answer."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.versions import CURRENT_VLLM, version_numbers

if TYPE_CHECKING:
    from collections.abc import Collection

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.hardware import Gpu
    from quantui.domain.methods import Method, Version

CATALOGUE_VLLM = version_numbers(CURRENT_VLLM)
"""The version of vLLM that the catalogue describes, and that an unknown version is taken for."""


@dataclass(frozen=True)
class Finding:
    """A caution: something that does not stop it. ``weight_only``, ``dtype``, ``eager``: how it runs."""

    text: str
    weight_only: bool = False
    dtype: str | None = None
    eager: bool = False


@dataclass(frozen=True)
class Refused(Finding):
    """Why it cannot work here: ``text`` says what, ``why`` where that is known from, ``fix`` what would."""

    why: str = ""
    fix: str = ""
    code: str = "method.unsupported"


@dataclass(frozen=True)
class Case:
    """One question; the fields are the arguments of :func:`quantui.domain.support.method_support.support`."""

    method: Method
    gpus: tuple[Gpu, ...]
    on_cpu: bool
    shape: ModelShape | None
    dtype: str
    tensor_parallel: int
    pipeline_parallel: int
    version: Version
    capabilities: Collection[str] | None
    packages: Collection[str] | None
    stored_as: str | None
    cpu_flags: Collection[str] | None = None

    def with_method(self, other: Method) -> Case:
        """The same question about another method."""
        return replace(self, method=other)


def dotted(version: Version) -> str:
    """A version as it is written."""
    return ".".join(map(str, version))


def called(gpu: Gpu) -> str:
    """A GPU as refusals name it."""
    return f"GPU {gpu.index} ({gpu.name or 'unknown'})"
