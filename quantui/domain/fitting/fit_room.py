"""The room for the KV cache: the budget of one rank less all that is there besides, with how far off it may be."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import hypot
from typing import TYPE_CHECKING

from quantui.domain.fitting.activations import Transient, mla_context_rows, transient_peak
from quantui.domain.fitting.gpu_budget import (
    LONG_CONTEXT,
    Band,
    batch_defaults,
    chunks_long_prompts,
    cuda_context,
    graph_memory,
    lowered_utilization,
    other_memory,
    requested_bytes,
)
from quantui.domain.fitting.kv_cache import (
    default_block_tokens,
    kv_plan,
    served_kv_dtype,
    state_blocks,
)
from quantui.domain.fitting.vllm_versions import behaviour
from quantui.domain.units import GIB
from quantui.domain.weights.loaded_weights import loaded_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.fitting.fit_facts import Calibration, Device, FitRequest
    from quantui.domain.fitting.kv_cache import KvPlan
    from quantui.domain.fitting.vllm_versions import VllmBehaviour
    from quantui.domain.methods import Method
    from quantui.domain.weights.loaded_weights import LoadedWeights
    from quantui.domain.weights.weight_groups import WeightGroup

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
_REMEMBERED = 128
_LEAST_SPREAD = GIB // 4
"""How far a load may be from the earlier ones it is predicted by: what a driver's or allocator's mood makes."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Room for the cache with one context: expected, and the ends of the band, bytes; may be negative."""

    expected: float
    low: float
    high: float
    transient: Transient
    tokens: int
    """Of one batch."""
    in_flight: int
    """Tokens of the batches that are not settled."""


@dataclass(slots=True)
class Room:
    """One request on given devices, counted as far as it depends on neither its context nor its users."""

    shape: ModelShape
    request: FitRequest
    rules: VllmBehaviour
    device: Device
    """The one with the least memory."""
    devices: tuple[Device, ...]
    utilization: float | None
    weights: LoadedWeights
    plan: KvPlan
    block_tokens: int
    sequences: int
    other: Band
    graphs: Band
    calibration: Calibration | None
    budget: int | None
    """What vLLM may take for one rank, bytes; None: unknown."""
    chunks: bool
    """Whether V0 computes long prompts in chunks."""
    _pools: dict[tuple[int, int], Pool] = field(default_factory=dict)

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
    ) -> Room:
        """Count what holds for every context."""
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
        plan = kv_plan(
            shape.attention,
            rules,
            layers=shape.layers or 0,
            tensor_parallel=request.tensor_parallel,
            pipeline_parallel=request.pipeline_parallel,
            kv_dtype=served_kv_dtype(
                request.kv_dtype, shape.kv_cache_dtype, shape.attention, rules
            ),
            dtype=request.dtype,
            block_tokens=block,
            state_blocks=state_blocks(shape.model_type, rules),
        )
        return cls(
            shape,
            request,
            rules,
            device,
            used,
            utilization,
            loaded_weights(shape, census, method, request, stored_bytes, rules),
            plan,
            block,
            sequences,
            _cpu_processes(request)
            if device.on_cpu
            else other_memory(rules, device, tensor_parallel=request.tensor_parallel),
            graphs,
            calibration,
            _budget(device, utilization, request.world),
            chunks_long_prompts(shape, rules, lora=request.lora_slots is not None),
        )

    @property
    def limit(self) -> int:
        """The longest context the model allows, tokens."""
        return self.shape.context_length or MOST_CONTEXT

    @property
    def cache_is_unknown(self) -> bool:
        """Whether the config does not tell what a token's cache takes (encoders keep none, which is known)."""
        kinds = {each.kind for each in self.shape.attention}
        return not kinds or (self.plan.block_bytes == 0 and kinds != {"encoder"})

    @property
    def residual(self) -> int:
        """What earlier loads took beyond the prediction, bytes."""
        return self.calibration.residual_bytes if self.calibration else 0

    def pool(self, context: int, budget: int) -> Pool:
        """The room for the cache when max_model_len is ``context``."""
        tokens = self._tokens(context)
        rows = mla_context_rows(self.shape, self.rules, context, self.sequences, self.block_tokens)
        known = self._pools.get((tokens, rows))
        if known is None:
            if len(self._pools) >= _REMEMBERED:
                self._pools.clear()
            known = self._pools[tokens, rows] = self._count(tokens, rows, budget)
        return known

    def _tokens(self, context: int) -> int:
        request = self.request
        if request.max_num_batched_tokens is not None:
            return request.max_num_batched_tokens
        _, tokens = batch_defaults(
            self.rules,
            self.devices[0],
            context=context,
            world=request.world,
            chunks=self.chunks,
            vision=self.shape.has_vision,
        )
        return min(tokens, self.sequences * context) if self.rules.engine == "v1" else tokens

    def _count(self, tokens: int, rows: int, budget: int) -> Pool:
        request, rules = self.request, self.rules
        steps = rules.steps_in_flight
        if steps > 1 and request.pipeline_parallel > 1:
            steps = request.pipeline_parallel + 1
        peak = transient_peak(
            self.shape,
            rules,
            tokens=tokens,
            sequences=self.sequences,
            mla_rows=rows,
            tensor_parallel=request.tensor_parallel,
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
        room = float(budget - needed)
        if request.kv_cache_bytes is not None:
            # vLLM takes the size as given, from all that is free.
            room += self._beyond_budget(budget)
            given = request.kv_cache_bytes
            ends = (min(given, room), min(given, room - above), min(given, room + below))
            return Pool(*ends, peak, tokens, steps * tokens)
        return Pool(room, room - above, room + below, peak, tokens, steps * tokens)

    def _beyond_budget(self, budget: int) -> int:
        """Free memory above the budget: a cache of a given size may take it."""
        if self.device.on_cpu or self.device.free_bytes is None:
            return 0
        return max(0, self.device.free_bytes - cuda_context(self.device)[0] - budget)

    def longest(self, budget: int, users: int) -> tuple[int, int]:
        """The longest context that ``users`` requests may have: as expected, and surely."""
        pool = self.pool(self.limit, budget)
        expected = self.plan.longest(pool.expected, users, pool.in_flight, self.limit)
        safe = self.plan.longest(pool.low, users, pool.in_flight, self.limit)
        if self.rules.engine == "v1" or self.request.max_num_batched_tokens is not None:
            return expected, safe
        return (
            self._longest_whole(budget, users, "expected", expected),
            self._longest_whole(budget, users, "low", safe),
        )

    def _longest_whole(self, budget: int, users: int, which: str, chunked: int) -> int:
        """The same where a prompt is one batch: a longer one leaves less room, and the two meet somewhere.

        ``chunked``: the answer where prompts above 32768 tokens are computed in chunks.
        """

        def at(context: int) -> int:
            pool = self.pool(context, budget)
            return self.plan.longest(getattr(pool, which), users, pool.in_flight, self.limit)

        low, high = 0, self.limit
        if self.limit > LONG_CONTEXT and self.chunks:
            if chunked > LONG_CONTEXT:
                return chunked
            high = LONG_CONTEXT
        if at(high) >= high:
            return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if at(middle) >= middle else (low, middle)
        return low

    def for_cpu(self, pool: Pool, context: int, users: int) -> Pool:
        """The cache quantui asks for on the CPU: enough for the users, not all of the RAM."""
        requests = max(users, _CPU_REQUESTS)
        wanted = self.plan.bytes_for(context, requests, pool.in_flight)
        return replace(
            pool,
            expected=min(pool.expected, wanted),
            low=min(pool.low, wanted),
            high=min(pool.high, wanted),
        )


def _budget(device: Device, utilization: float | None, world: int) -> int | None:
    if device.on_cpu:
        free = device.free_bytes
        return None if free is None else int(free * CPU_SHARE) // world
    if device.total_bytes is None or utilization is None:
        return None
    return requested_bytes(device, utilization)


def _cpu_processes(request: FitRequest) -> Band:
    each = (
        CPU_PROCESSES_BYTES // request.world
        + CPU_WORKER_BYTES * (request.world - 1) // request.world
    )
    return each, int(each * 0.9), int(each * 1.2)
