"""AutoAWQ 0.2.9 on models that transformers 5 loads: what it knows, its search, what is written."""

import llm_compressor_recipes  # noqa: F401 - found before quantui_wire cleans sys.path
