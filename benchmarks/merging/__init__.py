"""What `benchmarks/merge.py` runs: the model it makes, PEFT's way, measuring, comparing and reporting."""
