"""Messages between the app's workers and its screens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.message import Message

if TYPE_CHECKING:
    from quantui.domain.errors import QuantuiError
    from quantui.domain.hardware import HardwareReport
    from quantui.runtime.engines import EngineStatus
    from quantui.runtime.last_profile import LastProfile
    from quantui.tui.run_view import RunView


class HardwareProbed(Message):
    """The machine was read."""

    def __init__(self, report: HardwareReport) -> None:
        self.report = report
        super().__init__()


class EnginesListed(Message):
    """The engines were looked at; ``error`` says why that was not possible."""

    def __init__(
        self, engines: tuple[EngineStatus, ...], error: QuantuiError | None = None
    ) -> None:
        self.engines = engines
        self.error = error
        super().__init__()


class BackgroundCounted(Message):
    """So many runs go on without this wizard."""

    def __init__(self, count: int) -> None:
        self.count = count
        super().__init__()


class LastProfileFound(Message):
    """The profile that was saved or opened last; None: there is none."""

    def __init__(self, profile: LastProfile | None) -> None:
        self.profile = profile
        super().__init__()


class RunChanged(Message):
    """Something happened in a run; what, is in its view. Only the newest is worth handling."""

    def __init__(self, view: RunView) -> None:
        self.view = view
        super().__init__()

    def can_replace(self, message: Message) -> bool:
        """Many a second may come: a newer one stands for those that wait."""
        return isinstance(message, RunChanged)


class RunLost(Message):
    """A run could not be started, or followed."""

    def __init__(self, error: QuantuiError) -> None:
        self.error = error
        super().__init__()


class Failed(Message):
    """Work in the background failed; ``about`` says which: shown where it was asked for."""

    def __init__(self, about: str, error: QuantuiError) -> None:
        self.about = about
        self.error = error
        super().__init__()
