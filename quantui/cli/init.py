"""``quantui init``: write a profile for a model and, if there is one, an adapter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from quantui.cli.output import console, say
from quantui.domain.errors import ExitCode, QuantuiError
from quantui.domain.terminal_text import sanitize

if TYPE_CHECKING:
    import argparse

    from rich.console import Console

    from quantui.runtime.suggestion import Suggestion


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help="folder or Hub id; unset: the adapter's base"
    )
    parser.add_argument("--adapter", metavar="A", help="folder or Hub id of a LoRA adapter")
    parser.add_argument(
        "--method",
        metavar="M",
        help="quantization method; unset: what `quantui recommend` ranks first of those that need "
        "no other checkpoint, and it is told why",
    )
    parser.add_argument(
        "--use-case", metavar="U", help="what counts without --method; see quantui recommend"
    )
    parser.add_argument("--out", metavar="FILE", default="prod.toml", help="default: prod.toml")
    parser.add_argument("--force", action="store_true", help="replace FILE when it exists")


def run(args: argparse.Namespace) -> int:
    """Look the model up, and write the profile with every option explained."""
    from quantui.domain.adapter_match import base_of, check_adapter_fits
    from quantui.domain.choosing.use_cases import DEFAULT_USE_CASE, use_case
    from quantui.domain.draft import AdapterChoice, Draft, ModelChoice, QuantizationChoice
    from quantui.domain.four_bit import sixteen_bit_base
    from quantui.domain.methods import method
    from quantui.domain.producing.recipes import recipe_for
    from quantui.runtime.known_profiles import note_profile
    from quantui.runtime.models import resolve_adapter, resolve_model
    from quantui.runtime.profile_file import save_profile
    from quantui.runtime.suggestion import suggest

    path = Path(args.out)
    if path.exists() and not args.force:
        raise QuantuiError(
            "init.exists", f"{path} exists.", fix="Give another --out, or --force to replace it."
        )
    use = use_case(args.use_case or DEFAULT_USE_CASE).name
    if args.method is not None:
        method(args.method)
    if args.model is None and args.adapter is None:
        raise QuantuiError(
            "init.nothing",
            "Neither a model nor an adapter is named.",
            fix="quantui init MODEL, or quantui init --adapter ADAPTER",
        )
    adapter = resolve_adapter(args.adapter) if args.adapter else None
    ref = args.model
    if ref is None and adapter is not None:
        named = base_of(adapter)
        ref = sixteen_bit_base(named) or named
    model = resolve_model(ref)
    if adapter is not None:
        check_adapter_fits(model, adapter)
    if args.method is not None:
        recipe_for(QuantizationChoice(method=args.method), model)
    suggested = None if args.method else suggest(model, adapter, use)
    draft = Draft(
        model=ModelChoice(id=_portable(ref), revision=model.revision),
        adapter=AdapterChoice(
            id=_portable(args.adapter) if args.adapter else None,
            revision=adapter.revision if adapter else None,
        ),
        quantization=QuantizationChoice(method=args.method or "none"),
    )
    if suggested is not None:
        draft = suggested.applied_to(draft)
    save_profile(path, draft, afresh=True)
    note_profile(path, draft.title)
    out = console()
    out.print(f"wrote {sanitize(str(path))}")
    if args.method is None:
        _tell(out, suggested)
    out.print(f"  see what it would do:  quantui --profile {sanitize(str(path))} --check")
    out.print(f"  do it:                 quantui --profile {sanitize(str(path))}")
    return ExitCode.OK


def _tell(out: Console, suggested: Suggestion | None) -> None:
    """Which method was written and why: it was not the user's word."""
    if suggested is None:
        say(
            out,
            "  method:  none, for nothing can be recommended here: `quantui recommend` says why",
        )
        return
    say(
        out,
        f"  method:  {suggested.method} ({sanitize(suggested.title)}), {suggested.rank}",
        indent=11,
    )
    for reason in suggested.reasons:
        say(out, f"           {sanitize(reason)}", indent=11)
    say(out, "           --method takes another, --method none the checkpoint as it is", indent=11)


def _portable(ref: str) -> str:
    """Folders absolute, so that the profile may be put anywhere; Hub ids as they are."""
    folder = Path(ref).expanduser()
    return str(folder.absolute()) if folder.is_dir() else ref
