"""One way to serve a model on one kind of card, and the time of its decoding steps in numbers and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from quantui.domain.methods import method as catalogued
from quantui.domain.performance.decode_formula import (
    KV_RATE,
    LAYER_SECONDS,
    UNIT_RATE,
    WEIGHT_RATE,
    Step,
    Units,
    Work,
    step,
    units,
    work,
)

if TYPE_CHECKING:
    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.methods import Method
    from quantui.domain.performance.evidence import Evidence
    from quantui.domain.performance.gpu_table import GpuModel


class Candidate(NamedTuple):
    """The weights of one rank in some format, in bytes, and how they are computed with."""

    method: str
    weight_bytes: float
    how: Units


class Load(NamedTuple):
    """A model on cards: what a step's time depends on besides the format of the weights."""

    shape: ModelShape
    kv_bytes_per_token: float
    gpu: GpuModel
    tensor_parallel: int
    pipeline_parallel: int

    def work(self, weight_bytes: float, users: int, context: int) -> Work:
        """What one stage does for its share of ``users``."""
        done = work(
            self.shape,
            weight_bytes=weight_bytes,
            kv_bytes_per_token=self.kv_bytes_per_token,
            users=self.together(users),
            context=context,
            tensor_parallel=self.tensor_parallel,
        )
        stages = self.pipeline_parallel
        if stages == 1:
            return done
        return done._replace(flops=done.flops / stages, layers=done.layers / stages)

    def step(self, done: Work, how: Units, users: int, end: int = 1) -> Step:
        """One token of every user: the stages of a pipeline come one after the other. ``end``: 0 slow, 2 fast."""
        each = step(
            done,
            how,
            self.gpu,
            users=self.together(users),
            tensor_parallel=self.tensor_parallel,
            end=end,
        )
        stages = self.pipeline_parallel
        return each if stages == 1 else Step(*(part * stages for part in each))

    def on_one_card(self, of: Candidate, plain: Candidate) -> tuple[Load, Candidate, Candidate]:
        """The same over no other cards: what ratios of one card are compared with, where no link takes time."""
        ranks = self.tensor_parallel * self.pipeline_parallel
        alone = self._replace(
            kv_bytes_per_token=self.kv_bytes_per_token * ranks,
            tensor_parallel=1,
            pipeline_parallel=1,
        )
        whole = of._replace(weight_bytes=of.weight_bytes * ranks)
        return alone, whole, plain._replace(weight_bytes=plain.weight_bytes * ranks)

    def seconds(self, of: Candidate, users: int, context: int) -> float:
        """Of one step, as is likely."""
        return self.step(self.work(of.weight_bytes, users, context), of.how, users).seconds

    def together(self, users: int) -> int:
        """Users in one batch of a stage: a pipeline works on as many batches as it has stages."""
        return max(1, -(-users // self.pipeline_parallel))


def sixteen_bit(load: Load, asked: Candidate, method: Method, evidence: Evidence) -> Candidate:
    """The same model in 16 bit on the same ranks: from its parameters, or from what the method makes of a weight."""
    shape = load.shape
    if method.name == "none" and not shape.quantization:
        return asked
    if shape.parameters:
        size = shape.parameters * 2 / (load.tensor_parallel * load.pipeline_parallel)
    else:
        size = asked.weight_bytes * 2 / min(2.0, method.bytes_per_linear_weight)
    return Candidate("none", size, units(catalogued("none"), load.gpu, evidence))


def formula_words(load: Load, done: Work, how: Units, parts: Step, users: int) -> str:
    """The formula of :mod:`quantui.domain.performance.decode_formula` with this load's numbers, per rank."""
    kernel, bandwidth = how.kernel, load.gpu.bandwidth_bytes_per_s / 1e9
    together = load.together(users)
    stages = load.pipeline_parallel
    weights, arithmetic, kv, fixed, communication = (part * 1e3 / stages for part in parts)
    compute = "arithmetic unknown"
    if how.flops:
        rate = UNIT_RATE.likely * kernel.arithmetic.likely
        compute = (
            f"{done.flops / 1e9:.1f} GFLOP x {together} / ({rate:.2f} x {how.flops / 1e12:.0f} TFLOPS "
            f"of {how.words}) = {arithmetic:.2f} ms"
        )
    text = (
        f"max(weights {done.weight_bytes / 1e9:.2f} GB / ({WEIGHT_RATE.likely * kernel.bandwidth.likely:.2f} x "
        f"{bandwidth:.0f} GB/s) = {weights:.2f} ms, {compute}) + KV {together} x {done.kv_bytes / 1e9:.3f} GB / "
        f"({KV_RATE.likely} x {bandwidth:.0f} GB/s) = {kv:.2f} ms + {done.layers:.0f} layers x "
        f"{LAYER_SECONDS.likely * 1e6:.0f} us and sampling = {fixed:.2f} ms"
    )
    if communication:
        text += f" + communication {communication:.2f} ms"
    if stages > 1:
        text = f"{stages} stages x ({text})"
    return f"{text} = {parts.seconds * 1e3:.2f} ms a token"
