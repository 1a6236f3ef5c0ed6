"""The commands, as typed functions whose docstrings are their help."""
