"""The Hardware step: what this machine is, who uses it, and which of its devices to use."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Static
from textual.widgets.option_list import Option

from quantui.tui.hardware_head import machine, offers, probing
from quantui.tui.messages import LastProfileFound
from quantui.tui.screens.step import StepScreen
from quantui.tui.widgets.details_pane import READ_ON, DetailsPane
from quantui.tui.widgets.live_graph import LiveGraph
from quantui.tui.widgets.pick_list import PickList

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from textual.timer import Timer
    from textual.widget import Widget
    from textual.widgets import OptionList

    from quantui.domain.explained_row import Row
    from quantui.domain.hardware import HardwareReport, Problem
    from quantui.runtime.engines import EngineStatus
    from quantui.runtime.last_profile import LastProfile
    from quantui.tui.device_rows import DeviceRow

_SPIN_S = 0.2


class HardwareScreen(StepScreen):
    """Rows of devices above, the highlighted one in full and its memory over time below."""

    NAME = "hardware"
    HELP = (
        "What this machine is, as NVML, the kernel and the disks tell it. Space picks the GPUs to use, or the CPU; "
        "without picking, every GPU that vLLM can use is taken. The graph shows the memory of the highlighted device "
        "in use by everybody, ten times a second. Page up and down read on in the details. "
        "Enter goes on to what the model is wanted for."
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "pick", "pick"),
        Binding("r", "probe_again", "probe"),
        Binding("p", "replay", "replay"),
        *READ_ON,
    ]
    DEFAULT_CSS = """
    HardwareScreen {
        #offer, #header { height: auto; }
        #offer { display: none; }
        #offer.-there { display: block; }
        #devices { height: auto; max-height: 50%; scrollbar-size-vertical: 1; }
        #devices > .option-list--option { padding: 0; }
        LiveGraph { height: 12; margin-top: 1; }
        &.-short LiveGraph { height: 5; }
        &.-short #devices { max-height: 8; }
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._rows: tuple[DeviceRow, ...] = ()
        self._profile: LastProfile | None = None
        self._spinner: Timer | None = None
        self._engines: tuple[EngineStatus, ...] | None = None
        self._problems: tuple[Problem, ...] = ()

    def compose_body(self) -> Iterable[Widget]:
        """The offer of the last profile, the devices, the details, the graph."""
        yield Static(id="offer", markup=False)
        yield Static(id="header", markup=False)
        yield PickList(id="devices")
        yield DetailsPane(id="details")
        yield LiveGraph()

    def on_mount(self) -> None:
        """Show what is known; the rest comes by message."""
        self.title = "Hardware"
        self._spinner = self.set_interval(_SPIN_S, self._draw_header, pause=not self.wizard.probing)
        self._draw()
        self.query_one(PickList).focus()
        # Once the first frame is there: what is imported for it would hold that up.
        self.set_timer(0.05, self._look_for_profile)

    def on_resize(self) -> None:
        """Rows are as wide as the screen."""
        self.call_after_refresh(self._draw)

    def hardware_changed(self) -> None:
        """Rows appear as they are found: hardware first, then engines."""
        if not self.wizard.probing and self._spinner is not None:
            self._spinner.pause()
        self._drop_lost()
        self._draw()
        self.update_rail()

    def _drop_lost(self) -> None:
        """GPUs that were picked and are gone, or cannot be used any more, are not picked any more; this is told."""
        from quantui.tui.device_rows import still_picked

        report, picked = self.session.hardware, self.session.answers.gpus
        if report is not None and (kept := still_picked(report, picked)) != picked:
            self.tell_cleared(("the pick of GPUs that are gone", *self.session.answer(gpus=kept)))

    def background_changed(self) -> None:
        """Say at the top that something lives there."""
        self._draw_offer()

    def ready(self) -> bool:
        """Going on needs the machine, not its engines."""
        return self.session.hardware is not None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Grey what cannot be used now; the replay is not offered without a profile."""
        report, row = self.session.hardware, self._highlighted
        match action:
            case "replay":
                return self._profile is not None
            case "back":
                return False
            case "why":
                return True if report is not None else None
            case "probe_again":
                return None if self.wizard.probing or self.session.simulated else True
            case "pick":
                pickable = any(each.pick is not None for each in self._rows)
                return pickable and (True if row is not None and row.pick is not None else None)
        return super().check_action(action, parameters)

    def why(self) -> Sequence[Row]:
        """Whose word each figure is."""
        from quantui.tui.device_details import sources

        report = self.session.hardware
        return () if report is None else sources(report, self.session.described_by)

    # --- keys

    def action_pick(self) -> None:
        """Take the highlighted device, or leave it."""
        from quantui.tui.device_rows import toggled

        row, report = self._highlighted, self.session.hardware
        if row is None or row.pick is None or report is None:
            return
        self.tell_cleared(
            self.session.answer(gpus=toggled(report, self.session.answers.gpus, row.pick))
        )
        self._draw()
        self.update_rail()

    def action_probe_again(self) -> None:
        """Read the machine anew; what is shown stays until then."""
        self.tell(None)
        self.wizard.probe()
        if self._spinner is not None:
            self._spinner.resume()
        self._draw_header()
        self.refresh_bindings()

    def action_replay(self) -> None:
        """Open the last profile and go to its review."""
        from quantui.tui.opening import open_profile

        if self._profile is not None:
            open_profile(self.wizard, self._profile.path)

    def action_read_on(self, pages: int) -> None:
        """Read on in the details without leaving the list."""
        self.query_one(DetailsPane).turn(pages)

    # --- the last profile

    @work(thread=True, exclusive=True, group="last profile", exit_on_error=False)
    def _look_for_profile(self) -> None:
        from quantui.runtime.last_profile import last_profile

        self.post_message(LastProfileFound(last_profile()))

    def on_last_profile_found(self, message: LastProfileFound) -> None:
        """Offer it first."""
        self._profile = message.profile
        self._draw_offer()
        self.refresh_bindings()

    # --- drawing

    @property
    def _highlighted(self) -> DeviceRow | None:
        place = self.query_one(PickList).highlighted
        return self._rows[place] if place is not None and place < len(self._rows) else None

    @property
    def _width(self) -> int:
        """Columns of a row: the body without the list's scrollbar."""
        return max(self.query_one("#header").size.width - 1, 40)

    def _take_in(self, report: HardwareReport) -> None:
        """Work out once what the rows and the details tell of engines and problems."""
        engines = self.session.engines
        self._problems, self._engines = report.all_problems(), None
        if engines is not None:
            from quantui.runtime.engine_advice import engine_problems, for_this_machine

            self._problems += engine_problems(engines, report)
            self._engines = tuple(for_this_machine(engines, report))

    def _draw(self) -> None:
        self._draw_offer()
        self._draw_header()
        report = self.session.hardware
        if report is None:
            self._draw_details()
            return
        from quantui.tui.device_rows import device_rows

        self._take_in(report)
        gpus = self.session.answers.gpus
        rows = device_rows(report, gpus, self._engines, self._problems, self._width)
        devices = self.query_one(PickList)
        if [row.name for row in rows] == [row.name for row in self._rows]:
            for place, row in enumerate(rows):
                if row != self._rows[place]:
                    devices.replace_option_prompt_at_index(place, row.content)
        else:
            devices.clear_options()
            devices.add_options([Option(row.content, id=row.name) for row in rows])
        self._rows = tuple(rows)
        if devices.highlighted is None:
            names = [row.name for row in rows]
            kept = self.session.places.get(self.NAME)
            devices.highlighted = names.index(kept) if kept in names else 0
        self._draw_details()

    def _draw_offer(self) -> None:
        lines = offers(self._profile, self.wizard.background_count)
        offer = self.query_one("#offer", Static)
        offer.set_class(bool(lines), "-there")
        offer.update(Content("\n").join(lines))

    def _draw_header(self) -> None:
        report = self.session.hardware
        lines: list[Content] = []
        if self.wizard.probing:
            lines.append(probing(self.wizard.probing[0], int(time.monotonic() / _SPIN_S)))
        elif report is not None:
            lines.append(machine(report, self.session.described_by))
        if report is not None and report.gpus:
            from quantui.tui.device_rows import header

            lines.append(header(self._width))
        self.query_one("#header", Static).update(Content("\n").join(lines))

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Show the device in full."""
        self.session.places[self.NAME] = event.option.id
        self._draw_details()
        self.refresh_bindings()

    def _draw_details(self) -> None:
        report, row = self.session.hardware, self._highlighted
        if report is None or row is None:
            return
        from quantui.tui.device_details import details, laid_out

        lines = details(row.name, report, self._engines, self._problems)
        pane = self.query_one(DetailsPane)
        pane.tell(row.name, laid_out(lines, max(pane.size.width - 1, 40)))
        # A described machine has nothing that could be sampled here.
        if not self.session.simulated:
            gpu = row.name.removeprefix("gpu")
            self.query_one(LiveGraph).follow(report, int(gpu) if gpu.isdigit() else None)
