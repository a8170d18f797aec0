"""What a coarse network made of cases, stored: small logits with the names of all cases that trained it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ultrarefiner.checkpoints.files import Location, read_tensors, write_tensors
from ultrarefiner.data.batches import FittedCases
from ultrarefiner.data.fit import FittedCase
from ultrarefiner.data.fitted_view import FittedView
from ultrarefiner.ops.logits import resize_logits, steady_sigmoid

_TITLE = "ultrarefiner coarse predictions 1"
_LARGEST = 30.0  # of logits; nobody tells probabilities beyond apart


@dataclass(frozen=True)
class CoarsePredictions:
    """Masks that coarse networks predicted for cases that they had never seen.

    Attributes:
        names: of the cases, each once.
        logits: float16, at the network's own resolution, in the frame of the fitted square.
        networks: which network predicted each case, an index into ``trained_on``.
        trained_on: the names that each network was trained on.
        fit: how cases came into their square, the name of a class.

    Raises:
        ValueError: a name comes twice, the numbers of names, logits and networks differ, logits are not finite, a
            network is not there, or predicts a case that it was trained on.

    Example:
        >>> made = CoarsePredictions(("a",), torch.zeros(1, 1, 8, 8), (0,), (("b", "c"),), "FitToSquare")
        >>> made.of(["a"]).logits.shape, made.logits.dtype
        (torch.Size([1, 1, 8, 8]), torch.float16)
    """

    names: tuple[str, ...]
    logits: Float[Tensor, "n k s s"]
    networks: tuple[int, ...]
    trained_on: tuple[tuple[str, ...], ...]
    fit: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "logits", self.logits.clamp(-_LARGEST, _LARGEST).half())
        if not len(set(self.names)) == len(self.names) == len(self.logits) == len(self.networks):
            message = (
                "names must name each case once, with logits and a network for each, but there are "
                f"{len(self.names)} names ({len(set(self.names))} different), {len(self.logits)} masks and "
                f"{len(self.networks)} networks."
            )
            raise ValueError(message)
        unsound = [name for name, mask in zip(self.names, self.logits, strict=True) if not mask.isfinite().all()]
        if unsound:
            message = (
                f"logits must be finite, but those of {len(unsound)} cases are not, the first is {unsound[0]!r}; their "
                "network has diverged: train it again at a lower rate."
            )
            raise ValueError(message)
        if not all(0 <= network < len(self.trained_on) for network in self.networks):
            message = (
                f"networks must be indices into the {len(self.trained_on)} entries of trained_on, but they are up to "
                f"{max(self.networks)}."
            )
            raise ValueError(message)
        seen = [set(names) for names in self.trained_on]
        leaked = [name for name, network in zip(self.names, self.networks, strict=True) if name in seen[network]]
        if leaked:
            message = (
                f"no network may predict a case that it was trained on, but {len(leaked)} are so predicted, the first "
                f"is {leaked[0]!r}; predict each case with the network of the fold that left it out."
            )
            raise ValueError(message)

    def __len__(self) -> int:
        return len(self.names)

    def of(self, names: Iterable[str]) -> CoarsePredictions:
        """The predictions of these cases, in this order.

        Raises:
            ValueError: a case has none.
        """
        wanted = tuple(names)
        place = {name: index for index, name in enumerate(self.names)}
        missing = [name for name in wanted if name not in place]
        if missing:
            message = (
                f"{len(missing)} of {len(wanted)} cases have no stored prediction, the first is {missing[0]!r}; "
                "predict them as well, or leave them out."
            )
            raise ValueError(message)
        rows = [place[name] for name in wanted]
        return replace(self, names=wanted, logits=self.logits[rows], networks=tuple(self.networks[row] for row in rows))

    def joined(self, *others: CoarsePredictions) -> CoarsePredictions:
        """These and others, of other cases.

        Raises:
            ValueError: a case is in two of them, or their sizes or fits differ.
        """
        together = (self, *others)
        kinds = {(one.fit, tuple(one.logits.shape[1:])) for one in together}
        if len(kinds) > 1:
            message = (
                f"predictions must be of one fit and size to be joined, but they are of {sorted(kinds)}; predict all "
                "with the same network on the same FittedCases."
            )
            raise ValueError(message)
        networks: list[int] = []
        trained_on: list[tuple[str, ...]] = []
        for one in together:
            networks += [network + len(trained_on) for network in one.networks]
            trained_on += one.trained_on
        names = tuple(name for one in together for name in one.names)
        logits = torch.cat([one.logits for one in together])
        return CoarsePredictions(names, logits, tuple(networks), tuple(trained_on), self.fit)

    def save(self, path: Location) -> None:
        """Write them to a file, in one step; several processes may, as long as they write the same."""
        write_tensors(
            path,
            {
                "title": _TITLE,
                "names": list(self.names),
                "logits": self.logits,
                "networks": list(self.networks),
                "trained_on": [list(names) for names in self.trained_on],
                "fit": self.fit,
            },
            shared=True,
        )

    @classmethod
    def load(cls, path: Location) -> CoarsePredictions:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, or something else.
        """
        saved = read_tensors(path)
        if saved.get("title") != _TITLE:
            message = (
                f"{path} must be a file of coarse predictions, but it holds {', '.join(map(str, list(saved)[:6]))}; "
                "make one with predict_out_of_fold."
            )
            raise ValueError(message)
        return cls(
            tuple(saved["names"]),
            saved["logits"],
            tuple(saved["networks"]),
            tuple(tuple(names) for names in saved["trained_on"]),
            saved["fit"],
        )


class PredictedCases(FittedView):
    """Fitted cases with the coarse masks that were stored for them, for phase 2.

    The small logits are resized as `AtSize` and `UltraRefiner` resize the coarse network's in phase 3, so that the
    refiner sees the very masks that it will see there, to the precision of float16.

    Args:
        dataset: the cases.
        predictions: of these cases, and perhaps of others.

    Attributes:
        names: the cases' names, in order.

    Raises:
        ValueError: a case has no prediction, or the predictions were made in another kind of square.

    Example:
        >>> from ultrarefiner.data.phantoms import Phantoms
        >>> fitted = FittedCases(Phantoms(2, size=(48, 64)), 32)
        >>> stored = CoarsePredictions(fitted.names, torch.zeros(2, 1, 16, 16), (0, 0), ((),), "FitToSquare")
        >>> PredictedCases(fitted, stored)[1].coarse_probability.shape
        torch.Size([1, 32, 32])
    """

    def __init__(self, dataset: FittedCases, predictions: CoarsePredictions) -> None:
        fit = type(dataset.fit).__qualname__
        if predictions.fit != fit:
            message = (
                f"dataset must be fitted as the predictions are, by {predictions.fit}, but it is by {fit}; fit it so, "
                "or predict again."
            )
            raise ValueError(message)
        super().__init__(dataset)
        self.predictions = predictions.of(dataset.names)
        self.names = dataset.names

    @property
    def learnt_from(self) -> tuple[str, ...]:
        """The names of all cases that the networks behind these masks were trained on."""
        networks = set(self.predictions.networks)
        return tuple(sorted({name for network in networks for name in self.predictions.trained_on[network]}))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers: which masks."""
        return {"masks": "predicted", "digest": self._digest}

    def subset(self, names: Sequence[str]) -> PredictedCases:
        """The cases of these names, in this data set's own order."""
        return PredictedCases(self.dataset.subset(names), self.predictions)

    @cached_property
    def _digest(self) -> str:
        return hashlib.sha256(self.predictions.logits.contiguous().numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FittedCase:
        self.check_index(index)
        case = self.dataset[index]
        logits = self.predictions.logits[index][None].float()
        return replace(case, coarse_probability=steady_sigmoid(resize_logits(logits, case.mask.shape[-2:])[0]))
