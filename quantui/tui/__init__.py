"""The wizard: the only code that imports textual."""
