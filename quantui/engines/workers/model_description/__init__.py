"""The parts of ``describe_model.py``; imported before ``quantui_wire`` cleans ``sys.path``."""

import streaming_merge  # noqa: F401 - its reading of headers is used here, and is found in time
