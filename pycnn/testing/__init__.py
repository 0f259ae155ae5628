"""For tests of your own modules and functions: a gradient check, and Hypothesis strategies that love edges."""

from pycnn.testing.gradients import check_gradients

__all__ = ["check_gradients"]
