"""Will it fit: weights, KV cache, transient peak, graphs and context on the GPU with the least room, and a verdict.

Per rank, `KV = utilization x total - (weights + context + transient peak + LoRA slots) - CUDA graphs`; graphs are in
the budget since vLLM 0.20, before they come on top. On the CPU the budget is the free RAM. vLLM refuses at three
gates, which are followed exactly: free memory at start below utilization x total (vllm/v1/worker/utils.py,
request_memory), no room for the cache, and no room for one request of max_model_len (v1/core/kv_cache_utils.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import hypot
from typing import TYPE_CHECKING

from quantui.domain.activations import Transient, transient_peak
from quantui.domain.fit_facts import (
    Calibration,
    Change,
    Device,
    Figure,
    Fit,
    FitRequest,
    LoraSlots,
    Verdict,
)
from quantui.domain.fit_reasons import bare_reasons, unsupported_reasons
from quantui.domain.gpu_budget import (
    Band,
    batch_defaults,
    cuda_context,
    graph_memory,
    lowered_utilization,
    other_memory,
    requested_bytes,
)
from quantui.domain.kv_cache import KvPlan, default_block_tokens, kv_plan
from quantui.domain.loaded_weights import LoadedWeights, loaded_weights
from quantui.domain.vllm_versions import VllmBehaviour, behaviour

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.methods import Method
    from quantui.domain.model_shape import ModelShape
    from quantui.domain.weight_groups import WeightGroup

__all__ = [
    "LEAST_CONTEXT",
    "Calibration",
    "Change",
    "Device",
    "Figure",
    "Fit",
    "FitRequest",
    "LoraSlots",
    "Verdict",
    "fit",
]

GIB = 1024**3
LEAST_CONTEXT = 256
"""Below this many tokens a served model is of no use: what must fit when no context is asked for."""
MOST_CONTEXT = 2**24
"""Where the search for the longest context ends when the model does not say how long it may be."""
CPU_SHARE = 0.9
"""Part of the free RAM that is planned with: the page cache and other programs need some too."""
CPU_PROCESSES_BYTES = int(1.35 * GIB)
"""API server, EngineCore and Worker of vLLM 0.32 on the CPU, resident minus shared: 1.32 GiB with a model of
4 million parameters and 8 MiB of KV cache, measured 2026-11-21."""
CPU_WORKER_BYTES = GIB // 2
"""Each further worker (tensor parallel): an allowance."""
_CPU_REQUESTS = 4
"""On the CPU the cache is made for so many requests of full length, not for all of the RAM."""
_V0_CHUNKED_ABOVE = 32768
_LEAST_SPREAD = GIB // 4
"""How far a load may be from the earlier ones it is predicted by: what a driver's or allocator's mood makes."""


def fit(
    shape: ModelShape,
    census: tuple[WeightGroup, ...] | None,
    method: Method,
    devices: Sequence[Device],
    request: FitRequest,
    *,
    calibration: Calibration | None = None,
    stored_bytes: int | None = None,
    suggest: bool = True,
) -> Fit:
    """Whether ``request`` fits on ``devices``, one for each rank (the last stands for those that lack).

    ``stored_bytes``: size of the weight files, used when ``census`` is None. With ``suggest`` the smallest change
    that would make it fit is looked for, which costs some more calls. Pure; tens of microseconds.
    """
    case = _Case.of(shape, census, method, devices, request, calibration, stored_bytes)
    found = case.answer()
    if suggest and found.verdict in ("tight", "does not fit"):
        from quantui.domain.smallest_change import smallest_change

        found = replace(
            found,
            smallest_change=smallest_change(
                found, shape, census, method, devices, request, calibration, stored_bytes
            ),
        )
    return found


@dataclass(frozen=True, slots=True)
class _Pool:
    """Room for the cache with one context: expected, and the ends of the band, bytes; may be negative."""

    expected: float
    low: float
    high: float
    transient: Transient
    tokens: int
    in_flight: int


@dataclass(slots=True)
class _Case:
    shape: ModelShape
    method: Method
    request: FitRequest
    rules: VllmBehaviour
    device: Device
    devices: tuple[Device, ...]
    utilization: float | None
    weights: LoadedWeights
    plan: KvPlan
    block_tokens: int
    sequences: int
    other: Band
    graphs: Band
    residual: int
    calibration: Calibration | None

    @classmethod
    def of(
        cls,
        shape: ModelShape,
        census: tuple[WeightGroup, ...] | None,
        method: Method,
        devices: Sequence[Device],
        request: FitRequest,
        calibration: Calibration | None,
        stored_bytes: int | None,
    ) -> _Case:
        used = tuple(devices[: request.world])
        device = min(used, key=lambda each: each.total_bytes or 0)
        rules = behaviour(
            request.vllm_version,
            device.compute_capability or (8, 0),
            stages=request.pipeline_parallel,
        )
        utilization = None
        if not device.on_cpu:
            utilization = request.utilization
            if utilization is None:
                utilization = min(lowered_utilization(each, rules.utilization) for each in used)
        block = request.block_size or default_block_tokens(
            shape.attention, rules, on_cpu=device.on_cpu
        )
        default_seqs, _ = batch_defaults(rules, used[0], context=0, world=request.world)
        sequences = request.max_num_seqs or default_seqs
        graphs: Band = (0, 0, 0)
        if not (request.eager or device.on_cpu or method.eager_only):
            lora = request.lora_slots is not None
            graphs = graph_memory(shape, rules, sequences=sequences, lora=lora)
        return cls(
            shape,
            method,
            request,
            rules,
            device,
            used,
            utilization,
            loaded_weights(shape, census, method, request, stored_bytes, rules),
            kv_plan(
                shape.attention,
                rules,
                layers=shape.layers or 0,
                tensor_parallel=request.tensor_parallel,
                pipeline_parallel=request.pipeline_parallel,
                kv_dtype=request.kv_dtype,
                dtype=request.dtype,
                block_tokens=block,
            ),
            block,
            sequences,
            _cpu_processes(request)
            if device.on_cpu
            else other_memory(rules, device, tensor_parallel=request.tensor_parallel),
            graphs,
            calibration.residual_bytes if calibration else 0,
            calibration,
        )

    @property
    def limit(self) -> int:
        return self.shape.context_length or MOST_CONTEXT

    @property
    def budget(self) -> int | None:
        """What vLLM may take for one rank, bytes."""
        if self.device.on_cpu:
            free = self.device.free_bytes
            return None if free is None else int(free * CPU_SHARE) // self.request.world
        if self.device.total_bytes is None or self.utilization is None:
            return None
        return requested_bytes(self.device, self.utilization)

    def pool(self, context: int, budget: int) -> _Pool:
        """The room for the cache when max_model_len is ``context``."""
        request, rules = self.request, self.rules
        tokens = request.max_num_batched_tokens
        if tokens is None:
            _, tokens = batch_defaults(rules, self.devices[0], context=context, world=request.world)
            if rules.engine == "v1":
                tokens = min(tokens, self.sequences * context)
        steps = rules.steps_in_flight
        if steps > 1 and request.pipeline_parallel > 1:
            steps = request.pipeline_parallel + 1
        peak = transient_peak(
            self.shape,
            rules,
            tokens=tokens,
            sequences=self.sequences,
            context=context,
            tensor_parallel=request.tensor_parallel,
            block_tokens=self.block_tokens,
            width=4 if request.dtype == "float32" else 2,
        )
        weights, (other, other_low, other_high) = self.weights, self.other
        needed = weights.bytes + weights.lora + other + peak.peak + peak.kept + self.residual
        below = hypot(weights.low_by, other - other_low, peak.peak - peak.low)
        above = hypot(weights.high_by, other_high - other, peak.high - peak.peak)
        if rules.graphs_in_budget:
            graphs, low, high = self.graphs
            needed += graphs
            below, above = hypot(below, graphs - low), hypot(above, high - graphs)
        if self.calibration is not None and self.calibration.runs:
            # What was measured here takes the place of what could only be guessed.
            known = max(self.calibration.spread_bytes, _LEAST_SPREAD)
            below, above = min(below, known), min(above, known)
        room = budget - needed
        given = request.kv_cache_bytes
        if given is not None:
            # vLLM takes the size as given; it has to be there.
            lack = (0.0 if self.device.on_cpu else float(budget)) - needed
            spare = self._beyond_budget(budget)
            expected, least, most = (
                given if given <= room + spare + move else lack + spare + move
                for move in (0.0, -above, below)
            )
            return _Pool(expected, least, most, peak, tokens, steps * tokens)
        return _Pool(room, room - above, room + below, peak, tokens, steps * tokens)

    def _beyond_budget(self, budget: int) -> int:
        """Free memory above the budget: a cache of a given size may take it."""
        if self.device.on_cpu or self.device.free_bytes is None:
            return 0
        return max(0, self.device.free_bytes - cuda_context(self.device)[0] - budget)

    def longest(self, budget: int, which: str) -> int:
        """The longest context that ``users`` requests may have in the pool's ``which`` end."""
        users = self.request.users

        def at(context: int) -> int:
            pool = self.pool(context, budget)
            return self.plan.longest(getattr(pool, which), users, pool.in_flight, self.limit)

        if self.rules.engine == "v1" or self.request.max_num_batched_tokens is not None:
            return min(self.limit, at(self.limit))
        if self.limit > _V0_CHUNKED_ABOVE:
            chunked = at(self.limit)
            if chunked > _V0_CHUNKED_ABOVE:
                return chunked
        # A longer context means a larger batch, and so less room: the two meet somewhere.
        low, high = 0, min(self.limit, _V0_CHUNKED_ABOVE)
        if at(high) >= high:
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if at(middle) >= middle else (low, middle)
        return low

    def answer(self) -> Fit:
        """The verdict and all figures."""
        request, budget = self.request, self.budget
        reasons = unsupported_reasons(self.shape, request, self.limit)
        if (
            self.weights.bytes < 0
            or budget is None
            or (self.plan.block_bytes == 0 and not self.shape.layers)
        ):
            return self._unknown(reasons)
        asked = request.context or min(self.limit, LEAST_CONTEXT)
        pool = self.pool(request.context or self.limit, budget)
        longest = self.longest(budget, "expected")
        safe = self.longest(budget, "low")
        wanted = self.plan.bytes_for(asked, request.users, pool.in_flight)
        if request.context is None and self.rules.engine == "v0":
            pool = self.pool(max(safe, asked), budget)
        if self.device.on_cpu and request.kv_cache_bytes is None:
            pool = self._cpu_pool(pool, asked if request.context else max(safe, asked))
        gate, gate_reasons = self._gates(budget, pool)
        if reasons:
            verdict: Verdict = "unsupported"
        elif gate < 0 or pool.high < wanted or pool.high <= 0:
            verdict = "does not fit"
        elif gate > 0 and pool.low >= wanted and pool.low > 0:
            verdict = "fits"
        else:
            verdict = "tight"
        told = max(asked, request.context or longest)
        missing = max(0, int(wanted - (pool.low if verdict == "tight" else pool.expected)))
        if not reasons:
            reasons = (
                *gate_reasons,
                *bare_reasons(verdict, pool.expected, wanted, asked, request.users),
            )
        return self._fit(
            pool,
            verdict,
            reasons,
            kv_cache_tokens=self.plan.tokens(pool.expected, told, pool.in_flight),
            max_context=longest,
            safe_context=safe,
            users=self.plan.users(
                pool.expected, request.context or max(1, longest), pool.in_flight
            ),
            max_model_len=request.context or max(min(self.limit, LEAST_CONTEXT), safe),
            budget=budget,
            missing=missing,
        )

    def _cpu_pool(self, pool: _Pool, context: int) -> _Pool:
        """The cache quantui asks for on the CPU: enough for the users, not all of the RAM."""
        requests = max(self.request.users, _CPU_REQUESTS)
        wanted = self.plan.bytes_for(context, requests, pool.in_flight)
        return replace(
            pool,
            expected=min(pool.expected, wanted),
            low=min(pool.low, wanted),
            high=min(pool.high, wanted),
        )

    def _gates(self, budget: int, pool: _Pool) -> tuple[int, tuple[str, ...]]:
        """1: surely passed, -1: surely refused, 0: either, with reasons; free memory and graphs on top."""
        result, reasons = 1, []
        if self.device.on_cpu or self.utilization is None:
            return result, ()
        for device in self.devices:
            if device.free_bytes is None or device.total_bytes is None:
                continue
            want = requested_bytes(device, self.utilization)
            _, low, high = cuda_context(device)
            if device.free_bytes - high >= want:
                continue
            sure = device.free_bytes - low < want
            result = -1 if sure else min(result, 0)
            reasons.append(
                f"{device.name}: utilization {self.utilization:.2f} is {want / GIB:.2f} GiB, "
                f"{device.free_bytes / GIB:.2f} GiB are free before the CUDA context "
                f"({low / GIB:.2f} to {high / GIB:.2f} GiB)"
            )
        if self.graphs[0] and not self.rules.graphs_in_budget and self.device.total_bytes:
            # Captured after the cache is allocated, in what the budget leaves and the peak gave back.
            _, low, high = cuda_context(self.device)
            free = self.device.free_bytes or self.device.total_bytes
            left = free - budget + pool.transient.peak
            if self.graphs[1] > left - low:
                result = -1
                reasons.append("CUDA graphs do not fit beside the budget")
            elif self.graphs[2] > left - high and self.graphs[0] > left - high:
                result = min(result, 0)
                reasons.append("CUDA graphs may not fit beside the budget")
        return result, tuple(reasons)

    def _unknown(self, reasons: tuple[str, ...]) -> Fit:
        unknown = (
            "the weights could not be counted"
            if self.weights.bytes < 0
            else "the memory of the device is not known"
            if self.budget is None
            else "the config does not tell the KV cache"
        )
        transient = Transient(0, 0, 0, 0, "not computed")
        return self._fit(
            _Pool(0, 0, 0, transient, 0, 0),
            "unsupported" if reasons or self.weights.bytes < 0 else "tight",
            (*reasons, f"not computed: {unknown}"),
            kv_cache_tokens=None,
            max_context=None,
            safe_context=None,
            users=None,
            max_model_len=self.request.context,
            budget=self.budget,
            missing=0,
        )

    def _fit(
        self,
        pool: _Pool,
        verdict: Verdict,
        reasons: tuple[str, ...],
        *,
        kv_cache_tokens: int | None,
        max_context: int | None,
        safe_context: int | None,
        users: int | None,
        max_model_len: int | None,
        budget: int | None,
        missing: int,
    ) -> Fit:
        weights, peak = self.weights, pool.transient
        other, other_low, other_high = self.other
        held = self.device.others_bytes
        if held is None:
            total, free = self.device.total_bytes, self.device.free_bytes
            held = total - free if total is not None and free is not None else 0
        kept = peak.kept
        version = self.request.vllm_version
        cache = (
            max(0, int(pool.expected)),
            max(0, int(pool.low)),
            max(0, int(pool.high)),
        )
        size = f"{self.plan.bytes_per_token} B a token, blocks of {self.plan.block_tokens} tokens"
        return Fit(
            weights=Figure(
                max(0, weights.bytes),
                max(0, int(weights.bytes - weights.low_by)),
                int(weights.bytes + weights.high_by),
                weights.formula,
                weights.source,
            ),
            kv_cache=Figure(
                *cache,
                f"what is left of the budget; {size}"
                if self.request.kv_cache_bytes is None
                else size,
                f"vllm/v1/core/kv_cache_utils.py, as in {version}",
            ),
            transient=Figure(
                peak.peak + kept,
                peak.low + kept,
                peak.high + kept,
                peak.formula,
                f"tensor sizes of the profile run, vLLM {version}",
            ),
            graphs=Figure(
                *self.graphs,
                "0.3 MiB x layers x batch sizes" if self.graphs[0] else "none: eager",
                "14 measured loads, 0.2 to 1.9 MiB",
            ),
            context=Figure(
                other + self.residual,
                other_low + self.residual,
                other_high + self.residual,
                "processes of the server" if self.device.on_cpu else "workspaces and communication",
                self.calibration.source
                if self.calibration and self.calibration.runs
                else "measured loads, by the card's size",
            ),
            lora=Figure(
                weights.lora, weights.lora, weights.lora, weights.lora_formula, "vllm/lora/layers"
            ),
            others=Figure(held, held, held, "total - free", "the device, before the start"),
            kv_bytes_per_token=self.plan.bytes_per_token,
            kv_cache_tokens=kv_cache_tokens,
            max_context=max_context,
            safe_context=safe_context,
            users=users,
            verdict=verdict,
            reasons=reasons,
            utilization=self.utilization,
            max_model_len=max_model_len,
            max_num_seqs=self.sequences,
            max_num_batched_tokens=pool.tokens,
            budget_bytes=budget,
            missing_bytes=missing,
            device=self.device.name,
        )


def _cpu_processes(request: FitRequest) -> Band:
    each = (
        CPU_PROCESSES_BYTES // request.world
        + CPU_WORKER_BYTES * (request.world - 1) // request.world
    )
    return each, int(each * 0.9), int(each * 1.2)
