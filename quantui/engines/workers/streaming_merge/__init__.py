"""The parts of ``merge_adapter.py``; imported before ``quantui_wire`` cleans ``sys.path``.

Only ``arithmetic`` and ``proof`` need torch, and load it when they are used: a plan is made from headers
alone.
"""
