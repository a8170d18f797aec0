"""How a measure grows with the clicks: its area, its mean at every click, and a picture of several methods."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from ultrarefiner.data.palette import LINES
from ultrarefiner.evaluation.bootstrap import Estimate, bootstrap_estimates
from ultrarefiner.evaluation.drawing import write_figure

Curves = Mapping[str, Float[np.ndarray, "cases clicks"]]

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def area_under_clicks(
    values: Float[np.ndarray, "*cases clicks"], *, first: int = 1, normalised: bool = True
) -> NDArray[np.float64]:
    r"""The area under a measure over the clicks, by trapezoids.

    .. math:: A = \sum_{i=f}^{n-1} \frac{v_i + v_{i+1}}{2}

    The CVPR 2025 challenge takes the five results after clicks (f = 1, n = 5), without the box's, and does not divide:
    its DSC_AUC and NSD_AUC reach 4. ``normalised`` divides by n - f: the mean height, in the unit of the measure, the
    same for any number of clicks.

    Args:
        values: the last axis is the number of clicks, entry 0 before any click (with a box alone).
        first: the number of clicks at which the area begins, f.
        normalised: whether to divide.

    Returns:
        One area a case.

    Raises:
        ValueError: fewer than two results from ``first`` on, or one is not finite.

    Example:
        >>> dice = np.array([[0.5, 0.6, 0.8, 0.8, 0.8, 0.8]])
        >>> area_under_clicks(dice, normalised=False).round(3), area_under_clicks(dice).round(3)
        (array([3.1]), array([0.775]))

    References:
        github.com/JunMa11/CVPR-MedSegFMCompetition (CVPR25_iter_eval.py).
    """
    counted = np.asarray(values, dtype=np.float64)[..., max(first, 0) :]
    if first < 0 or counted.shape[-1] < 2 or not np.isfinite(counted).all():
        message = (
            f"values must hold at least two finite results from click {first} on, got the shape {np.shape(values)} "
            f"with {int((~np.isfinite(counted)).sum())} that are not finite; give every case a number at every click."
        )
        raise ValueError(message)
    area: NDArray[np.float64] = ((counted[..., 1:] + counted[..., :-1]) / 2).sum(-1)
    return np.asarray(area / (counted.shape[-1] - 1) if normalised else area)


def click_table(
    curves: Curves,
    groups: Sequence[str],
    *,
    measure: str = "Dice",
    against: str | None = None,
    resamples: int = 10_000,
    seed: int = 0,
) -> str:
    """A table of means at every click with 95 % intervals, one row a method, and of the area over the clicks.

    Args:
        curves: of each method the measure of every case (rows) after 0, 1, 2 … clicks (columns), the same cases in the
            same order.
        groups: the group of each case; whole groups are drawn (`bootstrap_estimates`).
        measure: its name, for the heading.
        against: a method; under each other one then stands its difference to this one, case by case, with the interval
            of the paired differences.
        resamples: how often the bootstrap draws.
        seed: of the bootstrap.

    Returns:
        Markdown, ending in a newline. The area is normalised (`area_under_clicks`, from click 1 on); it is left out
        where there are fewer than two clicks.

    Raises:
        ValueError: there is no method or no case, methods differ in shape, a value is not finite, groups are not one a
            case, or ``against`` is no method.

    Example:
        >>> curves = {"box": np.array([[0.5, 0.5], [0.7, 0.7]]), "clicks": np.array([[0.5, 0.7], [0.7, 0.9]])}
        >>> print(click_table(curves, ["a", "b"], against="box", resamples=10).splitlines()[4])
        | clicks - box | +0.000 [+0.000, +0.000] | +0.200 [+0.200, +0.200] |
    """
    cases, clicks = _check(curves, groups)
    if against is not None and against not in curves:
        message = f"against must be one of the methods {', '.join(curves)}, got {against!r}."
        raise ValueError(message)
    area = [f"area 1 to {clicks - 1}"] if clicks > 2 else []
    heads = [measure, *("0 clicks" if n == 0 else f"{n} click{'s' if n > 1 else ''}" for n in range(clicks)), *area]
    rows = [(name, _with_area(values), ".3f") for name, values in curves.items()]
    if against is not None:
        base = rows[list(curves).index(against)][1]
        rows += [
            (f"{name} - {against}", _with_area(values) - base, "+.3f")
            for name, values in curves.items()
            if name != against
        ]
    lines = [f"| {' | '.join(heads)} |", "|:--|" + "--:|" * (len(heads) - 1)]
    for name, values, form in rows:
        estimates = bootstrap_estimates(values, groups, resamples=resamples, seed=seed)
        lines.append(f"| {' | '.join([name, *(_cell(one, form) for one in estimates)])} |")
    grouped = len(set(groups))
    lines += [
        "",
        f"{cases} cases in {grouped} groups; [ ]: 95 % bootstrap interval of the mean ({resamples} resamples of "
        "groups).",
        "",
    ]
    return "\n".join(lines)


def click_figure(
    curves: Curves,
    path: str | os.PathLike[str],
    *,
    groups: Sequence[str] | None = None,
    measure: str = "Dice",
    resamples: int = 2_000,
    seed: int = 0,
    dots_per_inch: int = 130,
) -> Path:
    """Draw the mean of each method over the number of clicks, with a band of its 95 % bootstrap interval.

    Args:
        curves: of each method the measure of every case (rows) after 0, 1, 2 … clicks (columns).
        path: the picture; its ending decides the format (png, pdf, svg). It appears whole or not at all.
        groups: the group of each case; None draws cases one by one.
        measure: its name, for the axis.
        resamples: how often the bootstrap draws.
        seed: of the bootstrap.
        dots_per_inch: resolution; the picture is 5.4 by 3.8 inches.

    Returns:
        The picture's file.

    Raises:
        ValueError: there is no method or no case, methods differ in shape, a value is not finite, or groups are not one
            a case.

    Example:
        >>> import tempfile
        >>> curves = {"box": np.full((2, 3), 0.5), "clicks": np.array([[0.5, 0.7, 0.8], [0.6, 0.7, 0.9]])}
        >>> click_figure(curves, Path(tempfile.mkdtemp()) / "clicks.png", dots_per_inch=40).name
        'clicks.png'
    """
    path = Path(path)
    count = len(next(iter(curves.values()))) if curves else 0
    members = [str(case) for case in range(count)] if groups is None else groups
    _, clicks = _check(curves, members)
    figure = Figure(figsize=(5.4, 3.8), facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    for place, (name, values) in enumerate(curves.items()):
        estimates = bootstrap_estimates(np.asarray(values, np.float64), members, resamples=resamples, seed=seed)
        _line(axis, name, estimates, place)
    axis.set_xlabel("clicks", fontsize=9)
    axis.set_ylabel(f"mean {measure}", fontsize=9)
    axis.set_xlim(-0.15, max(clicks - 1, 1) + 0.15)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25, linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    drawn = "groups" if groups is not None and len(set(groups)) < len(groups) else "cases"
    axis.set_title(f"{count} cases; bands: 95 % bootstrap interval over {drawn}", fontsize=8.5, loc="left")
    if len(curves) > 3:  # inside it would cover them
        figure.legend(fontsize=8, loc="outside lower center", ncols=2, frameon=False)
    else:
        axis.legend(fontsize=8, framealpha=0.85, loc="best")
    write_figure(figure, path, dots_per_inch=dots_per_inch)
    return path


def _line(axis: Any, name: str, estimates: Sequence[Estimate], place: int) -> None:
    clicks = np.arange(len(estimates))
    colour, marker = LINES[place % len(LINES)], _MARKERS[place % len(_MARKERS)]
    low, high = ([getattr(one, end) for one in estimates] for end in ("low", "high"))
    axis.fill_between(clicks, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.plot(clicks, [one.mean for one in estimates], color=colour, marker=marker, markersize=4.5, label=name)


def _with_area(values: NDArray[Any]) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if numbers.shape[1] < 3:
        return numbers
    return np.concatenate([numbers, area_under_clicks(numbers)[:, None]], axis=1)


def _cell(estimate: Estimate, form: str) -> str:
    return f"{estimate.mean:{form}} [{estimate.low:{form}}, {estimate.high:{form}}]"


def _check(curves: Curves, groups: Sequence[str]) -> tuple[int, int]:
    """How many cases and columns there are."""
    shapes = {name: np.shape(values) for name, values in curves.items()}
    shape = next(iter(shapes.values()), ())
    if len(shape) != 2 or 0 in shape or set(shapes.values()) != {shape}:
        message = (
            "curves must hold at least one method, all of them (cases, clicks) of the same cases and clicks, got "
            f"{shapes}; fill in what a method did not answer."
        )
        raise ValueError(message)
    spoilt = [name for name, values in curves.items() if not np.isfinite(values).all()]
    if spoilt:
        message = f"curves must be finite, but {', '.join(spoilt)} is not; give every case a number at every click."
        raise ValueError(message)
    if len(groups) != shape[0]:
        message = f"groups must name one group a case, {shape[0]}, got {len(groups)}."
        raise ValueError(message)
    return int(shape[0]), int(shape[1])
