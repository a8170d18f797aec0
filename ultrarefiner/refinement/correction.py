"""GRUCorrection: logits that get better with every click, by a network that remembers the clicks before."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional

from ultrarefiner.refinement.point_rows import point_rows, row_length
from ultrarefiner.refinement.point_selection import check_options, uncertain_voxels, values_at, wrong_voxels
from ultrarefiner.refinement.point_state import PointState, build_state, unit_coordinates
from ultrarefiner.refinement.point_writing import Mode, written, written_voxels
from ultrarefiner.refinement.volume_checks import check_clicks, check_points, check_volume
from ultrarefiner.types import Clicks


@dataclass(frozen=True)
class CorrectionState:
    """What a `GRUCorrection` remembers between clicks.

    Attributes:
        hidden: the GRU's hidden state.
        first_click: voxel indices of the first click, which every later state refers to; 0 before it.
        started: whether there has been a click.
    """

    hidden: Float[Tensor, "b hidden"]
    first_click: Int[Tensor, "b d"]
    started: Bool[Tensor, " b"]


@dataclass(frozen=True)
class Correction:
    """What a `GRUCorrection` answers to a click.

    Attributes:
        logits: the corrected logits.
        state: to be given back at the next click.
        points: the voxels that it looked at, and what it was told about them.
        values: what it wrote at each of the 2K points, in logits; not written where ``valid`` is False.
        positions: where, in voxel indices in the order of the array's axes, not whole in general.
        valid: which points were written; nothing of a volume without a click now.
        written: the voxels that were written.
    """

    logits: Float[Tensor, "b 1 *space"]
    state: CorrectionState
    points: PointState
    values: Float[Tensor, "b points"]
    positions: Float[Tensor, "b points d"]
    valid: Bool[Tensor, "b points"]
    written: Bool[Tensor, "b 1 *space"]


class GRUCorrection(nn.Module):
    r"""Correct logits at a click, with the memory of the clicks before; after any network, in 2-D and 3-D.

    The K most uncertain voxels (`select_uncertain`) and the K that clicks say are wrong (`select_errors`) become a
    state of 2K rows (`build_state`), two steps of a GRU whose hidden state h is carried from click to click. Then every
    point i is judged by one small network of h and the point's own coordinates, logit and way from the click, r_i
    (`point_rows`):

    .. math:: u_i = \mathrm{ReLU}(W [h, r_i]), \quad a_i = g\, w_a \cdot u_i, \quad
        \delta_i = s \tanh(W_\delta u_i)

    The values a are written where the points then are, :math:`\delta` voxels beside their own (`write_points`). Both
    heads start at 0: with mode "add" an untrained correction changes nothing.

    The published network has one GRU for each of five clicks, carries no state, moves no point, and has a linear head
    for each of the 2K places in the list (`PublishedGRUBlock`); here one GRU serves any number of clicks, and one head
    all points, so that what is learnt of one is learnt of all. A volume without a valid click in a call is left as
    it is, and so is its memory. Give it the resolution at which the points matter: 2K points are much of a mask of 64 x
    64 x 32, and little of 512 x 512 x 300.

    It works without autocast, and coordinates, positions, values and both heads are float32 or wider whatever the
    dtype of the weights or the logits: in half precision the indices above 256 or 2048 are not whole numbers.

    Args:
        points: K, for each of the two sets.
        hidden: size of the hidden state.
        dimensions: 2 or 3.
        tau: see `select_uncertain`.
        radius: see `select_errors`, in voxels.
        shift: s, the largest refinement of a position in voxels; 0 keeps points on their voxels.
        mode: "add" writes a change, "set" a new logit.
        gain: g, multiplies the values, and with them how fast they grow in training. A network that is sure of its
            mistakes has logits of 10 and more there, which a value of 1 does not move.
        width: of u, what is computed for each point.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> correction = GRUCorrection(points=8, hidden=16, dimensions=2)
        >>> logits = torch.randn(1, 1, 12, 12)
        >>> first = correction(logits, Clicks.at([(3, 4)], positive=[True]))
        >>> torch.equal(first.logits, logits)
        True
        >>> second = correction(first.logits, Clicks.at([(8, 2)], positive=[False]), first.state)
        >>> second.state.first_click
        tensor([[3, 4]])

    SegVol-GRU-Correction, github.com/MoriiHuang/SegVol_GRU_Correction.
    """

    def __init__(
        self,
        *,
        points: int = 200,
        hidden: int = 256,
        dimensions: int = 3,
        tau: float = 0.1,
        radius: float = 20.0,
        shift: float = 1.0,
        mode: Mode = "add",
        gain: float = 1.0,
        width: int = 64,
    ) -> None:
        super().__init__()
        numbers = min(points, hidden, width) >= 1 and 0 <= shift < math.inf and 0 < gain < math.inf
        if not numbers or dimensions not in (2, 3) or mode not in ("add", "set"):
            message = (
                "GRUCorrection takes points, hidden and width >= 1, dimensions 2 or 3, a finite shift >= 0, a finite "
                f'gain > 0 and mode "add" or "set", but was given points={points}, hidden={hidden}, width={width}, '
                f"dimensions={dimensions}, shift={shift}, gain={gain} and mode={mode!r}."
            )
            raise ValueError(message)
        check_options(count=points, tau=tau, radius=radius)
        self.points, self.hidden, self.dimensions = points, hidden, dimensions
        self.tau, self.radius, self.shift, self.mode = tau, radius, shift, mode
        self.gain, self.width = gain, width
        self.gru = nn.GRU(points * (2 * dimensions + 2), hidden, batch_first=True)
        self.judge = nn.Linear(hidden + row_length(dimensions), width)
        self.value_head = nn.Linear(width, 1)
        self.shift_head = nn.Linear(width, dimensions) if shift > 0 else None
        for head in (self.value_head, self.shift_head):
            if head is not None:
                nn.init.zeros_(head.weight)
                nn.init.zeros_(head.bias)

    def forward(
        self, logits: Float[Tensor, "b 1 *space"], clicks: Clicks, state: CorrectionState | None = None
    ) -> Correction:
        """Correct logits once.

        Args:
            logits: (b, 1, d, h, w) or (b, 1, h, w), finite; those of the network, or of the last correction.
            clicks: whose surroundings are searched for errors: the new click, or all clicks so far.
            state: of the last correction of these volumes; None at the first click.

        Returns:
            The corrected logits, and the state for the next click.

        Raises:
            ValueError: logits or clicks do not fit, a click lies outside, the state is another batch's, or the weights
                make values that are not finite.
        """
        self._check(logits, clicks, state)
        with _no_autocast(logits.device):
            return self._correct(logits, clicks, state)

    def _correct(self, logits: Tensor, clicks: Clicks, state: CorrectionState | None) -> Correction:
        size = tuple(logits.shape[2:])
        now = clicks.valid.any(1)
        before = state or self._start(clicks)
        first_click = before.first_click.where(before.started[:, None], _first_valid(clicks))
        points = self._look(logits, clicks, first_click)
        rows = point_rows(points, logits, clicks, radius=self.radius)
        hidden, values, moves = self.read(points.sequence(), rows, before.hidden)
        positions = points.indices + moves
        valid = points.valid & now[:, None]
        check_points(positions, values, valid)
        return Correction(
            written(logits, positions, values, valid, mode=self.mode),
            CorrectionState(hidden.where(now[:, None], before.hidden), first_click, before.started | now),
            points,
            values,
            positions,
            valid,
            written_voxels(positions, valid, size),
        )

    def read(
        self,
        sequence: Float[Tensor, "b t kf"],
        rows: Float[Tensor, "b points f"],
        hidden: Float[Tensor, "b hidden"],
    ) -> tuple[Float[Tensor, "b hidden"], Float[Tensor, "b points"], Float[Tensor, "b points d"]]:
        """The GRU over states and the heads on its last step.

        Reading the states of several clicks at once is reading them one after the other with the hidden state carried.

        Args:
            sequence: rows of one click or more, `PointState.sequence`.
            rows: `point_rows` of the latest.
            hidden: before the first of them.

        Returns:
            The hidden state, a value for each point, and how far each moves, in voxels.
        """
        with _no_autocast(sequence.device):
            dtype = self.value_head.weight.dtype
            last = self.gru(sequence.to(dtype), hidden.to(dtype)[None].contiguous())[0][:, -1]
            wide = torch.promote_types(dtype, torch.float32)
            # The memory is the same for all points of a volume: it is multiplied once.
            remembered = functional.linear(last.to(wide), self.judge.weight[:, : self.hidden].to(wide))[:, None]
            seen = functional.linear(rows.to(wide), self.judge.weight[:, self.hidden :].to(wide))
            judged = torch.relu(remembered + seen + self.judge.bias.to(wide))
            values = self.gain * _linear(self.value_head, judged)[..., 0]
            if self.shift_head is None:
                return last, values, judged.new_zeros(*values.shape, self.dimensions)
            return last, values, self.shift * torch.tanh(_linear(self.shift_head, judged))

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments."""
        names = ("points", "hidden", "dimensions", "tau", "radius", "shift", "mode", "gain", "width")
        return {name: getattr(self, name) for name in names}

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return ", ".join(f"{name}={value!r}" for name, value in self.settings().items())

    def _look(self, logits: Tensor, clicks: Clicks, first_click: Tensor) -> PointState:
        wide = torch.promote_types(logits.dtype, torch.float32)
        # Out of the graph: a choice has no gradient, and the few values that have one are gathered.
        with torch.no_grad():
            probability = (-logits.to(wide)).exp_().add_(1).reciprocal_()
            uncertain = uncertain_voxels(probability, count=self.points, tau=self.tau)
            errors = wrong_voxels(probability, clicks, count=self.points, radius=self.radius)
        known = torch.sigmoid(values_at(logits, uncertain.indices).to(wide)).masked_fill(~uncertain.valid, 0.0)
        size = tuple(logits.shape[2:])
        context = unit_coordinates(first_click[:, None], size)[:, 0]
        return build_state(replace(uncertain, probability=known), errors, context, size)

    def _start(self, clicks: Clicks) -> CorrectionState:
        batch, device = clicks.positions.shape[0], clicks.positions.device
        return CorrectionState(
            torch.zeros(batch, self.hidden, dtype=self.value_head.weight.dtype, device=device),
            torch.zeros(batch, self.dimensions, dtype=torch.long, device=device),
            torch.zeros(batch, dtype=torch.bool, device=device),
        )

    def _check(self, logits: Tensor, clicks: Clicks, state: CorrectionState | None) -> None:
        check_volume(logits, "logits")
        if logits.ndim != self.dimensions + 2:
            message = (
                f"logits must have {self.dimensions} axes of space (dimensions={self.dimensions}), but their shape is "
                f"{tuple(logits.shape)}; build the correction with dimensions={logits.ndim - 2}."
            )
            raise ValueError(message)
        check_clicks(clicks, logits.shape[0], logits.shape[2:])
        if state is not None and tuple(state.hidden.shape) != (logits.shape[0], self.hidden):
            message = (
                f"state must hold {self.hidden} numbers for each of {logits.shape[0]} volumes, but its hidden state's "
                f"shape is {tuple(state.hidden.shape)}; give the state of the last correction of the same volumes."
            )
            raise ValueError(message)


def _no_autocast(device: torch.device) -> AbstractContextManager[Any]:
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def _linear(layer: nn.Linear, wide: Tensor) -> Tensor:
    """A layer in the dtype of what it is given."""
    return functional.linear(wide, layer.weight.to(wide.dtype), layer.bias.to(wide.dtype))


def _first_valid(clicks: Clicks) -> Tensor:
    """The first valid click of each volume; 0 where there is none."""
    earlier = clicks.valid.long().cumsum(1)
    first = clicks.valid & (earlier == 1)
    return (clicks.positions * first[..., None]).sum(1).long()
