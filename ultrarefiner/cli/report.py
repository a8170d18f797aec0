"""What a trained model reached on cases that neither trained nor chose: a table, files, a picture."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.cli.setting import Setting, spread
from ultrarefiner.cli.split import Split
from ultrarefiner.data import FittedCases, collate
from ultrarefiner.ops import fill_box, tight_box
from ultrarefiner.types import PromptedSegmentation

_SURE = 10.0
_SHOWN = 4


class BoxOf(nn.Module):
    """A model's masks, each as its tight box, filled: what can be measured where boxes alone are known.

    Args:
        model: from images to `PromptedSegmentation`.

    Example:
        >>> from types import SimpleNamespace
        >>> model = nn.Identity()
        >>> model.forward = lambda images: SimpleNamespace(logits=torch.eye(2)[None, None] - 0.5)
        >>> BoxOf(model)(torch.rand(1, 1, 2, 2)).unique().tolist()
        [10.0]
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Logits of +10 and -10."""
        answer: PromptedSegmentation = self.model(images)
        return 2 * _SURE * fill_box(answer.logits.sigmoid()) - _SURE


class MeanBox(nn.Module):
    """The same box for every image, the mean of the training cases' boxes: the trivial answer.

    Args:
        box: (x0, y0, x1, y1) in the fitted square.

    Example:
        >>> MeanBox(torch.tensor([0.0, 0.0, 1.0, 2.0]))(torch.rand(1, 1, 2, 2))[0, 0]
        tensor([[ 10., -10.],
                [ 10., -10.]])
    """

    box: Tensor

    def __init__(self, box: Tensor) -> None:
        super().__init__()
        self.register_buffer("box", box.round())

    def forward(self, images: Tensor) -> Tensor:
        """Logits of +10 and -10."""
        x0, y0, x1, y1 = self.box.unbind()
        rows = torch.arange(images.shape[-2], device=images.device) + 0.5
        columns = torch.arange(images.shape[-1], device=images.device) + 0.5
        inside = ((rows > y0) & (rows < y1))[:, None] & ((columns > x0) & (columns < x1))
        return (2 * _SURE * inside.float() - _SURE).expand(len(images), 1, -1, -1)


def report(model: nn.Module, setting: Setting, split: Split, training: FittedCases, *, name: str) -> str:
    """Measure a model on every set that is reported.

    Where there are masks, they are measured, with the true box, filled, beside them; where boxes alone are known, the
    tight box of each mask against the given one, with the mean box of the training cases beside it.

    Args:
        model: the best one, from images to `PromptedSegmentation`.
        setting: of the command.
        split: its cases.
        training: fitted, for the trivial answer from boxes.
        name: of the run.

    Returns:
        Markdown: a table for each set.
    """
    told = []
    model.to(setting.device())
    for which, cases in split.tests.items():
        stem = str(setting.run_folder(name) / (f"test_{which}" if len(split.tests) > 1 else "test"))
        if setting.has_masks:
            table = _masks(model, setting, cases, name, stem)
        else:
            table = _boxes(model, setting, cases, training, name, stem)
        measured = "" if setting.has_masks else " Boxes, against the given ones: there are no masks to measure."
        told.append(f"{which}, {len(cases)} cases that neither trained nor chose.{measured}\n\n{table}")
    if split.note:
        told.append(f"{split.note}\n")
    text = "\n".join(told)
    with replaced_file(setting.run_folder(name) / "test.md") as file:
        file.write(text.encode())
    return text


def _masks(model: nn.Module, setting: Setting, cases: Any, name: str, stem: str) -> str:
    from ultrarefiner.evaluation import (
        evaluate_segmentation,
        filled_box_metrics,
        segmentation_figure,
        segmentation_table,
        write_segmentation_csv,
    )

    size, options = _size(model), {"measures": setting.measures, "progress": setting.progress}
    found = evaluate_segmentation(model, cases, size=size, batch_size=1, **options)
    write_segmentation_csv(f"{stem}.csv", found)
    segmentation_figure(found.panels, f"{stem}.png")
    rows = {name: found}
    if name == "automedsam":  # what learnt from boxes is compared with the box itself
        rows["the true box, filled"] = filled_box_metrics(cases, **options)
    return segmentation_table(rows, against=name if len(rows) > 1 else None)


def _boxes(model: nn.Module, setting: Setting, cases: Any, training: FittedCases, name: str, stem: str) -> str:
    from ultrarefiner.evaluation import (
        SnapshotRow,
        draw_snapshot,
        evaluate_segmentation,
        segmentation_table,
        write_segmentation_csv,
    )

    size = _size(model)
    boxes = torch.stack([tight_box(training[index].mask[0] > 0.5) for index in range(len(training))])
    rows = {
        f"boxes of {name}": BoxOf(model),
        "the mean box of the training cases": MeanBox(boxes[boxes[:, 2] > 0].mean(0)).to(setting.device()),
    }
    found = {
        said: evaluate_segmentation(row, cases, size=size, batch_size=1, progress=setting.progress)
        for said, row in rows.items()
    }
    write_segmentation_csv(f"{stem}.csv", found[f"boxes of {name}"])
    shown, drawn = FittedCases(cases, size, keep_in_memory=False), []
    for index in spread(len(cases), _SHOWN):
        batch = collate([shown[index]])
        height, width = batch.content_sizes[0].tolist()
        with torch.no_grad():
            soft = model(batch.images.to(setting.device())).logits.sigmoid().cpu()
        parts = {"image": batch.images, "target": batch.masks, "probability": soft}
        drawn.append(
            SnapshotRow(name=batch.names[0], **{part: value[0, :, :height, :width] for part, value in parts.items()})
        )
    with replaced_file(f"{stem}.png") as file:
        draw_snapshot(drawn, title=name, boxes_only=True).savefig(file, format="png", dpi=100)
    return segmentation_table(found, against=f"boxes of {name}")


def _size(model: Any) -> int:
    return int(model.input_policy.size)
