"""Methods that load the model: scale or rotate it, round it, write it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import quantui_wire as wire
from peft_merging import base, side_files
from quantizing import calibration, groups, models, reference
from quantizing.producing import Made
from streaming_merge import checkpoint

from llm_compressor_recipes import (
    carrying_out,
    experts,
    leaving,
    needs,
    precision,
    rotations,
    same_function,
    schemes,
    smoothing,
)

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from quantizing.job import Job
    from quantizing.producing import Clock

SMOOTHING = 0.8
"""SmoothQuant's migration strength: what llm-compressor's examples take for models like Llama
(examples/quantization_w8a8_int8)."""


def make(job: Job, folder: Path, clock: Clock) -> Made:
    """Quantize the job's model into ``folder``.

    Raises:
        WorkerError: ``quantize.needs-data``, ``quantize.bad-pattern``, ``quantize.group-size``,
            ``quantize.nothing-left``, ``quantize.unsupported-architecture``,
            ``quantize.not-enough-memory``, ``quantize.reads-model-wrongly``,
            ``quantize.changes-model``, ``quantize.producer-failed``, ``calibration.*`` and what
            loading raises.
    """
    recipe = job.recipe
    group = schemes.group_size(recipe)
    schemes.refuse_without_data(recipe, with_data=job.calibration is not None)
    leaving.refuse_bad_patterns(recipe.ignore)
    groups.check_groups(job.model, group, (*recipe.ignore, *leaving.ALWAYS))
    with clock.phase("load"):
        source = checkpoint.read_checkpoint(job.model)
        wide = computes_wide(job, source)
        model = models.load_model(dataclasses.replace(job, device="cpu"))
        experts.take_apart(model, source)
        tokenizer = models.load_tokenizer(job)
        left, linear = choose(model, recipe.ignore)
        refuse(model, job, linear, left, group)
    with clock.phase("compare"):
        compared = reference.compare(job, model)
    samples = calibration.samples(job, tokenizer) if job.calibration else None
    check_room(job, source, samples.ids if samples else [], wide=wide)
    with clock.phase("calibrate"):
        stored = model.dtype
        was = precision.widen(model) if wide else {}
        work = Work(job, model, tokenizer, samples.ids if samples else None, left)
        call = work.carry_out(scales=stored if wide else None)
        if wide:
            precision.narrow(model, was)
    with clock.phase("save"):
        save(model, job.model, folder, source.bytes)
    return Made(
        call,
        calibration=samples.report if samples else None,
        reference=compared,
        recipe={
            "computed_in": "float32" if wide else str(stored).removeprefix("torch."),
            **work.facts,
        },
    )


def computes_wide(job: Job, source: checkpoint.Checkpoint) -> bool:
    """Whether to compute in float32: a CPU that is slow in the model's dtype, and enough memory for it."""
    dtypes = {tensor.dtype for tensor in source.tensors.values()}
    names = {"BF16": "bfloat16", "F16": "float16"}
    slow = any(precision.slow_on_cpu(names[one]) for one in dtypes & set(names))
    if job.on_gpu or not slow:
        return False
    asked = job.calibration or {}
    length = int(asked.get("length") or 512)
    tokens = int(asked.get("samples") or 128) * length if asked else 0
    wanted = needs.ram_bytes(source, job.recipe, tokens, length, wide=True)
    return wanted + base.LIBRARIES <= models.free_ram(job.memory_limit_bytes)


def check_room(
    job: Job, source: checkpoint.Checkpoint, ids: list[list[int]], *, wide: bool
) -> None:
    """Refuse work that does not fit beside the loaded model.

    Raises:
        WorkerError: ``quantize.not-enough-memory``.
    """
    tokens, longest = sum(map(len, ids)), max(map(len, ids), default=0)
    # The weights have been loaded, in the checkpoint's own dtype.
    more = needs.ram_bytes(source, job.recipe, tokens, longest, wide=wide) - source.bytes
    what = f"Calibrating {job.recipe.method} on {tokens} tokens" if tokens else "Rounding"
    models.check_memory(dataclasses.replace(job, device="cpu"), more, what)
    if job.on_gpu:
        models.check_memory(job, needs.layer_bytes(source, job.recipe), what)


def choose(model: Any, ignore: tuple[str, ...]) -> tuple[list[str], list[str]]:  # noqa: ANN401
    """Names of the linear layers that stay in 16 bit, and of those that are quantized."""
    import torch

    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    left = leaving.resolve(ignore, names)
    leaving.refuse_nothing(left, names, type(model).__name__)
    return left, [name for name in names if name not in set(left)]


def refuse(model: Any, job: Job, linear: list[str], left: list[str], group: int | None) -> None:  # noqa: ANN401
    """Refuse before calibration what would fail or go wrong after it.

    Raises:
        WorkerError: ``quantize.bad-pattern``, ``quantize.group-size``, ``quantize.unsupported-architecture``.
    """
    method = job.recipe.method
    if method.startswith("rotations_"):
        heads = [name for name in left if name.rpartition(".")[2] == "lm_head"]
        rotations.refuse_unknown(model, [*linear, *heads])
    elif method in ("awq", "int8_w8a8"):
        smoothing.refuse_unknown(model, method)
    if group is None:
        return
    for name in linear:
        size = model.get_submodule(name).in_features
        if size % group:
            raise wire.WorkerError(
                "quantize.group-size",
                f"The group size {group} does not divide {name}, which takes in {size} features.",
                "It is an expert's layer, or named otherwise in the checkpoint.",
                "Choose a smaller group size, -1 (a whole row), or leave that layer in 16 bit with --ignore.",
                exit_code=2,
            )


class Work:
    """One recipe on one model; ``facts`` are what the result tells of it beside the recipe."""

    def __init__(
        self,
        job: Job,
        model: Any,  # noqa: ANN401
        tokenizer: Any,  # noqa: ANN401
        ids: list[list[int]] | None,
        left: list[str],
    ) -> None:
        self.job, self.model, self.tokenizer, self.ids, self.left = job, model, tokenizer, ids, left
        self.facts: dict[str, Any] = {}

    def carry_out(self, scales: torch.dtype | None) -> str:
        """Transform and round; give the library call in short."""
        recipe = self.job.recipe
        preset = schemes.preset(recipe, with_data=self.ids is not None)
        self._scheme = schemes.scheme(recipe, with_data=self.ids is not None, scales=scales)
        rounded = f"{preset}, ignore={len(self.left)} layers"
        if recipe.method == "awq":
            from llmcompressor.modifiers.transform.awq import AWQModifier

            before = same_function.ask(self.job, self.model)
            scaling = AWQModifier(mappings=smoothing.for_awq(self.model))
            self._run([scaling, self._round(learned=False)], self.ids, "AWQ")
            with unquantized(self.model):
                self._refuse_changed(before, "AWQ's scaling")
            call = f"oneshot([AWQModifier(), QuantizationModifier({rounded})])"
        else:
            call = self._transform()
            learned = recipe.method == "gptq" or self._gptq_wanted()
            name = "GPTQModifier" if learned else "QuantizationModifier"
            self._run([self._round(learned=learned)], self.ids, "GPTQ" if learned else "rounding")
            call += f"oneshot([{name}({rounded})])"
        # A reader of the config needs the dtype of the scales only where it is the format's own.
        for module in self.model.modules():
            found = getattr(module, "quantization_scheme", None)
            if found is not None and scales is not None and found.weights.scale_dtype == scales:
                found.weights.scale_dtype = None
        return call

    def _gptq_wanted(self) -> bool:
        """INT8 and rotated models are rounded by GPTQ where there are data, unless told otherwise."""
        recipe = self.job.recipe
        can = recipe.method == "int8_w8a8" or recipe.method.startswith("rotations_")
        return can and self.ids is not None and recipe.rounding != "rtn"

    def _transform(self) -> str:
        """Smooth or rotate, and compare; the call in short, or an empty string."""
        method = self.job.recipe.method
        if method == "int8_w8a8" and self.ids is not None:
            from llmcompressor.modifiers.transform import SmoothQuantModifier

            before = same_function.ask(self.job, self.model)
            mappings = smoothing.for_smoothquant(self.model)
            smooth = SmoothQuantModifier(smoothing_strength=SMOOTHING, mappings=mappings)
            self._run([smooth], self.ids, "SmoothQuant")
            self._refuse_changed(before, "SmoothQuant's scaling")
            return f"oneshot([SmoothQuantModifier({SMOOTHING})]); "
        if method.startswith("rotations_"):
            before = same_function.ask(self.job, self.model)
            rotation, kind = rotations.modifier(self.model)
            self._run([rotation], None, "rotation")
            self._refuse_changed(before, "The rotation")
            self.facts["rotation"] = kind
            return f"oneshot([SpinQuantModifier(R1, R2, {kind})]); "
        return ""

    def _refuse_changed(self, before: same_function.Said, what: str) -> None:
        import torch

        wide = "float32" if self.model.dtype == torch.float32 else "16 bit"
        found = same_function.refuse_changed(self.job, before, self.model, what, wide)
        self.facts["changed_before_rounding"] = found

    def _round(self, *, learned: bool) -> Any:  # noqa: ANN401
        from llmcompressor.modifiers.gptq import GPTQModifier
        from llmcompressor.modifiers.quantization import QuantizationModifier

        kind = GPTQModifier if learned else QuantizationModifier
        return kind(config_groups={"group_0": self._scheme}, ignore=self.left)

    def _run(self, modifiers: list[Any], ids: list[list[int]] | None, doing: str) -> None:
        carrying_out.run(self.job, self.model, modifiers, ids, self.tokenizer, doing)


class unquantized:  # noqa: N801 - a context manager is named like a function
    """The model answers with its weights unrounded inside the block."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401
        self._model = model

    def __enter__(self) -> None:
        from compressed_tensors.quantization import disable_quantization

        self._model.apply(disable_quantization)

    def __exit__(self, *_: object) -> None:
        from compressed_tensors.quantization import enable_quantization

        self._model.apply(enable_quantization)


def save(model: Any, source: Path, folder: Path, expected: int) -> None:  # noqa: ANN401
    """Write the compressed weights and config, and beside them all else that the source has.

    The generation config is the source's file, as it is: transformers refuses to write some that it reads.
    """
    import transformers

    model.generation_config = transformers.GenerationConfig()
    with models.saving(folder, expected):
        model.save_pretrained(folder, save_compressed=True, max_shard_size="5GB")
    # Of the last stage alone; the whole recipe is the result's.
    (folder / "recipe.yaml").unlink(missing_ok=True)
    side_files.copy_side_files(source, source, folder, "base")
    leaving.name_in_config(folder)
