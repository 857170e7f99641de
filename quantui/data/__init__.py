"""Facts that change often, each with its source."""
