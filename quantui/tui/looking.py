"""Look up what a found model or adapter is, in two steps: by what is on this machine, then with the Hub's help.

Blocking: for the threads of the Model step. Nothing is downloaded but configs and headers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from quantui.domain.errors import QuantuiError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from quantui.domain.adapter_match import AdapterFit
    from quantui.domain.explained_row import Row
    from quantui.domain.found import Found
    from quantui.domain.models import AdapterSpec, ModelSpec
    from quantui.runtime.variants import VariantSearch


@dataclass(frozen=True)
class Looked:
    """What is known of ``found``.

    Of a model ``model``, of an adapter ``adapter`` with its base as ``model``. ``mate``: an adapter that was picked
    to go with the model. ``error`` is of what was looked at itself, ``base_error`` of an adapter's base, ``fit_error``
    of the two together. ``further``: the Hub can tell more; ``asking``: it is asked for copies now. ``why``: the
    rows of the panel behind `w`.
    """

    found: Found
    model: ModelSpec | None = None
    adapter: AdapterSpec | None = None
    mate: Found | None = None
    fit: AdapterFit | None = None
    error: QuantuiError | None = None
    base_error: QuantuiError | None = None
    fit_error: QuantuiError | None = None
    variants: VariantSearch | None = None
    further: bool = False
    asking: bool = False
    why: tuple[Row, ...] = ()


def look_here(found: Found, mate: Found | None) -> Looked:
    """What this machine alone tells, at once."""
    if found.place == "hub":
        return Looked(found, mate=mate, further=True)
    return _look(found, mate, offline=True)


def look_further(
    looked: Looked, stopped: Callable[[], bool], *, offline: bool | None = None
) -> Iterator[Looked]:
    """What is not known yet, the quantized copies of a model among it: those here first, then the Hub's."""
    from quantui.runtime.hub import is_offline
    from quantui.runtime.variants import search_variants

    away = is_offline(offline)
    if not away and (looked.error or looked.base_error or looked.further):
        looked = _look(looked.found, looked.mate, offline=offline)
        yield replace(looked, asking=looked.model is not None and looked.adapter is None)
    elif looked.error is not None and away:
        looked = _look(looked.found, looked.mate, offline=True)
        yield replace(looked, further=False)
    model = looked.model
    if model is None or looked.adapter is not None or looked.error is not None or stopped():
        yield replace(looked, further=False, asking=False)
        return
    here = search_variants(model, offline=True)
    yield replace(looked, variants=here, further=False, asking=not away)
    if not away and not stopped():
        yield replace(looked, variants=search_variants(model, offline=offline), further=False)


def _look(found: Found, mate: Found | None, *, offline: bool | None) -> Looked:
    from quantui.domain.adapter_match import check_adapter_fits
    from quantui.runtime.models import resolve_adapter

    looked = Looked(found, mate=mate)
    try:
        model, adapter = resolve(found, offline=offline)
    except QuantuiError as error:
        return replace(looked, error=error, further=_may_be_on_hub(error))
    looked = replace(looked, model=model, adapter=adapter, further=adapter is None)
    if adapter is not None:
        try:
            from quantui.runtime.subject import base_model

            model = base_model(adapter, offline=offline)
        except QuantuiError as error:
            undecided = adapter.four_bit.answer is None
            further = _may_be_on_hub(error) or undecided
            return replace(looked, base_error=error, further=further)
        looked = replace(looked, model=model, further=adapter.four_bit.answer is None)
    elif mate is not None:
        try:
            adapter = resolve_adapter(mate.ref, mate.revision, offline=offline)
        except QuantuiError as error:
            return replace(looked, fit_error=error)
    if adapter is not None and model is not None:
        try:
            looked = replace(looked, fit=check_adapter_fits(model, adapter))
        except QuantuiError as error:
            looked = replace(looked, fit_error=error)
    return looked


def resolve(found: Found, *, offline: bool | None) -> tuple[ModelSpec | None, AdapterSpec | None]:
    """The model, or the adapter: what was typed may be either. Raises QuantuiError."""
    from quantui.runtime.models import resolve_adapter, resolve_model, split_revision

    ref, revision = found.ref, found.revision
    if found.place == "typed":
        ref, revision = split_revision(ref)
    if found.kind == "model":
        try:
            return resolve_model(ref, revision, offline=offline, sketch=True), None
        except QuantuiError as error:
            if error.code != "model.is-an-adapter":
                raise
    return None, resolve_adapter(ref, revision, offline=offline)


def _may_be_on_hub(error: QuantuiError) -> bool:
    return error.code.startswith("hub.")
