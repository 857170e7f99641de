"""The parts of ``merge_peft.py``; imported before ``quantui_wire`` cleans ``sys.path``."""
