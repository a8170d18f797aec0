"""What a phase reached: tables, files and pictures of what is reported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.cli.phase_setting import NO_LESION, PhaseSetting
from ultrarefiner.cli.split import Split
from ultrarefiner.systems import UltraRefiner

_MADE_UP = "\nMade-up cases: this shows that all runs."


def coarse_tables(
    network: nn.Module, setting: PhaseSetting, split: Split, *, frame: int, batch_size: int, measures: bool
) -> str:
    """Measure a coarse network on what is reported: ``test.md``, and for each set a CSV file and a picture.

    Args:
        network: the best one.
        setting: of the command.
        split: its cases.
        frame: side of the square that images are fitted to.
        batch_size: images at once.
        measures: S-measure and others, too.

    Returns:
        Markdown.
    """
    from ultrarefiner.evaluation import (
        evaluate_segmentation,
        segmentation_figure,
        segmentation_table,
        write_segmentation_csv,
    )

    network.to(setting.device())

    def measured(cases: Any, stem: str) -> str:
        found = evaluate_segmentation(
            network, cases, size=frame, batch_size=batch_size, measures=measures, progress=setting.progress
        )
        write_segmentation_csv(f"{stem}.csv", found)
        segmentation_figure(found.panels, f"{stem}.png")
        return segmentation_table({"coarse": found})

    return reported(setting, split, "coarse", measured)


def pair_tables(
    model: UltraRefiner, setting: PhaseSetting, split: Split, name: str, *, frame: int, batch_size: int
) -> str:
    """Measure coarse against refined on what is reported: ``test.md``, and for each set a CSV file and a picture.

    Args:
        model: both networks.
        setting: of the command.
        split: its cases.
        name: of the run.
        frame: side of the square that images are fitted to.
        batch_size: images at once.

    Returns:
        Markdown.
    """
    from ultrarefiner.evaluation import evaluate, markdown_table, panel_figure, write_csv

    model.to(setting.device())

    def measured(cases: Any, stem: str) -> str:
        found = evaluate(model, cases, size=frame, batch_size=batch_size, progress=setting.progress)
        write_csv(f"{stem}.csv", found.comparison)
        panel_figure(found.panels, f"{stem}.png")
        return markdown_table(found.comparison)

    return reported(setting, split, name, measured)


def reported(
    setting: PhaseSetting,
    split: Split,
    name: str,
    measured: Callable[[Any, str], str],
    *,
    lesions_only: bool = False,
) -> str:
    """Tables of every set that is reported, kept as ``test.md``.

    Images without a lesion have a table of their own: a mean over both would flatter whoever draws little.

    Args:
        setting: of the command.
        split: its cases.
        name: of the run.
        measured: called with the cases of a set and where its files begin; returns a table.
        lesions_only: leave images without a lesion out.

    Returns:
        The tables, and where the files are.
    """
    folder, told, pictures = setting.run_folder(name), [], []
    for end, which, cases in _sets(split, lesions_only=lesions_only):
        table = measured(cases, str(folder / f"test{end}"))
        told.append(f"{which}, {len(cases)} cases that neither trained nor chose.\n\n{table}")
        pictures.append(f"test{end}.png")
    if split.note:
        told.append(f"{split.note}\n")
    text = "\n".join(told)
    with replaced_file(folder / "test.md") as file:
        file.write(text.encode())
    drawn = f"pictures {', '.join(pictures)} and curves.png"
    files = f"In {folder}: {drawn}, every case's numbers in the .csv of the same name."
    return f"{text}\n{files}{_MADE_UP if setting.synthetic else ''}"


def _sets(split: Split, *, lesions_only: bool) -> list[tuple[str, str, Any]]:
    """Of every set that is reported the end of its files' names, its title, and its cases."""
    found: list[tuple[str, str, Any]] = []
    for which, cases in split.tests.items():
        end = f"_{which}" if len(split.tests) > 1 else ""
        labels = dict(zip(cases.names, cases.labels, strict=True))
        normal = [name for name, label in labels.items() if label == NO_LESION]
        lesions = [name for name, label in labels.items() if label != NO_LESION]
        if not normal or not lesions:
            found.append((end, which, cases))
            continue
        found.append((end, which, cases.subset(lesions)))
        if not lesions_only:
            title = f"{which}, images without a lesion (Dice is 1 where nothing is drawn, else 0)"
            found.append((f"{end}_normal", title, cases.subset(normal)))
    return found
