"""A data set of simulated failures that is a seed and a number: every sample is made when it is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from ultrarefiner.data.batches import FittedCases
from ultrarefiner.data.fit import FittedCase
from ultrarefiner.data.fitted_view import FittedView
from ultrarefiner.data.predictions import PredictedCases
from ultrarefiner.data.seeds import stable_seed
from ultrarefiner.ops.counter import counter_uniform
from ultrarefiner.simulation.lesions import Lesions
from ultrarefiner.simulation.resolution import mask_at_size, probability_at_size
from ultrarefiner.simulation.simulator import FailureSimulator, SimulatedMasks


class SimulatedFailures(FittedView):
    """Fitted cases, each many times, each time with another simulated failure as its coarse mask.

    Sample i is failure number i of the seed, made from the true mask of one case: the same on any worker, in any batch,
    in a resumed run. Every round goes through all cases once, each round in another order, so that all cases come
    equally often and no case always gets the same bin of Dice.

    A loader fetches whole batches at once (``__getitems__``), and they are simulated together.

    Args:
        dataset: the cases. Those without a lesion keep an empty coarse mask, and so do those whose lesion vanishes in
            the square where failures are made.
        simulator: what makes the failures.
        samples: how many.
        seed: of failures and orders.
        size: side of the square in which failures are made, the coarse network's resolution (`AtResolution` says why);
            None for that of the fitted cases.
        keep_in_memory: keep the distances of a true mask from the first time that it is seen, which are about half of
            the work: 5 bytes a pixel of that square, 0.25 MB a case at 224. Each worker of a loader keeps its own,
            beside what ``dataset`` keeps.

    Attributes:
        names: the names of the cases behind the samples, in order: sample i is of case ``names[i]``.

    Raises:
        ValueError: fewer than one sample, or a size below 1.

    Example:
        >>> from ultrarefiner.data.phantoms import Phantoms
        >>> made = SimulatedFailures(FittedCases(Phantoms(4, size=(48, 64)), 64), FailureSimulator(), samples=10)
        >>> len(made), made[9].coarse_probability.shape, sorted(made.names[:4])
        (10, torch.Size([1, 64, 64]), ['phantom 0', 'phantom 1', 'phantom 2', 'phantom 3'])
    """

    def __init__(
        self,
        dataset: FittedCases,
        simulator: FailureSimulator,
        *,
        samples: int = 100_000,
        seed: int = 0,
        size: int | None = None,
        keep_in_memory: bool = True,
    ) -> None:
        side = dataset.size if size is None else size
        if samples < 1 or side < 1:
            message = f"samples and size must be at least 1, but they are {samples} and {side}."
            raise ValueError(message)
        super().__init__(dataset)
        self.simulator = simulator
        self.samples = samples
        self.seed = seed
        self.simulated_size = side
        self._orders: dict[int, list[int]] = {}
        self._known: dict[int, tuple[Tensor, Lesions]] | None = {} if keep_in_memory else None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the cases behind the samples, in order."""
        names = self.dataset.names
        return tuple(names[self.case_of(index)] for index in range(self.samples))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers: how the failures are made."""
        return {
            "masks": "simulated",
            "simulator": self.simulator,
            "samples": self.samples,
            "seed": self.seed,
            "size": self.simulated_size,
        }

    def case_of(self, index: int) -> int:
        """Which case of the data set sample number ``index`` is made from."""
        turn, place = divmod(index, len(self.dataset))
        if turn not in self._orders:
            self._orders[turn] = self._order(turn)
        return self._orders[turn][place]

    def simulated(self, indices: Sequence[int]) -> SimulatedMasks:
        """The failures of these samples in the square where they are made, with what was done and their Dice.

        Raises:
            IndexError: there is no such sample.
        """
        for index in indices:
            self.check_index(index)
        inside, lesions = zip(*(self._true(self.case_of(index)) for index in indices), strict=True)
        return self.simulator.simulate(
            torch.stack(inside), seed=self.seed, index=torch.tensor(indices), lesions=Lesions.stack(lesions)
        )

    def __len__(self) -> int:
        return self.samples

    def __getstate__(self) -> dict[str, Any]:
        """A worker measures the masks that it sees; what is kept here may be gigabytes."""
        return {**self.__dict__, "_known": None if self._known is None else {}}

    def __getitem__(self, index: int) -> FittedCase:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[FittedCase]:
        """Several samples at once, as a loader asks for them."""
        if not indices:
            return []
        made = self.simulated(indices).probability[:, None]
        coarse = probability_at_size(made, (self.size, self.size))
        cases = (self.dataset[self.case_of(index)] for index in indices)
        return [
            replace(case, coarse_probability=mask.to(case.mask.dtype)) for case, mask in zip(cases, coarse, strict=True)
        ]

    def _order(self, turn: int) -> list[int]:
        numbers = torch.arange(len(self.dataset))
        seed = stable_seed("order", self.seed, turn)
        drawn: list[int] = counter_uniform(seed, numbers, 1)[:, 0].argsort(stable=True).tolist()
        return drawn

    def _true(self, case: int) -> tuple[Tensor, Lesions]:
        """The true mask of a case in the small square, and its measures."""
        if self._known is not None and case in self._known:
            return self._known[case]
        inside = mask_at_size(self.dataset[case].mask[None], (self.simulated_size, self.simulated_size))[:, 0]
        measured = inside[0], Lesions.of(inside)
        if self._known is not None:
            self._known[case] = measured
        return measured


class Mixed(FittedView):
    """Simulated failures and predicted masks in one data set, at a share that is met exactly.

    Every simulated sample comes once. Predicted ones stand among them evenly: of the first m samples the whole part of
    m times the share are predicted. They come in turn, each as often as the next, give or take one. A shuffled pass
    over the data set meets the share exactly, a part of one on average: let it have as many samples as the run sees.

    Args:
        simulated: `SimulatedFailures`.
        predicted: `PredictedCases`, the out-of-fold predictions of training cases.
        share: of predicted samples among all, in (0, 1).

    Attributes:
        names: the names of the cases behind the samples, in order.

    Raises:
        ValueError: a share outside of (0, 1) or too small for one predicted mask, or squares of two sizes or kinds.

    Example:
        >>> from ultrarefiner.data.phantoms import Phantoms
        >>> from ultrarefiner.data.predictions import CoarsePredictions, PredictedCases
        >>> fitted = FittedCases(Phantoms(2, size=(48, 64)), 32)
        >>> stored = CoarsePredictions(fitted.names, torch.zeros(2, 1, 16, 16), (0, 0), ((),), "FitToSquare")
        >>> mixed = Mixed(
        ...     SimulatedFailures(fitted, FailureSimulator(), samples=6), PredictedCases(fitted, stored), share=0.25
        ... )
        >>> len(mixed), [mixed.is_predicted(index) for index in range(8)].count(True)
        (8, 2)
    """

    def __init__(self, simulated: SimulatedFailures, predicted: PredictedCases, *, share: float) -> None:
        if not 0 < share < 1:
            message = f"share must be in (0, 1), but it is {share}; without one of the two, train on the other alone."
            raise ValueError(message)
        one, other = (f"{type(part.dataset.fit).__qualname__}({part.size})" for part in (simulated, predicted))
        if one != other:
            message = f"both data sets must be fitted alike, but they are by {one} and {other}; fit both with one fit."
            raise ValueError(message)
        super().__init__(simulated.dataset)
        self.simulated = simulated
        self.predicted = predicted
        self.share = share
        self._share = Fraction(share).limit_denominator(1_000_000)
        if self._share == 1:
            message = (
                f"share must leave room for simulated samples, but it is {share}; train on the predicted ones alone."
            )
            raise ValueError(message)
        self._length = int(len(simulated) / (1 - self._share))  # the longest of which as many are simulated
        if self._length == len(simulated):
            message = (
                f"share {share} beside {len(simulated)} simulated samples is less than one predicted mask; train on "
                "the simulated ones alone, or give more samples or a larger share."
            )
            raise ValueError(message)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The names of the cases behind the samples, in order."""
        simulated, predicted = self.simulated.names, self.predicted.names
        places = (self._place(index) for index in range(len(self)))
        return tuple(predicted[place] if is_predicted else simulated[place] for is_predicted, place in places)

    @property
    def unseen(self) -> bool:
        """Whether some of the cases are kept for testing alone."""
        return self.simulated.unseen or self.predicted.unseen

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers."""
        return {"masks": "mixed", "share": self.share, "simulated": self.simulated, "predicted": self.predicted}

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """The names of all cases that the networks behind the predicted masks were trained on."""
        return self.predicted.learnt_from

    def is_predicted(self, index: int) -> bool:
        """Whether a sample has a predicted mask rather than a simulated one."""
        return self._place(index)[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> FittedCase:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[FittedCase]:
        """Several samples at once, as a loader asks for them."""
        places = [self._place(index) for index in indices]
        made = iter(self.simulated.__getitems__([place for is_predicted, place in places if not is_predicted]))
        return [self.predicted[place] if is_predicted else next(made) for is_predicted, place in places]

    def _place(self, index: int) -> tuple[bool, int]:
        """Whether a sample is predicted, and its index in that data set."""
        self.check_index(index)
        before, after = int(index * self._share), int((index + 1) * self._share)
        return (True, before % len(self.predicted)) if after > before else (False, index - before)
