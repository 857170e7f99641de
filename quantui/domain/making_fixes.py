"""Changes to what is served, how it is made and how it is checked that may help a failed run; see fixes.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.answers import key_of
from quantui.domain.fix_case import Fix, option
from quantui.domain.plan import MergeStep, QuantizeStep
from quantui.domain.units import GIB

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.fix_case import Case


def merge_on_cpu(case: Case) -> Iterator[Fix]:
    """RAM instead of a GPU's memory."""
    if case.draft.merge.device != "cpu":
        yield option("merge", "device", "cpu", "merge on the CPU (merge.device = cpu)")


def serve_unmerged(case: Case) -> Iterator[Fix]:
    """The adapter beside its base at run time."""
    draft = case.draft
    one = len(draft.adapter.refs) == 1 and draft.adapter.weights in ((), (1.0,))
    if one and draft.merge.on_failure != "serve-lora" and draft.quantization.method == "none":
        words = "serve the adapter beside its base, unmerged (merge.on_failure = serve-lora)"
        yield option("merge", "on_failure", "serve-lora", words)


def make_again(case: Case) -> Iterator[Fix]:
    """What was made before may be damaged: make it anew."""
    plan = case.plan
    if plan is None:
        return
    if isinstance(plan.step("quantize"), QuantizeStep):
        words = "quantize again (quantization.recreate)"
        yield option("quantization", "recreate", True, words)
    if isinstance(plan.step("merge"), MergeStep):
        yield option("merge", "recreate", True, "merge again (merge.recreate)")


def quantize_on_cpu(case: Case) -> Iterator[Fix]:
    """RAM instead of a GPU's memory."""
    if case.draft.quantization.device != "cpu":
        words = "quantize on the CPU, slower (quantization.device = cpu)"
        yield option("quantization", "device", "cpu", words)


def less_calibration(case: Case) -> Iterator[Fix]:
    """Half the calibration data: less memory while quantizing."""
    here = case.draft.quantization
    if here.calibration_length > 256:
        half = here.calibration_length // 2
        words = f"calibrate on samples of {half} tokens (quantization.calibration_length was {here.calibration_length})"
        yield option("quantization", "calibration_length", half, words)


def more_calibration(case: Case) -> Iterator[Fix]:
    """Twice the calibration data, and finer groups: a closer result."""
    here = case.draft.quantization
    if here.calibration_samples < 1024:
        twice = here.calibration_samples * 2
        words = f"calibrate on {twice} samples (quantization.calibration_samples was {here.calibration_samples})"
        yield option("quantization", "calibration_samples", twice, words)
    step = case.plan.step("quantize") if case.plan else None
    group = step.recipe.group_size if isinstance(step, QuantizeStep) else here.group_size
    if group is not None and group > 32:
        words = f"groups of {group // 2} weights (quantization.group_size was {group})"
        yield option("quantization", "group_size", group // 2, words)


def other_producer(case: Case) -> Iterator[Fix]:
    """The method's first producer instead of the one that was named."""
    if case.draft.quantization.producer != "auto":
        words = f"let quantui choose what makes it (quantization.producer was {case.draft.quantization.producer})"
        yield option("quantization", "producer", "auto", words)


def any_loss(case: Case) -> Iterator[Fix]:
    """Take the loss that was measured."""
    limit = case.draft.quantization.max_loss
    if limit is not None:
        words = f"take the loss that was measured (quantization.max_loss was {limit:.0%})"
        yield option("quantization", "max_loss", None, words)


def free_merged(case: Case) -> Iterator[Fix]:
    """The merged model goes as soon as it is not needed."""
    plan = case.plan
    merged = plan.step("merge") if plan else None
    if isinstance(merged, MergeStep) and case.draft.cleanup.after_run != "delete-merged":
        words = (
            f"delete the merged model, {merged.bytes / GIB:.2f} GiB, once it is not needed "
            "(cleanup.after_run = delete-merged)"
        )
        yield option("cleanup", "after_run", "delete-merged", words)


def look_at_caches(case: Case) -> Iterator[Fix]:
    """What takes the disk, to choose from: nothing is deleted unasked."""
    could_go = sum(line.startswith("could go: ") for line in case.error.detail)
    found = " (the error names what could go)" if could_go else ""
    yield Fix(f"look at what takes the disk and delete some of it{found}", opens="cache")


def other_method(case: Case) -> Iterator[Fix]:
    """The best other choice that fits."""
    yield from _other(case, smaller=False)


def smaller_method(case: Case) -> Iterator[Fix]:
    """The best other choice whose weights are smaller."""
    yield from _other(case, smaller=True)


def _other(case: Case, *, smaller: bool) -> Iterator[Fix]:
    now = case.plan.estimate.weight_bytes if case.plan else None
    for choice in case.choices:
        weights = choice.fit.weights.bytes
        if not choice.ready or choice.method == case.draft.quantization.method:
            continue
        if smaller and (now is None or weights >= now):
            continue
        words = f"another method: {choice.title}, weights {weights / GIB:.2f} GiB"
        was = f" (they were {now / GIB:.2f})" if now else ""
        yield Fix(words + was, {}, key_of(choice))
        return


def no_limit(case: Case) -> Iterator[Fix]:
    """Serve whatever the perplexity is."""
    limit = case.draft.check.max_perplexity
    if limit is not None:
        words = f"serve it all the same (check.max_perplexity was {limit:g})"
        yield option("check", "max_perplexity", None, words)


def no_text(case: Case) -> Iterator[Fix]:
    """Check without a text."""
    if case.draft.check.text is not None:
        yield option("check", "text", None, "check without the text file (check.text is unset)")


def longer_answer(case: Case) -> Iterator[Fix]:
    """More tokens for the answer."""
    now = case.draft.check.max_tokens
    if now < 4096:
        more = min(4096, now * 4)
        words = f"let it answer up to {more} tokens (check.max_tokens was {now})"
        yield option("check", "max_tokens", more, words)
