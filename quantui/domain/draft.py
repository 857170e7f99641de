"""The choices of one deployment: what the wizard asks, a profile records and a plan is built from.

Every option is declared once, here, with its meaning and limits. The profile's comments, its checks, the
``--set`` flag and the wizard's advanced options all read these declarations.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

PRODUCERS = (
    "llm-compressor",
    "auto-round",
    "autoawq",
    "gptqmodel",
    "torchao",
    "bitsandbytes",
    "onnxruntime",
)
"""The libraries that make quantized checkpoints, by the names of ``quantization.producer``."""


@dataclass(frozen=True)
class Option:
    """What is known of an option besides its type: meaning, limits, and an example where it is unset."""

    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    example: Any = None


def option(
    default: Any,  # noqa: ANN401 - any value TOML can hold
    help: str,
    *,
    choices: tuple[str, ...] = (),
    minimum: float | None = None,
    maximum: float | None = None,
    example: Any = None,  # noqa: ANN401
) -> Any:  # noqa: ANN401 - a dataclass field, as `dataclasses.field` types it
    """A dataclass field that carries an :class:`Option`."""
    metadata = {"option": Option(help, choices, minimum, maximum, example)}
    if isinstance(default, dict):
        return field(default_factory=dict, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ModelChoice:
    """The base model."""

    id: str = option("", "Folder or Hub id of the base model.")
    revision: str | None = option(
        None, "Branch, tag or commit of a Hub model; unset: main.", example="main"
    )
    trust_remote_code: bool = option(
        False, "Run Python code that the model's repository ships. Read it first."
    )


@dataclass(frozen=True)
class AdapterChoice:
    """The LoRA adapter, if any, and others that are merged in the same pass."""

    id: str | None = option(None, "Folder or Hub id of a LoRA adapter.", example="./my-lora")
    revision: str | None = option(
        None, "Branch, tag or commit of a Hub adapter; unset: main.", example="main"
    )
    trained_in_4bit: str = option(
        "auto",
        "Was it trained on a 4-bit base (QLoRA)? auto: judged from the evidence beside it.",
        choices=("auto", "yes", "no"),
    )
    also: tuple[str, ...] = option(
        (), "Further adapters to merge with it: folders or Hub ids, a revision after an @."
    )
    weights: tuple[float, ...] = option(
        (), "How much of each adapter goes in, `id` first, then `also`; empty: 1.0 each."
    )

    @property
    def refs(self) -> tuple[str, ...]:
        """Every adapter, in the order that :attr:`weights` follows."""
        return () if self.id is None else (self.id, *self.also)


@dataclass(frozen=True)
class MergeChoice:
    """How the adapter gets into the base."""

    device: str = option(
        "auto",
        "Where to merge. auto: a GPU with 2 GiB free, where that is faster, else the CPU.",
        choices=("auto", "gpu", "cpu"),
    )
    dtype: str = option(
        "auto",
        "Type of the merged weights; auto: the base's own.",
        choices=("auto", "bfloat16", "float16", "float32"),
    )
    tokenizer_from: str = option(
        "auto",
        "Whose tokenizer and chat template. auto: the adapter's where it has them, else the base's.",
        choices=("auto", "base", "adapter"),
    )
    on_failure: str = option(
        "stop",
        "When no device can merge: stop, or serve base and adapter unmerged (vLLM's LoRA support; "
        "one adapter of weight 1).",
        choices=("stop", "serve-lora"),
    )
    verify: str = option(
        "fast",
        "Proof of the merge. fast: sampled rows in float64; logits: also against unmerged PEFT.",
        choices=("fast", "logits"),
    )
    recreate: bool = option(False, "Merge again even when the artifact exists.")


@dataclass(frozen=True)
class QuantizationChoice:
    """How the weights are stored in memory, and how a checkpoint in that format is made.

    What is unset is as the producer has it by default (quantui/data/producers.toml).
    """

    method: str = option("none", "Quantization method; `none` serves the checkpoint as it is.")
    producer: str = option(
        "auto",
        "What makes the checkpoint. auto: vLLM while it loads, where it can, else the method's first.",
        choices=("auto", *PRODUCERS),
    )
    python: str | None = option(
        None,
        "Interpreter that has the producer; unset: found or made.",
        example="/opt/quantize/bin/python",
    )
    bits: int | None = option(
        None, "Bits a weight; unset: the method's.", minimum=2, maximum=8, example=4
    )
    group_size: int | None = option(
        None,
        "Weights that share a scale; -1: a whole row; unset: the producer's.",
        minimum=-1,
        example=128,
    )
    symmetric: bool | None = option(
        None, "Without zero points; unset: the producer's.", example=True
    )
    mixed_bits: int | None = option(
        None,
        "AutoRound: more bits, 6 or 8, for the layers that need them most; the others have 4.",
        minimum=6,
        maximum=8,
        example=8,
    )
    format: str | None = option(
        None,
        "AutoRound: what the checkpoint is written as; unset: auto_round.",
        choices=("auto_round", "auto_gptq", "auto_awq", "llm_compressor"),
        example="auto_round",
    )
    rounding: str | None = option(
        None,
        "INT8 W8A8 and rotations: gptq, on texts, or rtn, to the nearest; unset: the method's.",
        choices=("gptq", "rtn"),
        example="gptq",
    )
    ignore: tuple[str, ...] = option(
        ("lm_head",), "Modules that stay in 16 bit: names, or re: and a regular expression."
    )
    device: str = option(
        "auto",
        "Where to make it. auto: a GPU with room for the model, else the CPU.",
        choices=("auto", "gpu", "cpu"),
    )
    calibration: str = option(
        "builtin",
        "Texts to calibrate on: builtin (English documentation and code), a .txt or .jsonl file, a folder, or "
        "hub:OWNER/NAME[@REVISION][:SPLIT].",
    )
    calibration_samples: int = option(
        128, "How many samples of them; 128 to 512 are usual.", minimum=1, maximum=100_000
    )
    calibration_length: int = option(
        512, "Longest sample, tokens; longer texts are cut.", minimum=8, maximum=1_048_576
    )
    calibration_seed: int = option(0, "Which samples are drawn.", minimum=0, maximum=2**32 - 1)
    proof_text: str | None = option(
        None,
        "Text whose perplexity is compared with the 16-bit model's; unset: check.text, else a built-in one.",
        example="heldout.txt",
    )
    max_loss: float | None = option(
        None,
        "Most that perplexity may grow: 0.02 is 2 %. Unset: only a broken result is refused.",
        minimum=0.0,
        example=0.02,
    )
    recreate: bool = option(False, "Quantize again even when the artifact exists.")


@dataclass(frozen=True)
class EngineChoice:
    """Which interpreter runs vLLM and the merge."""

    name: str = option(
        "auto",
        "Engine. auto: vllm-cuda with a usable NVIDIA GPU, else vllm-cpu.",
        choices=("auto", "vllm-cuda", "vllm-cpu"),
    )
    python: str | None = option(
        None, "Interpreter that has vLLM; unset: found or made.", example="/opt/vllm/bin/python"
    )


@dataclass(frozen=True)
class ServeChoice:
    """How vLLM serves."""

    host: str = option("127.0.0.1", "Address to bind. 0.0.0.0 lets every host in your network in.")
    port: int = option(8000, "TCP port; 0 takes a free one.", minimum=0, maximum=65535)
    served_name: str | None = option(
        None, "Model name in API calls; unset: the model's own.", example="my-model"
    )
    max_model_len: int | None = option(
        None,
        "Longest prompt plus answer, tokens; unset: computed from the model and free memory.",
        minimum=16,
        example=8192,
    )
    max_num_seqs: int | None = option(
        None, "Requests computed at the same time; unset: vLLM's default.", minimum=1, example=64
    )
    tensor_parallel: int = option(1, "GPUs that share each layer.", minimum=1, maximum=64)
    gpu_memory_utilization: float | None = option(
        None,
        "Part of each GPU's memory that vLLM may take; unset: 0.92, less if others use the card.",
        minimum=0.05,
        maximum=1.0,
        example=0.9,
    )
    kv_cache_gib: float | None = option(
        None, "Size of the KV cache, GiB; unset: computed.", minimum=0.01, example=4.0
    )
    visible_devices: tuple[int, ...] = option(
        (), "Indexes of the GPUs to use, in NVML's order; empty: all.", minimum=0
    )
    dtype: str = option(
        "auto",
        "Type of what is not quantized.",
        choices=("auto", "bfloat16", "float16", "float32"),
    )
    enforce_eager: bool = option(
        False, "Skip compilation and CUDA graphs: starts sooner, answers more slowly."
    )
    api_key_env: str | None = option(
        None,
        "Environment variable that holds the API key clients must send. The key itself never goes here.",
        example="VLLM_API_KEY",
    )
    startup_timeout_s: int = option(
        1800, "Give up when the server is not ready after so many seconds.", minimum=10
    )
    extra_args: dict[str, Any] = option(
        {},
        "Further `vllm serve` arguments, without the dashes; checked against the engine's parser.",
    )


@dataclass(frozen=True)
class CheckChoice:
    """How the served model is proven to work."""

    prompt: str = option("The capital of France is", "Prompt that must be answered.")
    max_tokens: int = option(48, "Longest answer to it, tokens.", minimum=1, maximum=4096)
    text: str | None = option(
        None,
        "Text file whose perplexity under the served model is measured.",
        example="heldout.txt",
    )
    max_perplexity: float | None = option(
        None, "Fail when that perplexity is higher.", minimum=1.0, example=12.5
    )


@dataclass(frozen=True)
class CleanupChoice:
    """What a run leaves on the disk."""

    after_run: str = option(
        "keep",
        "Keep the merged model for the next run, or delete-merged: once the server has stopped, or once a "
        "quantized model that is made of it is proven. It stays while another run or process uses it, or another "
        "profile that keeps it.",
        choices=("keep", "delete-merged"),
    )


@dataclass(frozen=True)
class Recorded:
    """What the choices were made on. Written by quantui; a replay tells what differs."""

    saved_at: str | None = option(None, "When, UTC.")
    quantui_version: str | None = option(None, "quantui that wrote this.")
    base_revision: str | None = option(None, "Commit of the base model.")
    base_fingerprint: str | None = option(None, "Content hash of the base model.")
    adapter_revision: str | None = option(None, "Commit of the adapter.")
    adapter_fingerprint: str | None = option(None, "Content hash of the adapter.")
    producer: str | None = option(None, "What made the quantized checkpoint, and its version.")
    recipe: str | None = option(None, "How it was made.")
    calibration_fingerprint: str | None = option(None, "Content hash of the calibration texts.")
    engine: str | None = option(None, "Engine it ran on.")
    vllm_version: str | None = option(None, "vLLM that served it.")
    hardware: str | None = option(None, "GPUs, or the CPU, it ran on.")
    max_model_len: int | None = option(None, "Context that was computed, tokens.")
    expected_weight_bytes: int | None = option(None, "Predicted weights in memory, bytes.")
    measured_weight_bytes: int | None = option(None, "Weights in memory as vLLM told, bytes.")
    kv_cache_tokens: int | None = option(None, "KV cache as vLLM told, tokens.")
    load_seconds: float | None = option(None, "From start to ready, seconds.")


@dataclass(frozen=True)
class Draft:
    """All choices, a section each, as the profile has tables."""

    model: ModelChoice = field(default_factory=ModelChoice)
    adapter: AdapterChoice = field(default_factory=AdapterChoice)
    merge: MergeChoice = field(default_factory=MergeChoice)
    quantization: QuantizationChoice = field(default_factory=QuantizationChoice)
    engine: EngineChoice = field(default_factory=EngineChoice)
    serve: ServeChoice = field(default_factory=ServeChoice)
    check: CheckChoice = field(default_factory=CheckChoice)
    cleanup: CleanupChoice = field(default_factory=CleanupChoice)
    recorded: Recorded = field(default_factory=Recorded)

    @property
    def title(self) -> str:
        """What it does, in a line: ``llama-8b + my-lora, awq``."""
        names = [
            ref.rstrip("/").split("/")[-1] for ref in (self.model.id, *self.adapter.refs) if ref
        ]
        return f"{' + '.join(names) or 'no model'}, {self.quantization.method}"

    def with_option(self, section: str, name: str, value: object) -> Draft:
        """A draft with one option replaced; its type and limits are the profile's to check."""
        changed = dataclasses.replace(getattr(self, section), **{name: value})
        return dataclasses.replace(self, **{section: changed})


SECTIONS: dict[str, type] = {
    "model": ModelChoice,
    "adapter": AdapterChoice,
    "merge": MergeChoice,
    "quantization": QuantizationChoice,
    "engine": EngineChoice,
    "serve": ServeChoice,
    "check": CheckChoice,
    "cleanup": CleanupChoice,
    "recorded": Recorded,
}


def options_of(section: type) -> dict[str, tuple[dataclasses.Field[Any], Option]]:
    """The declared options of a section by name, in order."""
    return {f.name: (f, f.metadata["option"]) for f in dataclasses.fields(section)}
