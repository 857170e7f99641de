"""Producers and servers: which steps, which arguments, which requirements. No torch."""
