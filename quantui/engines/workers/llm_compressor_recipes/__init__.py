"""How each method is carried out with llm-compressor 0.14."""

import peft_merging  # noqa: F401 - found before quantui_wire cleans sys.path
import streaming_merge  # noqa: F401
