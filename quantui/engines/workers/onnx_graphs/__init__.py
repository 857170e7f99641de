"""Decoder graphs of ONNX Runtime: which models its builder knows, how one is built, what it holds."""
