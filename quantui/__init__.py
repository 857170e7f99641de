"""quantui: from a model and a LoRA adapter to a quantized vLLM server that is proven to answer."""

__version__ = "0.1.0"
