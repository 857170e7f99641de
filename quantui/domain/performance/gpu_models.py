"""What a card can do, found by its name in ``data/gpus.toml``.

A name is what NVML, ``nvidia-smi``, a cloud or a person writes ("NVIDIA A100-SXM4-80GB", "Tesla T4", "RTX 3060 12 GB").
It is cut into words; what is left after brand, size and form must be a product's own words exactly, so that a
newer card is unknown and never taken for its older namesake.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

from quantui.domain.hardware import Gpu, HardwareReport, MigSlice, Problem
from quantui.domain.performance.gpu_table import GpuModel, Row, table
from quantui.domain.units import GIB

__all__ = ["GpuModel", "fill_in", "gpu_model"]

_MIG_USABLE = 0.95
"""Of a MIG profile's nominal size: nvidia-smi shows 4864 MiB for 1g.5gb and 9728 MiB for 1g.10gb (NVIDIA MIG guide)."""
_LEAST_SHARE, _MOST_SHARE = 0.85, 1.04
"""A total between these parts of the marketed GiB is that size: a T4 of 16 shows 14.6 to CUDA, 80 GB is 74.5 GiB."""
_NOISE = re.compile(
    r"nvidia|tesla|geforce|gpus?|graphics|card|generation|edition|tensor|core|accelerator|corporation|with|design|"
    r"vram|memory|gddr\d\w?|hbm2e?|hbm3e|founders|superchip|grace|hopper|module|server|workstation|developer|kit|"
    r"mig|ac|\d+x"
)
"""Words that do not tell products apart: brands, editions, kinds of memory, "8x"."""
_FORMS = {
    "pcie": "pcie",
    "nvl": "nvl",
    "laptop": "laptop",
    "mobile": "laptop",
    "notebook": "laptop",
}
_WORD = re.compile(r"[a-z0-9.+]+|/")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)(gb|gib|g)")
_PROFILE = re.compile(r"(?:(\d)c\.)?(\d)g\.(\d+)gb(?:\+\S+)?")


class _Asked(NamedTuple):
    """What a name says: the product's words, its form and size, and the MIG profile."""

    words: tuple[str, ...]
    plain: tuple[str, ...]
    form: str
    memory_gb: float | None
    profile: re.Match[str] | None


@lru_cache(maxsize=512)
def gpu_model(
    name: str | None,
    *,
    compute_capability: tuple[int, int] | None = None,
    total_bytes: int | None = None,
    mig_profile: str | None = None,
) -> GpuModel | None:
    """The card called ``name``, or None when it is unknown, ambiguous or contradicted by the other facts.

    ``total_bytes`` and ``compute_capability`` choose between cards of one name (an RTX 3060 of 8 and of 12 GB). A
    total above every size of the product is believed (some cards have been rebuilt with more memory); one below all
    of them means a part of a card whose share is unknown: None. A MIG profile, in the name or as ``mig_profile``,
    scales the parent: arithmetic by its compute slices, bandwidth by its memory slices (NVIDIA MIG user guide).
    ``total_bytes`` is the parent's, or the slice's where the name holds the profile: it then chooses nothing.
    """
    if not name:
        return None
    asked = _asked(name)
    profile = asked.profile
    if mig_profile and profile is None:
        profile = _PROFILE.fullmatch(mig_profile.casefold())
        if profile is None:
            return None
    rows, exact = _rows(asked)
    if compute_capability is not None:
        rows = [row for row in rows if row.model.compute_capability == compute_capability]
    if len({row.product for row in rows}) != 1:
        return None
    if asked.form:
        rows = [row for row in rows if row.form == asked.form] or _if_formless(rows, asked.form)
    size = int(asked.memory_gb * GIB) if asked.memory_gb and not exact else None
    if total_bytes is not None and asked.profile is None:
        size = total_bytes
    rebuilt = False
    if size is not None and rows:
        rows, rebuilt = _of_size(rows, size)
    elif not asked.form and any(row.form != "laptop" for row in rows):
        rows = [row for row in rows if row.form != "laptop"]
    if not rows:
        return None
    found = _least(rows)
    if profile is not None:
        return _slice_of(found, rows, profile)
    if rebuilt:
        note = "more memory than the product was sold with"
        return replace(found, memory_bytes=size, least_memory_bytes=size or 0, note=note)
    return found


def fill_in(report: HardwareReport) -> HardwareReport:
    """A described machine with what the names of its cards imply: compute capability and total memory.

    Only unknown fields are filled, free memory never; of a name that was sold with several sizes the least is taken.
    Each card that gets a fact carries a note (``hardware.from-table``) that says which and from where.
    """
    gpus = tuple(_filled(gpu) for gpu in report.gpus)
    return report if gpus == report.gpus else replace(report, gpus=gpus)


def _filled(gpu: Gpu) -> Gpu:
    capability, total = gpu.compute_capability, gpu.total_bytes
    model = gpu_model(gpu.name, compute_capability=capability, total_bytes=total)
    if model is None and total is not None:
        model = gpu_model(gpu.name, compute_capability=capability)  # of a part: what it can run
    if model is None:
        return gpu
    facts: dict[str, Any] = {}
    said = []
    if gpu.compute_capability is None:
        facts["compute_capability"] = model.compute_capability
        said.append("compute capability {}.{}".format(*model.compute_capability))
    if gpu.total_bytes is None:
        facts["total_bytes"] = model.least_memory_bytes
        least = "" if model.memory_bytes else ", the least of its sizes"
        said.append(f"{model.least_memory_bytes / GIB:.1f} GiB in all{least}")
    if gpu.unified_memory is None and model.unified_memory:
        facts["unified_memory"] = True
        said.append("memory shared with the host")
    slices = tuple(map(_filled_slice, gpu.mig or ()))
    if slices != (gpu.mig or ()):
        facts["mig"] = slices
        said.append("the sizes of its MIG slices")
    if not facts:
        return gpu
    what = f"GPU {gpu.index}: {', '.join(said)}, from the table of cards ({model.name})."
    note = Problem("hardware.from-table", what, model.note or model.source, severity="note")
    return replace(gpu, **facts, problems=(*gpu.problems, note))


def _filled_slice(part: MigSlice) -> MigSlice:
    profile = _PROFILE.fullmatch((part.profile or "").casefold())
    if part.total_bytes is not None or profile is None:
        return part
    return replace(part, total_bytes=_slice_bytes(profile))


def _slice_bytes(profile: re.Match[str]) -> int:
    return int(int(profile[3]) * GIB * _MIG_USABLE)


def _asked(name: str) -> _Asked:
    text = re.sub(r"\((?:r|tm)\)|[®™]", " ", name.casefold()).replace("max-q", "maxq")
    text = re.sub(r"\b(rtx|gtx)(?=\d)", r"\1 ", text)
    text = re.sub(r"(?<=\d)(ti|super)\b", r" \1", text)
    text = re.sub(r"(?<=\d) (gb|gib)\b", r"\1", text)
    words: list[str] = []
    plain: list[str] = []
    form, memory, profile = "", None, None
    for word in _WORD.findall(text):
        size = _SIZE.fullmatch(word)
        if found := _PROFILE.fullmatch(word):
            profile = found
        elif word in _FORMS or re.fullmatch(r"sxm\d?", word):
            form = _FORMS.get(word, "sxm")
        elif word == "hbm3":
            form = form or "hbm3"
        elif not _NOISE.fullmatch(word):
            plain.append(word)
            if size is None:
                words.append(word)
            else:
                memory = float(size[1])
    return _Asked(tuple(words), tuple(plain), form, memory, profile)


def _rows(asked: _Asked) -> tuple[list[Row], bool]:
    """The rows that the words name, and whether they name one exactly, its size included."""
    named, exact = table()
    if found := exact.get(" ".join(asked.plain)):
        return found, True
    phrase = " ".join(asked.words)
    if phrase in named:
        return named[phrase], False
    if asked.words and asked.words[-1] == "maxq":
        rows = named.get(" ".join(asked.words[:-1]), [])
        return [row for row in rows if row.form == "laptop"], False
    return [], False


def _if_formless(rows: list[Row], form: str) -> list[Row]:
    """Rows for a form that the table does not distinguish; HBM3 is what the SXM form of an H100 or H800 has."""
    if form == "hbm3":
        return [row for row in rows if row.form == "sxm"] or rows
    return [row for row in rows if not row.form] if form != "laptop" else []


def _of_size(rows: list[Row], size: int) -> tuple[list[Row], bool]:
    """The rows whose memory is nearest ``size``, and whether it is more than any of them has."""

    def near(candidates: list[Row]) -> list[Row]:
        fitting = [
            row for row in candidates if _LEAST_SHARE <= size / (row.memory_gb * GIB) <= _MOST_SHARE
        ]
        if not fitting:
            return []
        best = min(abs(size - (row.model.memory_bytes or 0)) for row in fitting)
        chosen = next(r for r in fitting if abs(size - (r.model.memory_bytes or 0)) == best)
        return [row for row in fitting if row.memory_gb == chosen.memory_gb]

    desktop = [row for row in rows if row.form != "laptop"]
    found = near(desktop) or near(rows)
    if found:
        return found, False
    bare = desktop or rows
    if size > max(row.memory_gb for row in bare) * GIB * _MOST_SHARE:
        return bare, True
    return [], False


def _least(rows: list[Row]) -> GpuModel:
    """One model for rows of one product that the name does not tell apart."""
    if len(rows) == 1:
        return rows[0].model
    models = [row.model for row in rows]
    sizes = {row.memory_gb for row in rows}

    def least(field: str) -> Any:  # noqa: ANN401 - a figure or None
        figures = [getattr(model, field) for model in models]
        return None if None in figures else min(figures)

    product = rows[0].product
    known = f" {rows[0].memory_gb} GB" if len(sizes) == 1 else ""
    return replace(
        models[0],
        name=product + known,
        memory_bytes=least("memory_bytes") if len(sizes) == 1 else None,
        least_memory_bytes=least("least_memory_bytes"),
        bandwidth_bytes_per_s=least("bandwidth_bytes_per_s"),
        tflops_16bit=least("tflops_16bit"),
        tflops_int8=least("tflops_int8"),
        tflops_fp8=least("tflops_fp8"),
        tflops_4bit=least("tflops_4bit"),
        nvlink_bytes_per_s=least("nvlink_bytes_per_s"),
        nvlink_bridge=any(model.nvlink_bridge for model in models),
        note=f"{' or '.join(model.name for model in models)}: each figure is the least of theirs",
    )


def _slice_of(parent: GpuModel, rows: list[Row], profile: re.Match[str]) -> GpuModel | None:
    """The MIG slice of ``parent``: compute by its slices of the whole, bandwidth by the memory's."""
    parts = rows[0].mig
    if parts is None:
        return None
    instance, compute, gigabytes = profile[1], int(profile[2]), int(profile[3])
    memory = min(max(1, min(parts[1], round(gigabytes * parts[1] / row.memory_gb))) for row in rows)
    share = int(instance or compute) / parts[0]

    def part(figure: float | None) -> float | None:
        return None if figure is None else figure * min(1.0, share)

    return replace(
        parent,
        name=f"{parent.name}, MIG {profile[0]}",
        memory_bytes=_slice_bytes(profile),
        least_memory_bytes=_slice_bytes(profile),
        bandwidth_bytes_per_s=parent.bandwidth_bytes_per_s * memory / parts[1],
        tflops_16bit=part(parent.tflops_16bit),
        tflops_int8=part(parent.tflops_int8),
        tflops_fp8=part(parent.tflops_fp8),
        tflops_4bit=part(parent.tflops_4bit),
        nvlink_bytes_per_s=None,
        nvlink_bridge=False,
        note=(parent.note + "; " if parent.note else "")
        + f"{memory} of {parts[1]} memory slices, {instance or compute} of {parts[0]} compute slices",
    )
