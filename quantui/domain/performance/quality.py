"""What a format is expected to lose against 16 bit, from published scores.

Scores of different sources do not compare: some tasks are easier, and small models lose more. So a method is held
against the usual formats of its width where both were scored on the same model and tasks (AWQ and GPTQ for 4
bit, FP8 and INT8 W8A8 for 8), which gives a ratio. The usual formats' losses over model sizes give a curve,
``level * parameters ** -slope``. The expected loss is the ratio times the curve at this model's size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from quantui.domain.performance.evidence import published

if TYPE_CHECKING:
    from collections.abc import Sequence

    from quantui.domain.methods import Method
    from quantui.domain.performance.evidence import Evidence, LossCurve, QualityPoint

_NEAR = 0.2
"""Scores of at least this weight (models up to 3.5 times larger or smaller) make up the band."""
_LEAST_BAND = 0.3
"""Percent around the estimate: what repeated runs of such task sets differ by (an assumption)."""
_FAR = 2.0
"""Doublings of size from which an estimate is an extrapolation, and its band twice as wide."""
_LEAST_RATIO = 0.1
_SLOPE, _SLOPE_HOLD = 0.65, 5.0
"""The slope that is expected (of the 4-bit scores), and how firmly it is held where few sizes were measured."""
_SLOPES = tuple(step / 20 for step in range(31))
_ENOUGH = 3
"""Own scores that make a band; with fewer, the usual formats' scatter is added."""
_STAND_INS = {
    "fp8_per_channel": ("fp8_dynamic",),
    "fp8_per_tensor": ("fp8_dynamic",),
    "fp8_per_block": ("fp8_block", "fp8_dynamic"),
    "online": ("fp8_dynamic",),
    "quark": ("fp8_static",),
    "modelopt": ("fp8_static",),
    "fbgemm_fp8": ("fp8_dynamic",),
    "ptpc_fp8": ("fp8_dynamic",),
    "int8_per_channel_weight_only": ("w8a16",),
    "experts_int8": ("w8a16",),
    "tpu_int8": ("w8a16",),
    "qlora": ("bitsandbytes",),
    "auto_gptq": ("gptq",),
    "marlin": ("gptq",),
    "bitblas": ("gptq",),
    "hqq": ("torchao",),
    "fp_quant": ("nvfp4",),
    "nvfp4_per_token": ("nvfp4",),
    "petit_nvfp4": ("nvfp4",),
    "adaround": ("autoround",),
    "brecq": ("autoround",),
}
"""Methods without scores of their own, and those that round the same way."""

QualityBasis = Literal["published", "reference", "stored", "unknown"]


@dataclass(frozen=True, slots=True)
class Quality:
    """The expected loss, percent of the 16-bit model's scores on academic tasks; None: nobody's figure is known.

    ``band``: the least and the most that models of about this size lost (below 0: they scored better, which is
    noise). ``basis``: "reference" is 16 bit itself, "stored" a checkpoint that is served as it was quantized.
    ``formula`` is how the figure was come by; ``note`` what it does not cover; ``claims`` are others'
    statements, shown with their names and not computed with.
    """

    loss_percent: float | None
    band: tuple[float, float] | None
    basis: QualityBasis
    source: str
    note: str = ""
    formula: str = ""
    claims: tuple[str, ...] = ()
    one_source: bool = False
    """Only one source has measured it."""


class _Loss(NamedTuple):
    """One published loss, percent, of a model of 2 ** ``size`` parameters."""

    size: float
    percent: float
    point: QualityPoint


class _Apart(NamedTuple):
    """By how many percent a loss of a model of 2 ** ``size`` parameters is above the estimate for that size."""

    size: float
    percent: float


class _Law(NamedTuple):
    """``level * 2 ** (-slope * (size - 33))`` percent: 2 ** 33 parameters are 8.6 billion."""

    level: float
    slope: float

    def at(self, size: float | None) -> float:
        """Percent lost by a model of 2 ** ``size`` parameters; of 8.6 billion where the size is not known."""
        return self.level * (1.0 if size is None else 2 ** (-self.slope * (size - 33)))


class _Curve(NamedTuple):
    """How the usual formats' losses fall with size, a method's ratio to them, and how far losses lie from that."""

    name: str
    words: str
    law: _Law
    sizes: tuple[float, ...]
    own: tuple[_Loss, ...]
    ratio: float
    own_apart: tuple[_Apart, ...]
    usual_apart: tuple[_Apart, ...]


def expected_quality(
    method: Method,
    parameters: float | None,
    evidence: Evidence | None = None,
    *,
    stored_as: str | None = None,
    card: str = "",
) -> Quality:
    """What ``method`` is expected to lose on a model of ``parameters`` parameters, all experts counted.

    ``parameters`` None: all sizes count alike. ``stored_as``: the checkpoint's own format, when ``method`` serves
    it as it is. ``card``: claims about other cards are left out. See the head of this module for the estimate.
    """
    known = evidence or published()
    claims = tuple(map(str, known.claims_about(method.name, card)))
    if method.name == "none":
        if stored_as:
            why = f"served as it was quantized ({stored_as}): nothing more is lost"
            return Quality(None, None, "stored", why, claims=claims)
        return Quality(0.0, (0.0, 0.0), "reference", "16 bit is what the others are held against")
    bits = method.weight_bits
    curve = (
        _published_curve(method.name, bits)
        if evidence is None
        else _curve(method.name, bits, known)
    )
    if curve is None:
        return Quality(None, None, "unknown", "no published score was found", claims=claims)
    return _estimate(method.name, curve, math.log2(parameters) if parameters else None, claims)


@lru_cache(maxsize=128)
def _published_curve(method: str, bits: float) -> _Curve | None:
    return _curve(method, bits, published())


def _curve(method: str, bits: float, evidence: Evidence) -> _Curve | None:
    """The curve for formats of this width, and the method's ratio to it; None without scores of the method."""
    width = next((c for c in evidence.loss_curves if c.least_bits <= bits < c.most_bits), None)
    if width is None:
        return None
    for name in (method, *_STAND_INS.get(method, ())):
        own = _losses(name, evidence)
        if own:
            usual = tuple(
                loss for reference in width.reference for loss in _losses(reference, evidence)
            )
            law = _law(usual or own)
            ratio = _ratio(own, usual, width, law)
            return _Curve(
                name=name,
                words=", ".join(width.reference),
                law=law,
                sizes=tuple(each.size for each in (usual or own)),
                own=own,
                ratio=ratio,
                own_apart=tuple(
                    _Apart(each.size, each.percent - ratio * law.at(each.size)) for each in own
                ),
                usual_apart=tuple(
                    _Apart(each.size, ratio * (each.percent - law.at(each.size))) for each in usual
                ),
            )
    return None


def _losses(method: str, evidence: Evidence) -> tuple[_Loss, ...]:
    return tuple(
        _Loss(math.log2(point.parameters), point.loss_percent(method), point)
        for point in evidence.qualities
        if method in point.scores
    )


def _law(losses: Sequence[_Loss]) -> _Law:
    """The law nearest to the losses, whose scatter is taken to grow with the loss itself."""
    best, least = _Law(0.0, _SLOPE), math.inf
    for slope in _SLOPES:
        shape = [2 ** (-slope * (each.size - 33)) for each in losses]
        level = max(0.0, sum(each.percent for each in losses) / sum(shape))
        apart = sum(
            (each.percent - level * part) ** 2 / part
            for each, part in zip(losses, shape, strict=True)
        )
        apart += _SLOPE_HOLD * (slope - _SLOPE) ** 2
        if apart < least:
            best, least = _Law(level, slope), apart
    return best


def _ratio(own: Sequence[_Loss], usual: Sequence[_Loss], width: LossCurve, law: _Law) -> float:
    """The method's losses over the usual ones of the same scores, or of the law where they were not scored."""
    lost = held = width.prior
    for loss in own:
        beside = [other.percent for other in usual if other.point is loss.point]
        lost += loss.percent
        held += sum(beside) / len(beside) if beside else law.at(loss.size)
    return max(_LEAST_RATIO, lost / held) if held > 0 else 1.0


def _weight(measured: float, size: float | None) -> float:
    """1 at the same size, 0.61 at twice or half, 0.14 at four times."""
    return 1.0 if size is None else max(1e-9, math.exp(-((measured - size) ** 2) / 2))


def _estimate(method: str, curve: _Curve, size: float | None, claims: tuple[str, ...]) -> Quality:
    # The law is not carried beyond the sizes it was read off: at four million parameters it would say 300 %.
    within = None if size is None else min(max(size, min(curve.sizes)), max(curve.sizes))
    level = curve.law.at(within)
    loss = curve.ratio * level
    apart = _near(curve.own_apart, within)
    if len(apart) < _ENOUGH:
        apart += _near(curve.usual_apart, within)
    low, high = min([*apart, -_LEAST_BAND]), max([*apart, _LEAST_BAND])
    notes = []
    if curve.name != method:
        notes.append(f"scores of {curve.name}, which rounds the same way")
    if size is not None and min(abs(each - size) for each in curve.sizes) > _FAR:
        notes.append("no model near this size was measured")
        low, high = 2 * low, 2 * high
    one_source = len({each.point.source.name for each in curve.own}) == 1
    if one_source:
        notes.append("one source only")
    notes += sorted({each.point.note for each in curve.own if each.point.note})
    notes.append("harder tasks (code, long reasoning) lose more")
    formula = (
        f"{curve.ratio:.2f} ({curve.name} against {curve.words}; {len(curve.own)} scores) x {level:.2f} % "
        f"(theirs at this size, or the nearest measured) = {loss:.2f} %"
    )
    return Quality(
        loss_percent=loss,
        band=(loss + low, loss + high),
        basis="published",
        source=_words(curve.own, size),
        note="; ".join(notes),
        formula=formula,
        claims=claims,
        one_source=one_source,
    )


def _near(apart: Sequence[_Apart], size: float | None) -> list[float]:
    return [each.percent for each in apart if _weight(each.size, size) >= _NEAR]


def _words(losses: Sequence[_Loss], size: float | None) -> str:
    """Who measured what, the models nearest in size first, at most three a source."""
    nearest = sorted(losses, key=lambda loss: 0.0 if size is None else abs(loss.size - size))
    by_source: dict[str, list[str]] = {}
    for loss in nearest:
        said = f"{loss.point.model} {loss.percent:.1f} %"
        by_source.setdefault(loss.point.source.who, []).append(said)
    parts = []
    for who, models in by_source.items():
        more = f" and {len(models) - 3} more" if len(models) > 3 else ""
        parts.append(f"{who}: {', '.join(models[:3])}{more}")
    return "; ".join(parts)
