"""What runs on which devices with which vLLM, and why not."""
