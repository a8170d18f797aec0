"""EfficientNet-Lite0's ImageNet file: its names, and what is said without it. Its values: test_backbone_encoder."""

from __future__ import annotations

import pytest
import torch

from ultrarefiner.checkpoints import efficientnet_lite, efficientnet_lite0_file
from ultrarefiner.checkpoints.efficientnet_lite import rename_efficientnet_lite0


def test_every_tensor_gets_a_name_of_its_own_and_only_the_classifier_none() -> None:
    state = torch.load(efficientnet_lite0_file(), weights_only=True)
    renamed = rename_efficientnet_lite0(state)
    assert len(renamed.state) + len(renamed.left_out) == len(state)
    assert set(renamed.left_out) == {name for name in state if name.split(".")[0] in ("_conv_head", "_bn1", "_fc")}


def test_another_networks_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match="EfficientNet-Lite0 checkpoint"):
        rename_efficientnet_lite0({"_blocks.16._bn0.weight": torch.zeros(1)})  # it has sixteen


def test_without_the_package_there_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "no_such_package")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ultrarefiner\[pretraining\]'"):
        efficientnet_lite0_file()
