"""The parts of ``make_demo.py``; imported before ``quantui_wire`` cleans ``sys.path``."""
