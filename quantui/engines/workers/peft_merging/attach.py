"""Put the adapter onto the base with PEFT, and refuse anything but a whole fit."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import adapter_rules
from quantui_wire import WorkerError, notice
from streaming_merge.adapter_files import PREFIX
from streaming_merge.refusals import keys_unmatched, no_key_matched, shape_mismatch

if TYPE_CHECKING:
    import torch
    from peft import PeftModel

    from peft_merging.adapter import Adapter

NAME = "default"
"""The name PEFT knows the adapter by."""


def plain_name(key: str) -> str:
    """An adapter key as the base names the same thing: without PEFT's prefix and wrappers."""
    return key.removeprefix(PREFIX).replace(".base_layer.", ".")


def untie_if_needed(model: Any, adapter: Adapter) -> bool:  # noqa: ANN401
    """Give a tied model a head of its own where the adapter treats head and embedding differently.

    PEFT 0.21 merges into the one tensor that both share, so that each gets the other's change. Ties
    that the adapter keeps itself (``ensure_weight_tying``, ``trainable_token_indices``) stay.
    Returns whether head and embedding are tied or were, and the adapter touches one of them: then
    only the logits can prove the merge.
    """
    import torch

    resize_if_needed(model, adapter)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or embedding is None or head.weight.data_ptr() != embedding.weight.data_ptr():
        return False
    names = {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if module in (head, embedding)
    }
    if not any(names & set(key.split(".")) for key in adapter.tensors):
        return False
    if adapter.config.get("ensure_weight_tying") or adapter.config.get("trainable_token_indices"):
        return True
    head.weight = torch.nn.Parameter(embedding.weight.detach().clone(), requires_grad=False)
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    notice("The adapter parts the output head from the embedding: the head is stored on its own.")
    return True


def resize_if_needed(model: Any, adapter: Adapter) -> None:  # noqa: ANN401
    """Take on the vocabulary of an adapter that was trained with added tokens."""
    for key, tensor in adapter.tensors.items():
        if "lora_" in key or tensor.ndim != 2:
            continue
        embedding = model.get_input_embeddings()
        rows = embedding.weight.shape[0]
        is_vocabulary = plain_name(key).endswith(("embed_tokens.weight", "lm_head.weight"))
        if (
            is_vocabulary
            and tensor.shape[0] != rows
            and tensor.shape[1] == embedding.weight.shape[1]
        ):
            notice(f"The adapter has {tensor.shape[0]} tokens and the base {rows}: resized.")
            model.resize_token_embeddings(tensor.shape[0], mean_resizing=False)


def attach(model: Any, adapter: Adapter, device: str, name: str = NAME) -> PeftModel:  # noqa: ANN401
    """The base with the adapter on it, unmerged, every adapter tensor in its place in float32.

    ``model`` may have adapters of other names already; the one added last is not active then.

    Raises:
        WorkerError: ``merge.no-key-matched``, ``merge.keys-unmatched``, ``merge.shape-mismatch``,
            ``merge.not-mergeable``.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(adapter.folder))
    config.inference_mode = True
    named = isinstance(getattr(config, "init_lora_weights", None), str)
    if named and not adapter_rules.changes_base(adapter.config):
        # Every value is overwritten; some initializations decompose each weight first.
        config.init_lora_weights = True
    if not adapter.tensors:
        raise no_key_matched(adapter.folder, 0)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if isinstance(model, PeftModel):
                wrapped = model
                wrapped.add_adapter(name, config)
            else:
                wrapped = PeftModel(model, config, name)
            loaded = wrapped.load_adapter(str(adapter.folder), name, torch_device=device)
    except ValueError as error:
        # "Target modules ... not found in the base model": PEFT has no class for it.
        if "not found" in str(error) or "No modules were targeted" in str(error):
            raise no_key_matched(
                adapter.folder, len(adapter.tensors), [str(error)[:300]]
            ) from error
        raise WorkerError(
            "merge.not-mergeable",
            f"PEFT cannot put the adapter in {adapter.folder} onto this base.",
            str(error)[:500],
            "Check that the adapter was made for this base.",
            exit_code=2,
        ) from error
    except KeyError as error:
        raise keys_unmatched(adapter.folder, [], [str(error.args[0])]) from error
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        lines = [line.strip() for line in str(error).splitlines() if "size mismatch" in line]
        raise shape_mismatch(adapter.folder, lines) from error
    unexpected = [key for key in loaded.unexpected_keys if not _is_repeated(adapter, key)]
    if len(unexpected) >= len(adapter.tensors):
        raise no_key_matched(adapter.folder, len(adapter.tensors), unexpected)
    if loaded.missing_keys or unexpected:
        raise keys_unmatched(adapter.folder, unexpected, loaded.missing_keys)
    return wrapped.eval()


def _is_repeated(adapter: Adapter, key: str) -> bool:
    """Whether ``key`` repeats another: PEFT 0.21 writes a saved, resized embedding twice."""
    import torch

    other = adapter.tensors.get(key.replace(".modules_to_save.", "."))
    own = adapter.tensors.get(key)
    if ".modules_to_save." not in key or own is None or other is None:
        return False
    return bool(torch.equal(own, other))


def replaced_tensors(adapter: Adapter) -> dict[str, torch.Tensor]:
    """Whole tensors that the adapter brings, by the name of the base's tensor they replace."""
    # A saved module's original is the base's, and its copy under modules_to_save is a repetition.
    marks: tuple[str, ...] = (
        ".original_module.",
        ".modules_to_save.",
        "lora_",
        "trainable_tokens_",
        "ia3_",
        "hada_",
        "lokr_",
        "vera_",
        "oft_",
        "boft_",
    )
    if not adapter.is_lora:
        marks = (*marks, f"{adapter.config['peft_type'].lower()}_")
    return {
        plain_name(key): tensor
        for key, tensor in adapter.tensors.items()
        if not any(mark in key for mark in marks)
    }
