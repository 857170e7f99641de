"""GPTQModel 7.6 on the job's device: how it is set up, its progress, what it writes."""

import llm_compressor_recipes  # noqa: F401 - found before quantui_wire cleans sys.path
