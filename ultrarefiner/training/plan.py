"""The numbers of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from ultrarefiner.training.schedule import Cosine, Schedule

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The numbers that decide what a run computes; see `train` for what they mean.

    A resumed run must have the same ones.

    Raises:
        ValueError: a number out of its range.

    Example:
        >>> Plan(epochs=2, batch_size=4, cases=10, accumulate=2).steps
        4
    """

    epochs: int
    batch_size: int
    cases: int
    epoch_size: int | None = None
    accumulate: int = 1
    clip_norm: float | None = 1.0
    schedule: Schedule = field(default_factory=Cosine)
    seed: int = 0
    precision: str = "32-true"
    processes: int = 1

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            if getattr(self, name) < 1:
                message = f"{name} must be at least 1, but it is {getattr(self, name)}."
                raise ValueError(message)
        if self.cases < 1:
            message = "dataset must hold at least one case to train on, but it is empty; check its folder or split."
            raise ValueError(message)
        if self.epoch_size is not None and self.epoch_size < 1:
            message = f"epoch_size must be at least 1 case, or None for all of them, but it is {self.epoch_size}."
            raise ValueError(message)
        if not isinstance(self.schedule, Schedule):
            message = f"schedule must be a Schedule such as Cosine() or Polynomial(), but it is {self.schedule!r}."
            raise ValueError(message)
        if self.precision not in PRECISIONS:
            message = (
                f"precision must be one of {', '.join(PRECISIONS)}, but it is {self.precision!r}; weights and the "
                "optimiser stay in 32 bits."
            )
            raise ValueError(message)
        if self.clip_norm is not None and self.clip_norm <= 0:
            message = f"clip_norm must be positive, or None for no clipping, but it is {self.clip_norm}."
            raise ValueError(message)

    @property
    def batches_per_epoch(self) -> int:
        """Batches that each process sees in an epoch; the last may be smaller, none is dropped."""
        return math.ceil(math.ceil(self.cases_per_epoch / self.processes) / self.batch_size)

    @property
    def cases_per_epoch(self) -> int:
        """Cases that all processes together see in an epoch."""
        return self.cases if self.epoch_size is None else self.epoch_size

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimiser in an epoch; the last may gather fewer batches, none is dropped."""
        return math.ceil(self.batches_per_epoch / self.accumulate)

    @property
    def steps(self) -> int:
        """Steps of the optimiser in the whole run."""
        return self.epochs * self.steps_per_epoch
