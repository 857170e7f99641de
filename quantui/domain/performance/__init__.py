"""Speed and quality that can be expected: cards, formulas, published evidence, the user's own runs."""
