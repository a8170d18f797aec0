"""The whole evaluation on cases whose answer is known."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import pytest
import torch
from torch import Tensor, nn

from ultrarefiner.data import Case
from ultrarefiner.evaluation import evaluate
from ultrarefiner.sam import build_sam
from ultrarefiner.systems import SAMRefiner, UltraRefiner


@dataclasses.dataclass
class Drawn:
    """Cases of several sizes whose image is their mask."""

    sizes: tuple[tuple[int, int], ...] = ((60, 100), (100, 60), (40, 40), (90, 91))
    unseen: bool = False

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Case:
        height, width = self.sizes[index]
        mask = torch.zeros(1, height, width)
        mask[:, height // 4 : height // 2, width // 3 : width // 3 + width // 4] = 1
        return Case(name=f"case {index}", image=mask.clone(), mask=mask, label="drawn", group=f"group {index}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"case {index}" for index in range(len(self)))

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(f"group {index}" for index in range(len(self)))

    @property
    def labels(self) -> tuple[str, ...]:
        return ("drawn",) * len(self)

    def subset(self, names: Iterable[str]) -> Drawn:
        wanted = set(names)
        return Drawn(tuple(size for size, name in zip(self.sizes, self.names, strict=True) if name in wanted))


class Threshold(nn.Module):
    """A coarse network that reads the mask off the image, or says nothing at all."""

    def __init__(self, sign: float = 1.0) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(40.0 * sign))
        self.offset = -20.0 if sign > 0 else -9.0

    def forward(self, images: Tensor) -> Tensor:
        return self.gain.clamp(min=0) * images + self.offset


def model(sign: float = 1.0) -> UltraRefiner:
    torch.manual_seed(0)
    return UltraRefiner(coarse=Threshold(sign), refiner=SAMRefiner(build_sam("tiny", image_size=64)))


def test_a_perfect_coarse_mask_scores_one_on_its_own_pixels() -> None:
    found = evaluate(model(), Drawn(), size=200, panels=3, progress=False)
    assert found.comparison.names == Drawn().names
    assert min(case.dice for case in found.comparison.coarse) > 0.97
    assert max(case.hd95 for case in found.comparison.coarse) <= 1
    assert [case.target_pixels for case in found.comparison.coarse] == [int(Drawn()[i].mask.sum()) for i in range(4)]
    assert len(found.panels) == 3


def test_panels_hold_the_prompts_on_the_images_own_pixels() -> None:
    (panel,) = evaluate(model(), Drawn(), size=200, panels=1, progress=False).panels
    y, x = panel.target[0].nonzero(as_tuple=True)
    assert panel.points is not None
    torch.testing.assert_close(panel.points[0], torch.tensor([x.float().mean(), y.float().mean()]), atol=0.6, rtol=0)
    assert panel.image.shape[-2:] == panel.coarse_probability.shape[-2:] == panel.target.shape[-2:]


def test_the_batch_size_changes_nothing() -> None:
    one, four = (evaluate(model(), Drawn(), size=96, batch_size=n, panels=0, progress=False) for n in (1, 4))
    for first, second in zip(one.comparison.refined, four.comparison.refined, strict=True):
        assert first.dice == pytest.approx(second.dice, abs=1e-3)


def test_a_missed_lesion_counts_with_the_diagonal() -> None:
    found = evaluate(model(sign=-1.0), Drawn(), size=96, panels=0, progress=False)
    assert [case.dice for case in found.comparison.coarse] == [0, 0, 0, 0]
    assert found.comparison.coarse[0].hd95 == pytest.approx((60**2 + 100**2) ** 0.5)
    assert found.comparison.refined == found.comparison.coarse
    assert found.comparison.refined_empty == 4


def test_no_cases_get_a_sentence() -> None:
    with pytest.raises(ValueError, match="cases must hold at least one case"):
        evaluate(model(), Drawn(sizes=()), size=64)
