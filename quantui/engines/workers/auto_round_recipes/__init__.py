"""How AutoRound is asked for what a recipe says; imported before ``quantui_wire`` cleans ``sys.path``."""

import quantizing  # noqa: F401
