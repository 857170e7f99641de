"""Whether a model's layers can be divided over GPUs, whole and in a method's groups, blocks and tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from quantui.domain.support.method_findings import CATALOGUE_VLLM, Finding, Refused, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.architecture.model_shape import ModelShape
    from quantui.domain.support.method_findings import Case

_CPU_TILE = 32
"""vLLM 0.32, kernels/linear/mixed_precision/cpu.py, CPUWNA16LinearKernel.can_implement."""

MARLIN_TILE = (64, 128)
"""Output and input features, vLLM 0.32, quantization/utils/marlin_utils.py, GPTQ_MARLIN_MIN_THREAD_N and _K."""

MARLIN_GROUPS = (-1, 32, 64, 128)
"""vLLM 0.32, quantization/utils/marlin_utils.py, MARLIN_SUPPORTED_GROUP_SIZES; -1: a whole channel."""

_MARLIN_PADS = (0, 24)
"""From this vLLM on, Marlin pads dense layers (https://github.com/vllm-project/vllm/pull/45295)."""

_CODE = "serve.tensor-parallel"


class _Layer(NamedTuple):
    """A linear layer: features over all GPUs; ``outputs`` are the parts that are fused into one (q, k, v)."""

    name: str
    inputs: int
    outputs: tuple[int, ...]
    splits_inputs: bool
    expert: bool = False


def split_findings(case: Case) -> Iterator[Finding]:
    """What tensor and pipeline parallel of the asked sizes do to the model's layers."""
    tensor, pipeline, shape = case.tensor_parallel, case.pipeline_parallel, case.shape
    wanted = tensor * pipeline
    if case.gpus and wanted > len(case.gpus):
        yield _refuse(f"{wanted} GPUs are asked for; {len(case.gpus)} GPUs can be used.")
    if tensor > 1 and case.stored_as is not None and not case.method.tensor_parallel_prequantized:
        yield Refused(
            f"{case.method.title} cannot split a pre-quantized checkpoint over {tensor} GPUs.",
            why=case.method.source_of("tensor_parallel_prequantized"),
            fix="Give the 16-bit model, or set serve.tensor_parallel = 1 (pipeline parallel works).",
        )
    if shape is None:
        if tensor > 1:
            yield Finding("The model's heads are unknown: whether they divide was not checked.")
        return
    whole = tuple(_whole(shape, tensor, pipeline))
    yield from whole
    if not whole:
        yield from _grouped(case, shape)


def _whole(shape: ModelShape, tensor: int, pipeline: int) -> Iterator[Refused]:
    """Heads, layers and inner sizes have to divide (vLLM 0.32, config/model.py, verify_with_parallel_config)."""
    if shape.heads and shape.heads % tensor:
        yield _refuse(f"{shape.heads} attention heads do not divide by {tensor} GPUs.")
    for heads in dict.fromkeys(one.kv_heads for one in shape.attention if one.kind != "mla"):
        if heads and heads % tensor and tensor % heads:
            yield _refuse(
                f"{heads} key/value heads do not divide by {tensor} GPUs, nor the reverse."
            )
    for name, size in (
        ("MLP", shape.intermediate_size),
        ("experts'", shape.moe_intermediate_size),
    ):
        if size and size % tensor:
            yield _refuse(f"The {name} inner size {size} does not divide by {tensor} GPUs.")
    if shape.layers and shape.layers < pipeline:
        yield _refuse(f"{shape.layers} layers do not make {pipeline} pipeline stages.")


def _grouped(case: Case, shape: ModelShape) -> Iterator[Finding]:
    """Groups and blocks have to lie whole on one GPU, or they would need another GPU's scales."""
    layers = tuple(_layers(shape, case.tensor_parallel))
    if case.method.split == "group":
        yield from _groups(case, shape, layers)
    elif case.method.split == "block":
        yield from _blocks(case, layers)
    if not case.method.marlin:
        return
    if case.on_cpu:
        yield from _cpu_tiles(case, layers)
    else:
        yield from _marlin_groups(case, shape)
        yield from _marlin_tiles(case, layers)


def _layers(shape: ModelShape, tensor: int) -> Iterator[_Layer]:
    hidden, heads, size = shape.hidden_size, shape.heads, shape.head_dim
    latent = next((one for one in shape.attention if one.kind == "mla"), None)
    if hidden and heads:
        if latent is not None:
            if latent.value_dim:
                yield _Layer("o_proj", heads * latent.value_dim, (hidden,), True)
        elif size:
            # Fewer K/V heads than ranks are repeated.
            kv = max(shape.kv_heads or heads, tensor) * size
            yield _Layer("qkv_proj", hidden, (heads * size, kv, kv), False)
            yield _Layer("o_proj", heads * size, (hidden,), True)
    for name, inner, expert in (
        ("", shape.intermediate_size, False),
        ("the experts' ", shape.moe_intermediate_size, True),
    ):
        if hidden and inner:
            yield _Layer(f"{name}gate_up_proj", hidden, (inner, inner), False, expert)
            yield _Layer(f"{name}down_proj", inner, (hidden,), True, expert)


_SMALLER_GROUPS = (64, 32)
"""Groups that AWQ and GPTQ producers offer below 128, and Marlin takes (marlin_utils.py, 0.32)."""


def _share(case: Case, layer: _Layer) -> int:
    return layer.inputs // case.tensor_parallel if layer.splits_inputs else layer.inputs


def _said(case: Case, layer: _Layer, share: int) -> str:
    if share == layer.inputs:
        return f"{layer.name} has {layer.inputs} inputs"
    return f"{layer.name} has {layer.inputs} inputs, {share} on each of {case.tensor_parallel} GPUs"


def _groups(case: Case, shape: ModelShape, layers: tuple[_Layer, ...]) -> Iterator[Finding]:
    if case.stored_as is not None and shape.quantization == "mxfp4":
        # Only experts are in groups there, and vLLM rounds their sizes up (gpt-oss).
        return
    group = (case.stored_as and shape.group_size) or case.method.group_size or 0
    for layer in layers:
        share = _share(case, layer)
        if group < 2 or group >= layer.inputs or share % group == 0:
            continue
        text = f"{_said(case, layer, share)}: not a whole number of groups of {group}."
        if layer.expert and {"awq", "gptq"} & set(case.method.vllm_names):
            # MoeWNA16 halves the group until it fits, and stops at 32.
            half = group
            while share % half and half > 32:
                half //= 2
            if share % half == 0:
                yield Finding(f"{text} vLLM takes a slower kernel for the experts (moe_wna16).")
                continue
        smaller = next((size for size in _SMALLER_GROUPS if size < group and share % size == 0), 0)
        if smaller and share == layer.inputs and _still_to_be_made(case):
            yield Finding(f"{text} Its checkpoint has to be made with groups of {smaller}.")
            continue
        yield _refuse(text, why=case.method.source_of("split"))
        return


def _still_to_be_made(case: Case) -> bool:
    return case.stored_as is None and not case.method.in_flight


def _marlin_groups(case: Case, shape: ModelShape) -> Iterator[Finding]:
    group = shape.group_size if case.stored_as is not None else None
    if group is None or group in MARLIN_GROUPS or case.version < CATALOGUE_VLLM:
        return
    text = f"Its groups are of {group}: Marlin takes 32, 64, 128 or a whole channel"
    if case.method.name == "gptq":
        yield Refused(
            f"{text}, and vLLM has no other kernel for GPTQ.",
            why="vLLM 0.32, quantization/auto_gptq.py, AutoGPTQLinearMethod.",
            fix="Take another quantized copy of the model, or the 16-bit one.",
        )
    else:
        yield Finding(f"{text}: vLLM takes a slower kernel.")


def _blocks(case: Case, layers: tuple[_Layer, ...]) -> Iterator[Finding]:
    """Both sides of each block (vLLM 0.32, quantization/utils/fp8_utils.py, validate_fp8_block_shape)."""
    rows, columns = case.method.tile or (128, 128)
    tensor = case.tensor_parallel
    for layer in layers:
        share = _share(case, layer)
        if layer.splits_inputs and tensor > 1 and share % columns:
            text = f"{_said(case, layer, share)}: not a whole number of blocks of {columns}."
            yield _refuse(text, why=case.method.source_of("split"))
            return
        # Of parts that are fused but not divided, the last may end in a part of a block.
        parts = layer.outputs if tensor > 1 or layer.expert else layer.outputs[:-1]
        for part in () if layer.splits_inputs else parts:
            if part // tensor % rows:
                text = (
                    f"{layer.name} has a part of {part} outputs"
                    + (f", {part // tensor} on each of {tensor} GPUs" if tensor > 1 else "")
                    + f": not a whole number of blocks of {rows}."
                )
                yield _refuse(text, why=case.method.source_of("split"))
                return


def _cpu_tiles(case: Case, layers: tuple[_Layer, ...]) -> Iterator[Finding]:
    for layer in layers:
        outputs = sum(layer.outputs)
        if layer.inputs % _CPU_TILE or outputs % _CPU_TILE:
            yield Refused(
                f"{layer.name} is {outputs} x {layer.inputs}: the CPU's 4-bit kernel takes multiples of {_CPU_TILE}.",
                why="vLLM 0.32, kernels/linear/mixed_precision/cpu.py.",
                fix="Choose another method, or a GPU.",
            )
            return


def _marlin_tiles(case: Case, layers: tuple[_Layer, ...]) -> Iterator[Finding]:
    """The first dense layer that is no whole number of tiles, and the first of the experts."""
    for of_experts in (False, True):
        odd = (_odd_tile(case, one) for one in layers if one.expert == of_experts)
        yield from [found for found in odd if found is not None][:1]


def _odd_tile(case: Case, layer: _Layer) -> Finding | None:
    outputs, inputs = MARLIN_TILE
    share = _share(case, layer)
    made = sum(layer.outputs) // (1 if layer.splits_inputs else case.tensor_parallel)
    if share % inputs == 0 and made % outputs == 0:
        return None
    if layer.expert and layer.inputs % inputs and not layer.splits_inputs:
        return Finding(
            f"The hidden size {layer.inputs} is no multiple of {inputs}: vLLM takes a slower kernel than Marlin "
            "for the experts."
        )
    text = (
        f"{layer.name} is {made} x {share} on a GPU: Marlin takes multiples of {outputs} x {inputs}"
    )
    if case.version >= _MARLIN_PADS:
        return Finding(f"{text} and pads it, which costs some speed.")
    if case.dtype in ("float16", "half"):
        return Finding(f"{text}: vLLM {dotted(case.version)} takes a slower kernel.")
    return _refuse(
        f"{text}, and vLLM {dotted(case.version)} has no other kernel for bfloat16.",
        why="vLLM, quantization/utils/marlin_utils.py, before it padded (0.24).",
    )


def _refuse(text: str, *, why: str = "") -> Refused:
    return Refused(
        text,
        why=why or "vLLM divides heads, layers and inner sizes evenly.",
        fix="Choose a smaller tensor parallel size, or pipeline parallel.",
        code=_CODE,
    )
