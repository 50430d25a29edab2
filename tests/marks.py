"""Marks of single cases."""

import pytest


def slow(*values):
    """A case that the short suite leaves out."""
    return pytest.param(*values, marks=pytest.mark.slow)
