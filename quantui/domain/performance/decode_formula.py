"""The time of one decoding step: bytes read, arithmetic, communication. Pure arithmetic, every part with a band.

With users ``U``, a rank's weights read ``W``, KV bytes a token ``k``, context ``n``, layers ``L``::

    step = max(W / (b * bandwidth * kernel), 2 * active parameters * U / (a * FLOPS * kernel))
         + U * k * n / (c * bandwidth) + L * launch + U * sample + communication

The factors are fitted to SilyBench's series of vLLM 0.30 on an H100 (Qwen3-8B in BF16 and FP8, 1 to 256 users), which
they meet within 9 %. ML.ENERGY's points (8B to 70B and a mixture of experts, H100 and B200) were not used for that:
up to 32 users they lie within 12 %; at 64 users the formula is 10 to 26 % too fast, at 256 users 37 to 87 %, for there
prompts of joining requests are computed in between. It is 14 to 59 % faster than the Qwen team's vLLM 0.6.3 on an A100,
the smallest models most. The slow ends of the bands hold all of these but one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from quantui.domain.performance.evidence import Band

if TYPE_CHECKING:
    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.methods import Method
    from quantui.domain.performance.evidence import Evidence, Kernel
    from quantui.domain.performance.gpu_table import GpuModel

Regime = Literal["weights", "kv cache", "arithmetic", "interconnect", "unknown"]

WEIGHT_RATE = Band(0.68, 0.88, 0.96)
"""Part of the specified bandwidth at which 16-bit weights are read (see the head of this module)."""
KV_RATE = Band(0.55, 0.8, 0.95)
"""The same for the KV cache."""
UNIT_RATE = Band(0.45, 0.7, 0.85)
"""Part of the specified dense FLOPS that a large matrix multiplication reaches."""
LAYER_SECONDS = Band(1.2e-4, 6e-5, 3.5e-5)
"""Launching and small kernels of one layer; slowest first."""
USER_SECONDS = Band(4e-5, 7e-6, 3e-6)
"""Sampling and scheduling of one user's token; the slow end holds the prompts of requests that join meanwhile."""
NVLINK_LATENCY, PCIE_LATENCY = Band(1.5e-5, 6e-6, 3e-6), Band(6e-5, 2.5e-5, 1.5e-5)
"""One all-reduce of a few kilobytes. Assumption: vLLM's own all-reduce over NVLink, NCCL over PCIe."""
LINK_RATE = Band(0.4, 0.7, 0.85)
"""Part of a link's specified rate that an all-reduce reaches: an assumption."""
PCIE_BYTES_PER_S = {7: 16e9, 8: 32e9, 9: 64e9, 10: 64e9, 12: 64e9}
"""One direction of 16 lanes, by the card's generation (PCIe 3.0, 4.0, 5.0); cards with 8 lanes have half."""
_HOPPER = (9, 0)
"""Where integers take the Machete kernels instead (vllm/model_executor/kernels/linear, 0.32)."""
_INT8 = frozenset({"int8_w8a8", "rotations_w8a8", "tpu_int8"})


class Work(NamedTuple):
    """What one step of one rank moves and computes. Bytes and operations for one user unless said otherwise."""

    weight_bytes: float
    """Read once a step, whatever the users; experts counted as those that the users' tokens meet."""
    kv_bytes: float
    flops: float
    layers: float
    hidden_bytes: float
    """Of one token's hidden state, 16 bit: what an all-reduce moves."""


class Step(NamedTuple):
    """Seconds of one step, by part."""

    weights: float
    arithmetic: float
    kv: float
    fixed: float
    communication: float

    @property
    def seconds(self) -> float:
        """Of the whole step: weights are read while the units compute."""
        return max(self.weights, self.arithmetic) + self.kv + self.fixed + self.communication

    @property
    def regime(self) -> Regime:
        """What the step is bound by; launching counts as reading weights, which it goes with."""
        read = max(self.weights, self.arithmetic) + self.fixed
        if self.communication > max(read, self.kv):
            return "interconnect"
        if self.kv > read:
            return "kv cache"
        return "arithmetic" if self.arithmetic > self.weights else "weights"


@dataclass(frozen=True, slots=True)
class Units:
    """How a method computes on a card: at what rate, with which kernel. ``flops`` None: not known.

    ``figures``: the kernels whose published figures speak for it. INT8 W8A8 is spoken for by FP8 where the card's
    units are as fast for both, and floats that are computed in 16 bit by integers of as many bits where both take the
    Marlin kernels: the same bytes are read and the same work is done.
    """

    flops: float | None
    kernel: Kernel
    words: str
    figures: tuple[str, ...]


def units(method: Method, gpu: GpuModel, evidence: Evidence) -> Units:
    """The units that ``method`` really computes with on ``gpu``: 16 bit where the card has none of its own."""
    capability = gpu.compute_capability
    kernel = _kernel(method, capability, evidence)
    weight_only = method.weight_only_below is not None and capability < method.weight_only_below
    rate: float | None = gpu.tflops_16bit
    words = "16 bit"
    if method.activation_bits < 16 and not weight_only and kernel.name != "bitsandbytes":
        if method.name in _INT8:
            rate, words = gpu.tflops_int8, "INT8"
        elif method.activation_bits <= 4 or (method.name == "mxfp4" and gpu.tflops_4bit):
            rate, words = gpu.tflops_4bit, "FP4"
        else:
            rate, words = gpu.tflops_fp8, "FP8"
        if rate is None:
            weight_only = True
    if weight_only:
        rate, words = gpu.tflops_16bit, "16 bit: the card has no units for this format"
        kernel = evidence.kernel("float-weights")
    figures: tuple[str, ...] = (kernel.name.removesuffix("-hopper"),)
    if words == "INT8" and gpu.tflops_int8 == gpu.tflops_fp8:
        figures += ("fp8",)
    elif weight_only and capability != _HOPPER:
        figures = ("int4",) if method.weight_bits < 5 else ("int8-weights",)
    return Units(rate * 1e12 if rate else None, kernel, words, figures)


def _kernel(method: Method, capability: tuple[int, int], evidence: Evidence) -> Kernel:
    general = None
    for kernel in evidence.kernels:
        if method.name in kernel.methods:
            if kernel.capability == capability:
                return kernel
            if kernel.capability is None:
                general = kernel
    if general is not None:
        return general
    return evidence.kernel("none" if method.weight_bits >= 16 else "float-weights")


def expert_share(shape: ModelShape) -> tuple[float, float]:
    """The routed experts' part of the parameters of all layers, and of them the part that one token meets.

    From ``parameters - active = experts * (1 - k / n)``, the embedding table aside; (0, 1) for a dense model.
    """
    experts, chosen = shape.experts or 0, shape.experts_per_token or 0
    if not experts or not chosen or chosen >= experts:
        return 0.0, 1.0
    if shape.parameters is None or shape.active_parameters is None:
        return 0.95, chosen / experts
    table = (shape.vocabulary or 0) * (shape.hidden_size or 0)
    passed = shape.parameters - (0 if shape.tied else table)
    routed = (passed - shape.active_parameters) / (1 - chosen / experts)
    return min(1.0, max(0.0, routed / max(1, passed - table))), chosen / experts


def work(
    shape: ModelShape,
    *,
    weight_bytes: float,
    kv_bytes_per_token: float,
    users: int,
    context: int,
    tensor_parallel: int,
) -> Work:
    """What a step moves on one rank.

    The embedding table is not read (a row a token), a tied one is, as the head. Of ``n`` experts with ``k`` a token,
    ``U`` users meet ``n * (1 - (1 - k / n) ** U)``: few for one user, nearly all for many. Layers with a window
    read no more than the window; states are read and written.
    """
    table = (shape.vocabulary or 0) * (shape.hidden_size or 0) * 2 / tensor_parallel
    table = min(table, weight_bytes / 2)
    head = table
    body = max(0.0, weight_bytes - table - (0 if shape.tied else table))
    share, met = expert_share(shape)
    read = 1 - share * (1 - met) ** users
    active = shape.active_parameters or shape.parameters or weight_bytes / 2 * tensor_parallel
    return Work(
        weight_bytes=head + body * read,
        kv_bytes=_kv_bytes(shape, kv_bytes_per_token, context, tensor_parallel),
        flops=2 * active / tensor_parallel,
        layers=shape.layers or 32,
        hidden_bytes=2 * (shape.hidden_size or 4096),
    )


def _kv_bytes(shape: ModelShape, per_token: float, context: int, tensor_parallel: int) -> float:
    whole = seen = state = 0.0
    for layer in shape.attention:
        size = layer.elements_per_token(tensor_parallel) * layer.count
        whole += size
        seen += size * (min(context, layer.window) if layer.window else context)
        if layer.kind == "state":
            state += 2 * layer.state_bytes * layer.count / tensor_parallel
    return per_token * (seen / whole if whole else context) + state


def step(
    done: Work,
    how: Units,
    gpu: GpuModel,
    *,
    users: int,
    tensor_parallel: int,
    end: int = 1,
) -> Step:
    """Seconds of a step at one end of the bands: 0 the slow one, 1 the likely one, 2 the fast one."""
    bandwidth, kernel = gpu.bandwidth_bytes_per_s, how.kernel
    weights = done.weight_bytes / (WEIGHT_RATE[end] * kernel.bandwidth[end] * bandwidth)
    arithmetic = 0.0
    if how.flops:
        arithmetic = done.flops * users / (UNIT_RATE[end] * kernel.arithmetic[end] * how.flops)
    communication = 0.0
    if tensor_parallel > 1:
        moved = 2 * (tensor_parallel - 1) / tensor_parallel * done.hidden_bytes * users
        latency, rate = _link(gpu, end)
        communication = 2 * done.layers * (latency + moved / (LINK_RATE[end] * rate))
    return Step(
        weights=weights,
        arithmetic=arithmetic,
        kv=users * done.kv_bytes / (KV_RATE[end] * bandwidth),
        fixed=done.layers * LAYER_SECONDS[end] + users * USER_SECONDS[end],
        communication=communication,
    )


def _link(gpu: GpuModel, end: int) -> tuple[float, float]:
    """Latency of one all-reduce and bytes a second in one direction; a bridge counts only at the fast end."""
    if gpu.nvlink_bytes_per_s and (not gpu.nvlink_bridge or end == 2):
        return NVLINK_LATENCY[end], gpu.nvlink_bytes_per_s / 2
    return PCIE_LATENCY[end], PCIE_BYTES_PER_S.get(gpu.compute_capability[0], 16e9)
