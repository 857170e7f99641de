"""Whether a model fits: the KV cache, the other memory, vLLM's gates, the verdict and the smallest change."""
