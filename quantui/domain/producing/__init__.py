"""Making a quantized checkpoint: which library makes what, how, and what it takes. Values and rules only."""
