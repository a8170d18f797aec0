"""A set that is kept for testing trains nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from ultrarefiner.data import CaseDataset, CaseFiles, FittedCases
from ultrarefiner.training import CoarseRecipe, train


def test_an_unseen_set_is_refused_before_a_file_is_read(tmp_path: Path) -> None:
    files = [CaseFiles("case", tmp_path / "none.png", (), "unknown", "case")]
    cases = FittedCases(CaseDataset(files, unseen=True), 32)
    with pytest.raises(ValueError, match="dataset is marked unseen, kept for testing alone"):
        train(CoarseRecipe(nn.Conv2d(1, 1, 3, padding=1)), cases, folder=tmp_path / "run", epochs=1, batch_size=1)
    assert not (tmp_path / "run").exists()
