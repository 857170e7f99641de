"""What a recommendation is made from and what it consists of: data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.choosing.use_cases import Criterion
    from quantui.domain.choosing.variants import Variant
    from quantui.domain.fitting.fit import Calibration, Fit
    from quantui.domain.hardware import HardwareReport
    from quantui.domain.models import AdapterSpec
    from quantui.domain.performance.quality import Quality
    from quantui.domain.performance.speed import Speed
    from quantui.domain.support.method_support import Support
    from quantui.domain.weights.weight_groups import WeightGroup

Way = Literal["as it is", "in flight", "variant", "make"]
"""How a format is had: the checkpoint as given, quantized while loading, somebody's checkpoint, or one to be made."""
AdapterMode = Literal["merge", "lora"]
"""Folded into the 16-bit base before serving, or kept beside it at run time (vLLM's --enable-lora)."""


@dataclass(frozen=True)
class Situation:
    """Everything a recommendation depends on; nothing else is looked at.

    ``census`` None: the weights could not be counted, and ``stored_bytes``, the size of the weight files, stands for
    them where the model is served as it is. ``gpus`` None: any of the report's. ``context`` in tokens and
    ``users`` at the same time: None takes the use case's. ``engine_methods``: the quantization names that the engine
    lists, ``plugins`` its installed packages; None: not asked, so vLLM of ``vllm_version`` is assumed as published.
    ``stored_method``: the catalogue's name of what the checkpoint is quantized with, which its ``quant_method`` alone
    may not tell (classify_quantization). ``base_ref``: the 16-bit model that a quantized checkpoint says it was made
    from. ``download_bytes``: what of the model is not on this machine yet. ``adapters_change``: adapters come and go
    while it serves. ``config``: the model's config.json, whose fields may rule its own format out.
    """

    shape: ModelShape
    census: tuple[WeightGroup, ...] | None
    hardware: HardwareReport
    stored_bytes: int | None = None
    model_ref: str = "the model"
    stored_method: str | None = None
    base_ref: str | None = None
    use_case: str = "balanced"
    context: int | None = None
    users: int | None = None
    gpus: tuple[int, ...] | None = None
    vllm_version: str = "0.32"
    engine_methods: frozenset[str] | None = None
    plugins: frozenset[str] | None = None
    adapters: tuple[AdapterSpec, ...] = ()
    adapters_change: bool = False
    variants: tuple[Variant, ...] = ()
    download_bytes: int = 0
    utilization: float | None = None
    dtype: str = "auto"
    calibration: Calibration | None = None
    own_runs: tuple[Any, ...] = ()
    config: Mapping[str, Any] | None = None


class Step(NamedTuple):
    """Something to be done before serving, in words, with its cost; None: not known."""

    kind: Literal["download", "merge", "make", "train", "install"]
    text: str
    seconds: float | None
    disk_bytes: int
    source: str


@dataclass(frozen=True)
class Cost:
    """What it takes before it can be served. ``seconds`` leaves downloads out: a connection's speed is not known."""

    seconds: float | None
    disk_bytes: int
    download_bytes: int
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Choice:
    """One method and the best way to serve it here.

    ``ready``: quantui gets there by itself, by downloading, merging or making the checkpoint here. ``needs`` says
    what makes it, and what is lacking where it is not ready. ``gpus`` are the report's indices, empty on the CPU.
    ``score`` is the sum of ``parts``, each a criterion's value (0 to 1) times its weight, less what ``taken`` holds
    against it.
    """

    rank: int
    method: str
    title: str
    way: Way
    verdict: str
    ready: bool
    needs: str
    fit: Fit
    support: Support
    speed: Speed
    quality: Quality
    cost: Cost
    reasons: tuple[str, ...]
    cautions: tuple[str, ...]
    tensor_parallel: int
    pipeline_parallel: int
    gpus: tuple[int, ...]
    on_cpu: bool
    serve_adapter: AdapterMode | None
    variant: Variant | None
    score: float
    parts: Mapping[Criterion, float]
    taken: Mapping[str, float]


@dataclass(frozen=True)
class Refusal:
    """A method that is not recommended here, why in this machine's terms, and what to take instead.

    ``code``: ``hardware`` (the device cannot), ``memory`` (it does not fit), ``checkpoint`` (quantized already),
    ``model`` (this kind of model cannot), ``engine`` (this vLLM lacks it), ``adapter`` (the adapter cannot be had with
    it), ``retired``, ``training``, ``other-runtime``, ``research``. ``fit`` is set for ``memory``; ``stored_so``: it is
    the format that the checkpoint has, so that ``none`` serves it.
    """

    method: str
    title: str
    code: str
    reasons: tuple[str, ...]
    instead: tuple[str, ...] = ()
    source: str = ""
    fit: Fit | None = None
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    gpus: tuple[int, ...] = ()
    stored_so: bool = False


@dataclass(frozen=True)
class AdapterAdvice:
    """How to serve the adapters. ``mode`` None: neither way works, ``reasons`` say why."""

    mode: AdapterMode | None
    reasons: tuple[str, ...]
    can_merge: bool
    can_serve_lora: bool
    source: str


@dataclass(frozen=True)
class NearestMiss:
    """What comes closest when nothing fits: the refusal with the least missing, and the change that would help."""

    method: str
    title: str
    missing_bytes: int
    change: str
    fit: Fit
    smaller: tuple[str, ...] = ()


@dataclass(frozen=True)
class Recommendation:
    """Ranked choices, refusals, and what to know besides. ``nearest`` only when there is no choice."""

    use_case: str
    context: int
    users: int
    on_cpu: bool
    choices: tuple[Choice, ...]
    refused: tuple[Refusal, ...]
    adapter_advice: AdapterAdvice | None
    nearest: NearestMiss | None
    notes: tuple[str, ...]

    @property
    def at_once(self) -> Choice | None:
        """The best of the choices that need no checkpoint to be made first."""
        return next((choice for choice in self.choices if choice.way != "make"), None)
