"""Every weight of a model by role, and the bytes of it that one GPU holds."""
