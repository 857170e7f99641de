"""The parts of ``merge_peft.py``; imported before ``quantui_wire`` cleans ``sys.path``."""

import streaming_merge  # noqa: F401 - what reads headers and refuses is shared, and is found in time
