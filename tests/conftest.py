"""What every test may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
import torch

collect_ignore = ["downstream"]  # a project of its own, which tests/test_downstream.py runs


@pytest.fixture
def unhooked() -> Iterator[None]:
    """The package as a user runs it: without jaxtyping's checks, so that our own sentences are what is raised."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator with a fixed seed."""
    return torch.Generator().manual_seed(0)
