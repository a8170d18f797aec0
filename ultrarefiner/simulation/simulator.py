"""True masks to realistic failures of a wanted Dice, each a function of a seed and a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ultrarefiner.ops.counter import counter_uniform
from ultrarefiner.simulation.edits import Edit, Range
from ultrarefiner.simulation.lesions import Lesions
from ultrarefiner.simulation.presets import PRESETS
from ultrarefiner.simulation.random_field import WAVES, random_field
from ultrarefiner.simulation.shapes import between
from ultrarefiner.simulation.strength import distance_to_bin, flip_strength, solve_strength

_GOLDEN = 0.6180339887498949
_LARGEST = 2.5  # of strengths: farther, straight lines through two distances look like nothing a network does
_FARTHEST = 20.0  # of strengths where the border moves, too
_LEAST_MOVE = 0.25  # pixels by which it then moves at a strength of 1, so that the smallest lesion is not left as it is
_OWN = 6  # numbers that belong to no edit: Dice, how many edits, whether complete, softness, noise, its length
_CHUNK = 16  # masks at once on a CPU, so that what is worked on stays in its cache


@dataclass(frozen=True)
class DiceBin:
    """A range of Dice and its share of all masks.

    Attributes:
        low: lowest Dice.
        high: highest Dice, below 1.
        share: relative to the other bins'.
    """

    low: float
    high: float
    share: float


DEFAULT_BINS = (DiceBin(0.60, 0.80, 0.35), DiceBin(0.80, 0.90, 0.40), DiceBin(0.90, 0.99, 0.25))
"""How often which Dice is wanted, where nothing else is said."""


@dataclass(frozen=True)
class SimulatedMasks:
    """Failures and what was done.

    Attributes:
        probability: soft masks in [0, 1].
        dice: of the masks at 0.5 with the true ones; 1 where both are empty, below it else.
        bin: the number of the wanted bin; -1 for a complete failure or an empty true mask.
        reached: whether the Dice lies in that bin; true for complete failures and empty true masks.
        edits: which edits were made, in the order of `FailureSimulator.names`.
    """

    probability: Float[Tensor, "n h w"]
    dice: Float[Tensor, " n"]
    bin: Int[Tensor, " n"]
    reached: Bool[Tensor, " n"]
    edits: Bool[Tensor, "n kinds"]


@dataclass(frozen=True, kw_only=True)
class FailureSimulator:
    r"""Make wrong, soft masks from true ones.

    Each mask gets one to four edits of its signed distance, and their common strength is solved so that its Dice,
    measured at 0.5 after softening, lies in the wanted bin, at a value drawn evenly from it. Softening is

    .. math:: p = \sigma(-\phi / T), \qquad T = \tau e^{a g}

    with a smooth random field g: what is unsure is wide here and narrow there, and the mask at 0.5 is the same before
    and after. Where edits cannot reach the Dice the border moves, too, the way the edits went or else the other way.
    A complete failure that would be perfect (a frame that is full cannot grow) is empty instead.

    Lesions of 6 pixels and more reach every default bin. Smaller ones have few values of Dice to offer: a single pixel
    reaches 0.60 to 0.80 alone, two to four miss 0.90 to 0.99. They get the nearest Dice, and never 1.

    Mask number i of a seed is always the same, whatever else is made beside it, on any worker. On another kind of
    device the drawn numbers are the same bits, and only rounding of what is computed from them differs.

    Args:
        edits: kinds of errors and their relative frequencies.
        bins: wanted ranges of Dice.
        complete: kinds of complete failures and their relative frequencies; they have no wanted Dice.
        complete_share: share of complete failures among all masks.
        counts: relative frequencies of one, two, three and four edits.
        softness: :math:`\tau` in pixels of a frame of 224, scaled with the frame's longer side; at most a quarter
            of the lesion's radius.
        noise: a.
        noise_length: correlation length of g, in radii.

    Raises:
        ValueError: no edits or bins, a frequency that is not positive, a bin that is not inside (0, 1), or a share
            outside of [0, 1].

    Example:
        >>> target = torch.zeros(2, 1, 64, 64)
        >>> target[..., 16:44, 20:50] = 1.0
        >>> simulator = FailureSimulator.preset("default")
        >>> soft = simulator(target, torch.Generator().manual_seed(0))
        >>> soft.shape, bool((soft > 0.5).any())
        (torch.Size([2, 1, 64, 64]), True)

    After UltraRefiner (github.com/Autzoko/UltraRefiner), whose error types and bins these are.
    """

    edits: Mapping[Edit, float] = field(default_factory=lambda: PRESETS["default"].edits)
    bins: Sequence[DiceBin] = DEFAULT_BINS
    complete: Mapping[Edit, float] = field(default_factory=lambda: PRESETS["default"].complete)
    complete_share: float = 0.0
    counts: tuple[float, float, float, float] = (0.4, 0.3, 0.2, 0.1)
    softness: Range = (0.6, 3.0)
    noise: Range = (0.1, 0.5)
    noise_length: Range = (0.3, 1.0)

    def __post_init__(self) -> None:
        _check(self)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> FailureSimulator:
        """A mixture by name: "default", "mild", "severe", "boundary" or "structural".

        Args:
            name: of the mixture.
            changes: other values of the fields.

        Raises:
            ValueError: there is no mixture of this name.
        """
        if name not in PRESETS:
            message = f"name must be one of {', '.join(PRESETS)}, but it is {name!r}."
            raise ValueError(message)
        chosen = PRESETS[name]
        bins = {} if chosen.bins is None else {"bins": tuple(DiceBin(*numbers) for numbers in chosen.bins)}
        own = {"edits": chosen.edits, "complete": chosen.complete, "complete_share": chosen.complete_share, **bins}
        return cls(**{**own, **changes})

    @property
    def names(self) -> tuple[str, ...]:
        """All kinds of errors, those of `edits` first."""
        return tuple(type(edit).__name__ for edit in (*self.edits, *self.complete))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers."""
        return {
            "edits": [{"edit": edit, "frequency": frequency} for edit, frequency in self.edits.items()],
            "complete": [{"edit": edit, "frequency": frequency} for edit, frequency in self.complete.items()],
            "bins": list(self.bins),
            **{name: getattr(self, name) for name in ("complete_share", "counts", "softness", "noise", "noise_length")},
        }

    def __call__(self, target: Float[Tensor, "b k h w"], generator: torch.Generator) -> Float[Tensor, "b k h w"]:
        """Wrong masks for true ones; new ones for each call.

        Args:
            target: true masks; above 0.5 is lesion. An empty one stays empty.
            generator: on the CPU; one number is drawn from it.

        Returns:
            Soft masks in [0, 1], float32 or wider. No gradient is defined.
        """
        seed = int(torch.randint(2**62, (1,), generator=generator))
        flat = target.flatten(0, 1)
        made = self.simulate(flat > 0.5, seed=seed, index=torch.arange(len(flat)))
        return made.probability.reshape(target.shape).to(torch.promote_types(target.dtype, torch.float32))

    @torch.no_grad()
    def simulate(
        self, inside: Bool[Tensor, "n h w"], *, seed: int, index: Int[Tensor, " n"], lesions: Lesions | None = None
    ) -> SimulatedMasks:
        """Masks by number.

        Args:
            inside: true masks.
            seed: of the whole set.
            index: the number of each mask in it, on the CPU.
            lesions: measures of the true masks where they are known already: to take them is about half of the work.

        Returns:
            The failed masks, with what was done to each.
        """
        known = Lesions.of(inside) if lesions is None else lesions
        size = len(inside) if inside.is_cuda else _CHUNK
        parts = []
        for start in range(0, max(1, len(inside)), max(1, size)):
            few = slice(start, start + size)
            parts.append(self._simulate(inside[few], known[few], seed, index[few]))
        return SimulatedMasks(*(torch.cat([getattr(part, name) for part in parts]) for name in _FIELDS))

    def _simulate(self, inside: Tensor, lesions: Lesions, seed: int, index: Tensor) -> SimulatedMasks:
        kinds = [*self.edits, *self.complete]
        numbers = _OWN + len(kinds) + sum(kind.uniforms for kind in kinds) + 3 * WAVES
        # What is decided on the CPU, so that nobody waits for a device to say which mask gets which edit.
        chosen = self._chosen(counter_uniform(seed, index, _OWN + len(kinds)))
        uniform = counter_uniform(seed, index.to(inside.device), numbers)
        own, parts, waves = _split(uniform, [_OWN, len(kinds), *(kind.uniforms for kind in kinds), 3 * WAVES])
        low, dice, high, wanted = self._wanted(index, seed, own[:, 0])
        severity = 1 - dice
        edited = lesions.distance
        for kind, mine, place in zip(kinds, chosen.T, parts, strict=True):
            which = mine.nonzero()[:, 0].to(inside.device)
            if len(which):
                part = kind(edited[which], lesions[which], place[which], severity[which])
                edited = edited.index_copy(0, which, part)
        complete = chosen[:, len(self.edits) :].any(1).to(inside.device)
        length = (between(self.noise_length, own[:, 5]) * lesions.radius).clamp(min=1)
        wander = random_field(waves, length, lesions.x, lesions.y)
        solved = self._solved(inside, lesions, edited, wander, (low, dice, high), complete)
        probability = self._softened(solved, lesions.radius, wander, own)
        return _measured(probability, inside, (low, high), torch.where(complete, -1, wanted), chosen.to(inside.device))

    def _chosen(self, uniform: Tensor) -> Tensor:
        """Which edits each mask gets, (n, kinds)."""
        count = torch.tensor(self.counts).cumsum(0) / sum(self.counts)
        count = torch.searchsorted(count, uniform[:, 1].contiguous()).clamp(max=3) + 1
        complete = uniform[:, 2] < self.complete_share
        # Drawing without replacement: the smallest waiting times of processes with these rates.
        times = -uniform[:, _OWN:].log() / torch.tensor([*self.edits.values(), *self.complete.values()])
        several, one = times[:, : len(self.edits)], times[:, len(self.edits) :]
        rank = several.argsort(1).argsort(1)
        chosen = (rank < count[:, None]) & ~complete[:, None]
        if not self.complete:
            return chosen
        return torch.cat([chosen, (one == one.amin(1, keepdim=True)) & complete[:, None]], 1)

    def _wanted(self, index: Tensor, seed: int, uniform: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Ends of the wanted bin, the Dice in it, and its number. Shares are met closely, not by luck alone."""
        offset = counter_uniform(seed, torch.tensor([-1]), 1)[0].double()
        place = ((index.double() * _GOLDEN + offset) % 1).float()
        shares = torch.tensor([one.share for one in self.bins])
        number = torch.searchsorted(shares.cumsum(0) / shares.sum(), place).clamp(max=len(self.bins) - 1)
        ends = torch.tensor([[one.low, one.high] for one in self.bins])[number].to(uniform.device)
        low, high = ends.unbind(1)
        return low, low + (high - low) * (0.02 + 0.96 * uniform), high, number.to(uniform.device)

    def _solved(
        self, inside: Tensor, lesions: Lesions, edited: Tensor, wander: Tensor,
        wanted: tuple[Tensor, Tensor, Tensor], complete: Tensor,
    ) -> Tensor:  # fmt: skip
        """The edited distance at the strength that has the wanted Dice."""
        true, (low, dice, high) = lesions.distance, wanted
        strength, found = solve_strength(flip_strength(true, edited), inside, low, dice, high, largest=_LARGEST)
        solved = true + strength[:, None, None] * (edited - true)
        solved = torch.where(complete[:, None, None], edited, solved)
        for way in (1.0, -1.0):
            missed = (((found < low) | (found > high)) & ~complete).nonzero()[:, 0]
            if len(missed) == 0:
                break
            part, reached = self._moved(way, *(
                value[missed] for value in (inside, true, edited, wander, lesions.radius, low, dice, high)
            ))  # fmt: skip
            ends = low[missed], dice[missed], high[missed]
            better = distance_to_bin(reached, *ends) < distance_to_bin(found[missed], *ends)
            solved = solved.index_copy(0, missed, torch.where(better[:, None, None], part, solved[missed]))
            found = found.index_copy(0, missed, torch.where(better, reached, found[missed]))
        return solved

    def _moved(
        self, way: float, inside: Tensor, true: Tensor, edited: Tensor, wander: Tensor, radius: Tensor,
        low: Tensor, dice: Tensor, high: Tensor,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Where edits alone reach the Dice at no strength, the border moves, too, the way the edits went or back."""
        change = edited - true
        inwards = torch.where((change > 0).sum((1, 2)) >= (change < 0).sum((1, 2)), way, -way)
        move = ((2 * (1 - dice) * radius).clamp(min=_LEAST_MOVE) * inwards)[:, None, None] * (1 + 0.3 * wander)
        flips = flip_strength(true, edited + move)
        strength, found = solve_strength(flips, inside, low, dice, high, largest=_FARTHEST)
        return true + strength[:, None, None] * (change + move), found

    def _softened(self, distance: Tensor, radius: Tensor, wander: Tensor, own: Tensor) -> Tensor:
        softness = between(self.softness, own[:, 3]) * max(distance.shape[-2:]) / 224
        softness = torch.minimum(softness, radius / 4)
        width = softness[:, None, None] * (between(self.noise, own[:, 4])[:, None, None] * wander).exp()
        # Not torch.sigmoid: it rounds otherwise at the end of a tensor, so the batch would change the last bit.
        return (distance / width).exp_().add_(1).reciprocal_()


_FIELDS = ("probability", "dice", "bin", "reached", "edits")


def _split(uniform: Tensor, sizes: list[int]) -> tuple[Tensor, list[Tensor], Tensor]:
    own, _, *parts, waves = torch.split(uniform, sizes, 1)
    return own, list(parts), waves


def _measured(
    probability: Tensor, inside: Tensor, wanted: tuple[Tensor, Tensor], bins: Tensor, edits: Tensor
) -> SimulatedMasks:
    true, found = inside.flatten(1), (probability > 0.5).flatten(1)
    empty = ~true.any(1)
    total = found.sum(1, dtype=torch.float32) + true.sum(1, dtype=torch.float32)
    dice = 2 * (found & true).sum(1, dtype=torch.float32) / total.clamp(min=1)
    # A frame that is full cannot grow, nor a pixel collapse: rather than perfect, such a mask is empty.
    perfect = dice >= 1
    probability = probability.masked_fill((empty | perfect)[:, None, None], 0.0)
    dice = torch.where(empty, 1.0, dice.masked_fill(perfect, 0.0))
    bins = torch.where(empty, -1, bins)
    reached = (bins < 0) | ((dice >= wanted[0] - 1e-6) & (dice <= wanted[1] + 1e-6))
    return SimulatedMasks(probability, dice, bins, reached, edits & ~empty[:, None])


def _check(simulator: FailureSimulator) -> None:
    frequencies = [*simulator.edits.values(), *simulator.complete.values()]
    if not simulator.edits or not all(frequency > 0 for frequency in frequencies):
        message = (
            "edits must name at least one kind of error, and all frequencies must be positive, but they are "
            f"{frequencies}; leave out what is not wanted."
        )
        raise ValueError(message)
    if not simulator.bins or not all(0 < one.low < one.high < 1 and one.share > 0 for one in simulator.bins):
        message = (
            "bins must be at least one range of Dice inside (0, 1) with a positive share, but they are "
            f"{list(simulator.bins)}; a perfect mask (1) is never made, and complete failures have their own share."
        )
        raise ValueError(message)
    if not 0 <= simulator.complete_share <= 1 or (simulator.complete_share and not simulator.complete):
        message = (
            "complete_share must be in [0, 1], and above 0 only with kinds of complete failures, but it is "
            f"{simulator.complete_share} with {len(simulator.complete)} kinds."
        )
        raise ValueError(message)
    if len(simulator.counts) != 4 or min(simulator.counts) < 0 or sum(simulator.counts) <= 0:
        message = f"counts must be the frequencies of one to four edits, not all 0, but they are {simulator.counts}."
        raise ValueError(message)
