"""Rotations R1 and R2 of SpinQuant fused into the weights: what they need of a model, and which matrix.

R1 turns the residual stream, R2 each head's values; both leave what the model says as it was, and flatten
the outliers that 4 bit cannot hold (Liu et al. 2024, SpinQuant, https://arxiv.org/abs/2405.16406; Ashkboos
et al. 2024, QuaRot, https://arxiv.org/abs/2404.00456). llm-compressor 0.14 offers no learning of them
(``learnable`` is refused by SpinQuantModifier). R3 and R4 need an operation while serving.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from quantui_wire import WorkerError

if TYPE_CHECKING:
    from collections.abc import Iterable

_TURNED = re.compile(r"\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)$|^lm_head$")
_NORMS = {"input_layernorm", "post_attention_layernorm", "q_norm", "k_norm"}
"""Norms of a decoder layer as Llama has them, and those of single heads, which see neither rotation."""


def refuse_unknown(model: Any, linear: Iterable[str]) -> None:  # noqa: ANN401 - transformers has no stubs
    """Refuse a model that is not wired like Llama.

    Every linear layer must take its input from the residual stream or give its output to it in the way
    llm-compressor's mapping says, and no norm may stand where its scale cannot be moved into the next layer.

    Raises:
        WorkerError: ``quantize.unsupported-architecture``.
    """
    import torch

    foreign = [name for name in linear if not _TURNED.search(name)]
    norms = [
        name
        for name, module in model.named_modules()
        if re.search(r"\.\d+\.(.*)norm[^.]*$", name)
        and hasattr(module, "weight")
        and name.rpartition(".")[2] not in _NORMS
    ]
    lacking = [
        kind
        for kind in ("v_proj", "o_proj", "down_proj")
        if not any(name.endswith(kind) for name in linear)
    ]
    experts = [name for name in linear if ".experts." in name]
    centring = [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.LayerNorm)
    ]
    why = (
        f"{foreign[0]} is no layer of Llama's." if foreign
        else f"{experts[0]} is an expert's, and its router would see turned inputs." if experts
        else f"{norms[0]} stands behind a layer, where it cannot be moved into the next one." if norms
        else f"{centring[0]} subtracts a mean, which a rotation moves." if centring
        else f"It has no {lacking[0]}." if lacking
        else "It has no head of its own (lm_head)." if model.get_output_embeddings() is None
        else _unmatched(model) or _odd(model)
    )  # fmt: skip
    if why:
        raise WorkerError(
            "quantize.unsupported-architecture",
            f"{type(model).__name__} cannot be rotated.",
            f"{why} llm-compressor knows rotations for models wired like Llama.",
            "Choose awq, gptq or autoround for 4 bit, int8_w8a8 or fp8_dynamic for 8 bit.",
            exit_code=3,
        )


def _unmatched(model: Any) -> str:  # noqa: ANN401
    """Why the library's norms do not stand before the layers it takes them for; empty when they do."""
    from compressed_tensors.utils import match_modules_set
    from llmcompressor.modifiers.transform.spinquant import norm_mappings

    try:
        for one in norm_mappings.infer_norm_mapping_from_model(model):
            if not sum(1 for _ in match_modules_set(model, (one.norm, *one.linears))):
                return f"It has no {one.norm.removeprefix('re:.*').rstrip('$')}."
    except ValueError as error:
        return f"Its norms do not stand before the layers of Llama's: {error}"[:300]
    return ""


def _odd(model: Any) -> str:  # noqa: ANN401
    """Why there is no matrix for the model's sizes; empty when there is."""
    sizes = _sizes(model)
    if matrix_kind(*sizes):
        return ""
    return f"No Hadamard matrix of its sizes ({sizes[0]} and {sizes[1]} a head) is known."


def modifier(model: Any) -> tuple[Any, str]:  # noqa: ANN401
    """The SpinQuantModifier for ``model``, and the kind of matrix that its sizes allow."""
    from llmcompressor.modifiers.transform import SpinQuantModifier

    class Rotation(SpinQuantModifier):  # type: ignore[misc]  # the library has no types
        """SpinQuantModifier that does not centre embeddings.

        Subtracting each embedding's mean leaves what LayerNorm gives as it was, and changes what RMSNorm
        gives; the library (0.14, modifiers/transform/spinquant/base.py) does it to both. Models with
        LayerNorm are refused.
        """

        def _center_embeddings(self, model: Any) -> None:  # noqa: ANN401
            pass

    kind = matrix_kind(*_sizes(model))
    return Rotation(rotations=["R1", "R2"], transform_type=kind), kind


def _sizes(model: Any) -> tuple[int, int]:  # noqa: ANN401
    """The sizes that R1 and R2 turn: of the residual stream and of a head."""
    from compressed_tensors.utils import get_head_dim

    text = model.config.get_text_config()
    return int(text.hidden_size), int(get_head_dim(text))


def matrix_kind(*sizes: int) -> str:
    """``hadamard`` for powers of two, ``random-hadamard`` where a Hadamard matrix is known; else empty.

    The library's third kind, ``random-matrix``, turns nothing: it is not orthogonal, and RMSNorm then
    gives something else.
    """
    import torch

    if all(size & (size - 1) == 0 for size in sizes):
        return "hadamard"
    from compressed_tensors.transform.utils.hadamard import random_hadamard_matrix

    try:
        for size in sizes:
            random_hadamard_matrix(size, torch.float32, torch.device("cpu"))
    except ValueError:
        return ""
    return "random-hadamard"
