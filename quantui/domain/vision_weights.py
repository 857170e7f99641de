"""The weights of vision towers and their projectors, from a config alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from quantui.domain.config_view import ConfigView
    from quantui.domain.weight_groups import WeightGroup


def vision_weights(
    config: Mapping[str, Any], vision: ConfigView, text: ConfigView
) -> tuple[tuple[WeightGroup, ...], tuple[str, ...]]:
    """The tower and what joins it to the language model, and notes."""
    return (), (f"the {vision.model_type or 'vision'} tower is not counted: its form is not known",)
