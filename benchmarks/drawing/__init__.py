"""What the benchmarks of the interface share: a program in a terminal of its own, and what it draws there."""
