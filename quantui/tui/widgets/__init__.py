"""Small widgets, each with one duty."""
