"""Segmentation failures: soft masks such as a coarse network might have made, from true ones."""

from ultrarefiner.simulation.blur import gaussian_blur
from ultrarefiner.simulation.simple import FailureParameters, SimpleFailures, simulate_failures

__all__ = ["FailureParameters", "SimpleFailures", "gaussian_blur", "simulate_failures"]
