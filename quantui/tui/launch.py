"""Start the wizard."""

from __future__ import annotations

import os


def launch(hardware: str | None = None) -> int:
    """Run the wizard until it is left; gives the exit code.

    ``hardware`` is a file that describes another machine (``quantui doctor --json`` writes one): everything can be
    tried on it but running. Raises QuantuiError ``hardware.*`` for a bad one.
    """
    # Where a shell exports them Textual takes them for the terminal's size, also after a resize.
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)
    report = None
    if hardware is not None:
        from quantui.runtime.described_hardware import described_hardware

        report = described_hardware(hardware)
    from quantui.tui.app import QuantuiApp

    app = QuantuiApp(report, hardware)
    code = app.run()
    if app.defect is not None:
        raise app.defect
    return code or 0
