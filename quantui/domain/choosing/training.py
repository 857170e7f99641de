"""QLoRA on this machine: whether training an adapter fits. quantui merges and serves what is trained, elsewhere.

Memory of training: the base in NF4, its 16-bit parts, the adapter with its gradients and Adam's two moments in 32 bit,
the hidden states kept at every layer's border (gradient checkpointing), and one layer's and the logits' work.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from quantui.domain.choosing.candidates import Candidate
from quantui.domain.choosing.options import Option, placed, timed
from quantui.domain.fitting.fit_facts import Figure
from quantui.domain.methods import method
from quantui.domain.support.method_support import support

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.choosing.options import Workings
    from quantui.domain.choosing.recommendation import Refusal
    from quantui.domain.fitting.fit_facts import Fit, Verdict
    from quantui.domain.weights.weight_groups import WeightGroup

RANK = 16
"""The adapter's rank that is counted with, on all linear layers."""
BYTES_OF_ADAPTER = 16
"""A trained parameter: 32-bit weight, gradient and Adam's two moments."""
_SOURCE = (
    "Dettmers et al. 2023, QLoRA (arXiv 2305.14314), sections 2 and 3; PyTorch's checkpointing"
)


def training_options(
    work: Workings, refusals: Sequence[Refusal]
) -> tuple[list[Option], list[Refusal]]:
    """QLoRA as an option where it fits on one GPU, and the refusals without its own then."""
    situation = work.situation
    nf4, qlora = method("bitsandbytes"), method("qlora")
    rest = [one for one in refusals if one.method != qlora.name]
    mine = [one for one in refusals if one.method == qlora.name]
    singles = work.layouts[0]
    if situation.shape.quantization not in (None, "bitsandbytes"):
        text = f"QLoRA quantizes a 16-bit base to NF4; this one is stored in {situation.shape.quantization}."
        return [], rest + [replace(one, code="checkpoint", reasons=(text,)) for one in mine]
    for layout in singles:
        if layout.on_cpu:
            text = "QLoRA trains on a GPU: bitsandbytes' 4-bit kernels are CUDA's."
            return [], rest + [replace(one, code="hardware", reasons=(text,)) for one in mine]
        candidate = Candidate(
            qlora,
            "make",
            situation.shape,
            situation.census,
            None,
            None,
            ready=False,
            needs="needs training: quantui serves the adapter that comes of it",
        )
        answer = support(nf4, gpus=layout.gpus, shape=situation.shape, dtype=situation.dtype)
        if not answer.supported:
            continue
        option = placed(candidate, layout, replace(answer, cautions=()), work)
        result = _training_fit(option.fit, situation.shape, situation.census, work.asked.context)
        if result.verdict != "does not fit":
            return [
                timed(
                    replace(option, fit=result, held=work.asked.users, starts=result.verdict), work
                )
            ], rest
        lacking = [replace(one, code="memory", reasons=result.reasons, fit=result) for one in mine]
        return [], [*rest, *lacking]
    return [], [*rest, *mine]


def _training_fit(
    served: Fit, shape: ModelShape, census: tuple[WeightGroup, ...] | None, context: int
) -> Fit:
    """The figures of serving with training's in the place of the cache's and the profile run's."""
    adapter = _adapter_parameters(census) * BYTES_OF_ADAPTER
    hidden, layers, vocabulary = shape.hidden_size or 0, shape.layers or 0, shape.vocabulary or 0
    inner = shape.intermediate_size or shape.moe_intermediate_size or 4 * hidden
    kept = context * hidden * layers * 2
    layer = context * (10 * hidden + 6 * inner) * 2
    logits = context * vocabulary * 8
    activations = kept + layer + logits
    trained = Figure(
        adapter, adapter // 4, adapter * 4, f"rank {RANK} on every linear layer x 16 B", _SOURCE
    )
    work = Figure(
        activations,
        activations // 2,
        activations * 2,
        "tokens x (hidden x layers x 2 + (10 hidden + 6 inner) x 2 + vocabulary x 8)",
        _SOURCE,
    )
    free = served.budget_bytes or 0
    room = free - served.weights.bytes - served.context.bytes - adapter - activations
    worst = room - (activations + adapter)
    verdict: Verdict = "fits" if worst >= 0 else "tight" if room >= 0 else "does not fit"
    none = Figure(0, 0, 0, "none while training", _SOURCE)
    reasons = (
        ()
        if room >= 0
        else (f"Training needs {-room / 1024**3:.1f} GiB more than {served.device} has.",)
    )
    return replace(
        served,
        kv_cache=none,
        graphs=none,
        lora=trained,
        transient=work,
        kv_cache_tokens=None,
        max_context=context,
        safe_context=context if worst >= 0 else None,
        users=None,
        verdict=verdict,
        reasons=reasons,
        missing_bytes=max(0, -room),
        smallest_change=None,
        asked_bytes=0,
    )


def _adapter_parameters(census: tuple[WeightGroup, ...] | None) -> int:
    return sum(
        group.count * RANK * (group.rows + group.columns)
        for group in census or ()
        if group.role == "linear"
    )
