"""Published figures: each is somebody's, and each is about something that exists."""

from __future__ import annotations

from quantui.domain.methods import methods
from quantui.domain.performance.evidence import published
from quantui.domain.performance.gpu_models import gpu_model


def test_every_figure_names_its_author_and_date() -> None:
    known = published()
    sources = {point.source for point in (*known.speeds, *known.ratios, *known.qualities)}
    for source in sources | {claim.source for claim in known.claims}:
        assert source.who
        assert source.date
        assert source.url.startswith("https://") or source.name == "guides"


def test_figures_are_about_methods_of_the_catalogue() -> None:
    known = published()
    kernels = {kernel.name for kernel in known.kernels}
    for kernel in known.kernels:
        assert set(kernel.methods) <= set(methods())
        assert kernel.source
    for claim in known.claims:
        assert set(claim.methods) <= set(methods())
    for speed in known.speeds:
        assert set(speed.tokens_per_s) <= kernels | set(methods())
    for ratio in known.ratios:
        assert set(ratio.ratios) <= kernels | set(methods())
    for score in known.qualities:
        unknown = {name for name in score.scores if not name.startswith("three_bit_")}
        assert unknown <= set(methods())


def test_every_served_method_has_a_kernel() -> None:
    assigned = {name for kernel in published().kernels for name in kernel.methods}
    for name, method in methods().items():
        if method.status == "current" and method.weight_bits < 16:
            assert name in assigned, name


def test_bands_of_kernels_are_in_order_and_at_most_the_whole_rate() -> None:
    for kernel in published().kernels:
        for band in (kernel.bandwidth, kernel.arithmetic):
            assert 0 < band.low <= band.likely <= band.high <= 1


def test_figures_are_of_known_cards() -> None:
    for point in published().speeds:
        size = "" if "GB" in point.card else " 80GB" if "H100" in point.card else ""
        card = gpu_model(point.card + size)
        assert card is not None, point.card
        assert point.on(card), point.card


def test_scores_are_percentages_of_something() -> None:
    for point in published().qualities:
        assert 0 < point.base <= 100
        for score in point.scores.values():
            assert 0 < score <= 105


def test_losses_are_plausible() -> None:
    for point in published().qualities:
        for name in point.scores:
            assert -3 < point.loss_percent(name) < 15, (point.model, name)
