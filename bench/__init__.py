"""Reference problems, run by name: ``python -m bench NAME``."""
