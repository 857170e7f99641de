"""The core: values and pure functions on the standard library alone."""
