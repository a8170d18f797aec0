"""TransUNet under torch.compile, torch.export, mixed precision and channels-last memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ultrarefiner as ur

pytestmark = pytest.mark.usefixtures("unhooked")


@pytest.fixture(params=[False, True], ids=["transunet", "microsegnet"])
def network(request):
    torch.manual_seed(0)
    return ur.build_transunet("tiny", image_size=64, deep_supervision=request.param).eval()


def everything(answer) -> list[torch.Tensor]:
    return [answer.logits, *answer.side_logits] if isinstance(answer, ur.MultiScaleLogits) else [answer]


def check_compiled(backend: str) -> None:
    script = Path(__file__).with_name("compare_compiled.py")
    done = subprocess.run([sys.executable, script, backend], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_compiles_into_one_graph() -> None:
    check_compiled("aot_eager")


@pytest.mark.slow
def test_compiles_with_inductor() -> None:
    check_compiled("inductor")


def test_exports_for_any_size_and_batch(network, tmp_path: Path) -> None:
    batch, rows, columns = (torch.export.Dim(name, min=2, max=64) for name in ("batch", "rows", "columns"))
    sizes = {"images": {0: batch, 2: 16 * rows, 3: 16 * columns}}
    exported = torch.export.export(network, (torch.rand(2, 1, 64, 64),), dynamic_shapes=sizes)
    torch.export.save(exported, tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    images = torch.rand(3, 1, 96, 48)
    for ours, theirs in zip(everything(loaded(images)), everything(network(images)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_autocast(network) -> None:
    network.train()
    images = torch.rand(2, 1, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answers = everything(network(images))
    assert all(answer.isfinite().all() for answer in answers)
    sum(answer.float().square().mean() for answer in answers).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters() if parameter.grad is not None)
    network.eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        narrow = everything(network(images))
    for ours, wide in zip(narrow, everything(network(images)), strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - wide).abs().max() < 0.05 * wide.abs().max()


def test_channels_last(network) -> None:
    images = torch.rand(2, 3, 64, 64)
    expected = everything(network(images))
    network.to(memory_format=torch.channels_last)
    answers = everything(network(images.to(memory_format=torch.channels_last)))
    assert answers[0].is_contiguous(memory_format=torch.channels_last)
    for ours, theirs in zip(answers, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
