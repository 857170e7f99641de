"""Whether a vLLM has a method at all: its version, its plugins, the names it registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quantui.domain.methods import method
from quantui.domain.support.method_findings import Finding, Refused, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from quantui.domain.support.method_findings import Case

_NOT_SERVED = {
    "training": "{title} is how an adapter is trained, not a way to serve a model.",
    "other-runtime": "{title} does not run in vLLM: it has a runtime of its own.",
    "research": "{title} is a research method that vLLM has no format for.",
}


def engine_findings(case: Case) -> Iterator[Finding]:
    """What the engine lacks, and what it warns about."""
    chosen = case.method
    if chosen.status in _NOT_SERVED:
        yield _refuse(case, _NOT_SERVED[chosen.status].format(title=chosen.title), chosen.source)
        return
    if chosen.status == "retired" and not chosen.vllm_names:
        yield _refuse(case, f"{chosen.title} has ended.", chosen.summary)
        return
    release = f"vLLM {dotted(case.version)}"
    if chosen.came_after(case.version):
        came = dotted(chosen.since or ())
        text = f"{release} does not have {chosen.title} yet: it came with {came}."
        yield _refuse(case, text, chosen.source_of("since"))
    elif chosen.until and case.version >= chosen.until:
        text = f"{release} no longer has {chosen.title}: it left with {dotted(chosen.until)}."
        yield _refuse(case, text, chosen.source_of("until"))
    else:
        yield from _registered(case)
        if chosen.deprecated_since and case.version >= chosen.deprecated_since:
            yield Finding(
                f"{chosen.title} is deprecated since vLLM {dotted(chosen.deprecated_since)}: "
                "it starts only with --allow-deprecated-quantization."
            )
    if chosen.eager_only:
        yield Finding(f"{chosen.title} runs without CUDA graphs (--enforce-eager).", eager=True)


def _registered(case: Case) -> Iterator[Finding]:
    """The names the engine registers, and the packages beside it, as far as they are known."""
    chosen, plugin = case.method, case.method.plugin
    argument = chosen.argument_in(case.version)
    names = {argument} if argument and case.stored_as is None else set(chosen.vllm_names)
    known = case.capabilities
    needs_plugin = plugin and chosen.plugin_since and case.version >= chosen.plugin_since
    lacks_name = known is not None and names and not names & set(known)
    lacks_plugin = case.packages is not None and plugin not in case.packages
    if needs_plugin and (lacks_name or (lacks_plugin and known is None)):
        assert chosen.plugin_since is not None
        yield Refused(
            f"The engine lacks {plugin}.",
            why=f"vLLM {dotted(case.version)} has {chosen.title} only through it "
            f"(since {dotted(chosen.plugin_since)}).",
            fix=f"Install it there (pip install --no-deps {plugin}), or use quantui's own engine.",
            code="engine.lacks-plugin",
        )
    elif lacks_name:
        yield _refuse(
            case,
            f"The installed vLLM has no quantization method {' or '.join(sorted(names))}.",
            f"It registers {', '.join(sorted(known or ()))}.",
        )
    elif needs_plugin and known is None and case.packages is None:
        yield Finding(f"It needs {plugin} in the engine.")
    if chosen.plugin_excludes_older and not needs_plugin and plugin in (case.packages or ()):
        yield Refused(
            f"{plugin} does not work with vLLM {dotted(case.version)}.",
            why=f"That vLLM has {chosen.title} itself; the plugin is for {_since(case)} and later.",
            fix=f"Remove {plugin} from the engine.",
        )
    for package in chosen.requires if case.packages is not None else ():
        if package not in (case.packages or ()):
            yield Refused(
                f"The engine lacks {package}.",
                why=f"vLLM needs it for {chosen.title}.",
                fix=f"Install it there (pip install {package}).",
                code="engine.lacks-package",
            )


def _since(case: Case) -> str:
    return dotted(case.method.plugin_since or ())


def _refuse(case: Case, text: str, why: str) -> Refused:
    instead = " or ".join(method(name).title for name in case.method.instead)
    return Refused(text, why=why, fix=f"Use {instead}." if instead else "Choose another method.")
