"""What every program that quantizes shares; imported before ``quantui_wire`` cleans ``sys.path``."""

import atomic_folder  # noqa: F401 - found in time, like the packages below
import child_worker  # noqa: F401
import demo_model  # noqa: F401
import peft_merging  # noqa: F401
