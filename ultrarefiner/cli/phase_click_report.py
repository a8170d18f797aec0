"""What a correction by clicks reached: Dice over clicks beside the rule that has nothing to learn."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from ultrarefiner.checkpoints.files import replaced_file
from ultrarefiner.cli.phase_clicks import answer_of, chosen_rule, click_curves
from ultrarefiner.cli.phase_report import reported
from ultrarefiner.cli.phase_setting import PhaseSetting
from ultrarefiner.cli.split import Split
from ultrarefiner.refinement import ClickCorrection, GRUCorrection


@dataclass(frozen=True, kw_only=True)
class ClickReport:
    """How a trained correction is measured.

    Attributes:
        network: whose answers are corrected; None where the cases bring masks.
        correction: the trained one.
        shown: from cases to fitted ones, with the masks that are corrected if there is no network.
        side: of the correction's raster; None for the frame.
        clicks: in the report.
        choosing_clicks: after which the rule is chosen, on the cases that choose.
        batch_size: images at once.
    """

    network: nn.Module | None
    correction: GRUCorrection
    shown: Callable[[Any], Any]
    side: int | None
    clicks: int
    choosing_clicks: int
    batch_size: int

    def tables(self, setting: PhaseSetting, split: Split, name: str) -> str:
        """Measure on what is reported: ``test.md``, and for each set a CSV file and a picture.

        Args:
            setting: of the command.
            split: its cases.
            name: of the run.

        Returns:
            Markdown.
        """
        from ultrarefiner.evaluation import click_figure, click_table

        device, first = setting.device(), answer_of(self.network)
        how: dict[str, Any] = {"side": self.side, "device": device, "progress": setting.progress}
        for module in (self.correction, self.network):
            if module is not None:
                module.to(device).eval()
        choosing, radius = self.shown(split.validation), self.correction.radius
        rule = chosen_rule(first, choosing, clicks=self.choosing_clicks, radius=radius, **how)
        rule_name = f"rule ({rule.count} pixels)"
        corrections: dict[str, ClickCorrection] = {rule_name: rule, "correction": self.correction}

        def measured(cases: Any, stem: str) -> str:
            seen = self.shown(cases)
            groups = _groups(cases, seen)
            found = click_curves(first, corrections, seen, clicks=self.clicks, batch_size=self.batch_size, **how)
            curves = {"no click": np.repeat(found[rule_name][:, :1], self.clicks + 1, axis=1), **found}
            _write_curves(f"{stem}.csv", curves, seen.names)
            click_figure(curves, f"{stem}.png", groups=groups, seed=setting.seed)
            return click_table(curves, groups, against=rule_name, seed=setting.seed)

        # An empty mask cannot be damaged: without a network nothing is to be corrected where there is no lesion.
        return reported(setting, split, name, measured, lesions_only=self.network is None)


def _groups(cases: Any, seen: Any) -> list[str]:
    """The group of every case that is measured; damaged cases come several times."""
    group = dict(zip(cases.names, cases.groups, strict=True))
    return [group[name] for name in seen.names]


def _write_curves(path: str, curves: dict[str, Any], names: tuple[str, ...]) -> None:
    """A row for each case and method: Dice after 0, 1, 2 … clicks."""
    count = next(iter(curves.values())).shape[1]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["name", "method", *(f"dice_{number}_clicks" for number in range(count))])
    for method, values in curves.items():
        for name, row in zip(names, values, strict=True):
            table.writerow([name, method, *(f"{value:.6f}" for value in row)])
    with replaced_file(path) as file:
        file.write(text.getvalue().encode())
