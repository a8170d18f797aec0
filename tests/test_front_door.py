"""The public contract: the code of the README, what an import costs, and the house's drawing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ultrarefiner as ur

ROOT = Path(__file__).parent.parent


def test_the_contract_runs(tmp_path: Path) -> None:
    vit_b = tmp_path / "medsam_vit_b.pth"
    sam = ur.build_sam("tiny")
    torch.save(sam.state_dict(), vit_b)
    report = ur.load_weights(ur.build_sam("tiny"), vit_b, layout="sam")
    assert len(report.loaded) == len(sam.state_dict())
    refiner = ur.SAMRefiner(
        sam, prompts=ur.DifferentiablePromptExtractor(mask_style="direct"), cropper=ur.ROICropper(expand=0.2)
    )
    my_network = torch.nn.Conv2d(1, 2, 3, padding=1)
    model = ur.UltraRefiner(coarse=my_network, refiner=refiner, gate=None)
    images = torch.rand(2, 1, 60, 80)
    out = model(images)
    for mask in (out.coarse_logits, out.coarse_probability, out.refined_logits, out.refined_probability):
        assert mask.shape == (2, 2, 60, 80)
    assert out.iou.shape == (2, 2)
    probability = out.coarse_probability
    prompts = ur.DifferentiablePromptExtractor(image_size=1024)(probability)
    assert prompts.points.shape == (2, 2, 2, 2)
    assert prompts.labels.shape == (2, 2, 2)
    assert prompts.boxes.shape == (2, 2, 4)
    assert prompts.mask_logits.shape == (2, 2, 256, 256)
    assert prompts.valid.shape == (2, 2)
    refined = refiner(images, probability)
    assert refined.logits.shape == (2, 2, 60, 80)
    assert refined.boxes.shape == (2, 2, 4)
    boxes = ur.ROICropper().locate(probability)
    crop = ur.ROICropper(size=128).crop(images, boxes)
    assert crop.shape == (2, 2, 1, 128, 128)
    full = ur.ROICropper().paste(crop, boxes, size=(60, 80), background=0.0)
    assert full.shape == (2, 2, 1, 60, 80)


def test_the_embedding_cache_is_at_the_front_door() -> None:
    assert ur.EmbeddingCache is ur.data.EmbeddingCache


def test_importing_stays_light() -> None:
    """Optional packages wait until their room is entered."""
    heavy = (
        "monai",
        "lightning_fabric",
        "sklearn",
        "matplotlib",
        "timm",
        "tqdm",
        "tensorboard",
        "safetensors",
        "scipy",
    )
    code = (
        "import sys, torch, torchvision, kornia, segment_anything; before = set(sys.modules); import ultrarefiner; "
        f"print([name for name in {heavy!r} if name in set(sys.modules) - before])"
    )
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_the_house_stands() -> None:
    ran = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


def package_files() -> list[Path]:
    return sorted((ROOT / "ultrarefiner").rglob("*.py"))


@pytest.mark.parametrize("path", package_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    import ast

    text = path.read_text()
    assert len(text.splitlines()) < 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            body = [
                statement for statement in node.body if not isinstance(getattr(statement, "value", None), ast.Constant)
            ]
            if body:
                assert node.body[-1].end_lineno - body[0].lineno < 50, f"{path.name}: {node.name} is long"
    assert not re.search(r"^\s*(print\(|assert )", text, re.MULTILINE)
    assert "torch.load(" not in text or "weights_only=True" in text
