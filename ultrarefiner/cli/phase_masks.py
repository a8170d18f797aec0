"""The coarse masks that phase 2 and the correction learn to repair."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from ultrarefiner.cli.phase_setting import NO_LESION, PhaseSetting
from ultrarefiner.cli.train_coarse import PREDICTIONS, covers, stored_predictions
from ultrarefiner.data import FittedCases, Mixed, PredictedCases, SimulatedFailures
from ultrarefiner.simulation import AtResolution, FailureSimulator, SimpleFailures

Failures = Literal["simple", "simulated", "mixed", "predicted"]


@dataclass(frozen=True)
class TrainingMasks:
    """Which masks are to be repaired.

    Args:
        failures: "simple" damages true masks in every step, "simulated" by the full simulation; "predicted" are what
            networks made of cases that they had not seen; "mixed" are simulated and predicted ones.
        share: of predicted masks in "mixed".
        preset: of the simulation.
        size: side of the square in which masks are damaged.

    Raises:
        ValueError: an unknown kind, or a share outside (0, 1).

    Example:
        >>> TrainingMasks("simple", 0.5, "default", 64).damage().size
        64
    """

    failures: Failures
    share: float
    preset: str
    size: int

    def __post_init__(self) -> None:
        if self.failures not in get_args(Failures):
            message = f"failures must be one of {', '.join(get_args(Failures))}, but they are {self.failures!r}."
            raise ValueError(message)
        if not 0 < self.share < 1:
            message = f"share must be in (0, 1), but it is {self.share}; give failures simulated or predicted for all."
            raise ValueError(message)

    def simulator(self) -> FailureSimulator:
        """The full simulation."""
        return FailureSimulator.preset(self.preset)

    def damage(self) -> AtResolution:
        """What damages true masks where there are no others."""
        kind: Callable[..., Tensor] = SimpleFailures() if self.failures == "simple" else self.simulator()
        return AtResolution(kind, self.size)

    def sets(
        self, training: FittedCases, validation: FittedCases, setting: PhaseSetting, *, by: str
    ) -> tuple[Any, Any]:
        """What trains and what chooses, with the masks to be repaired where they are not made on the fly.

        What chooses are the coarse network's own masks if phase 1 left them, whatever trains.

        Args:
            training: fitted cases.
            validation: fitted cases that choose.
            setting: of the command.
            by: who asks, for complaints.

        Raises:
            ValueError: predicted masks are asked for, and there are none of these cases.
        """
        predictions = stored_predictions(setting)
        if self.failures in ("mixed", "predicted") and not covers(predictions, training):
            message = (
                f"{by} with failures {self.failures} needs masks of the training cases in "
                f"{setting.run_folder('coarse') / PREDICTIONS}; run train coarse once more, with --out_of_fold 4."
            )
            raise ValueError(message)
        chooses: Any = validation
        if predictions is not None and covers(predictions, validation):
            chooses = PredictedCases(validation, predictions)
        if self.failures == "simple":
            return training, chooses
        if predictions is None or self.failures == "simulated":
            return self._simulated(training, setting, share=1.0), chooses
        predicted = PredictedCases(training, predictions)
        if self.failures == "predicted":
            return predicted, chooses
        return Mixed(self._simulated(training, setting, share=1 - self.share), predicted, share=self.share), chooses

    def _simulated(self, training: FittedCases, setting: PhaseSetting, *, share: float) -> SimulatedFailures:
        """As many as the run will see, so that the share of a mixture is that of the run; each case has a lesion."""
        return SimulatedFailures(
            with_lesions(training),
            self.simulator(),
            samples=max(1, round(share * setting.epochs * len(training))),
            seed=setting.seed,
            size=self.size,
        )


def with_lesions(cases: FittedCases) -> FittedCases:
    """The cases without those that are labelled normal: an empty mask cannot be damaged.

    Example:
        >>> from ultrarefiner.data import Phantoms
        >>> len(with_lesions(FittedCases(Phantoms(2), 32)))
        2
    """
    labels = dict(zip(cases.names, cases.dataset.labels, strict=True))
    if NO_LESION not in labels.values():
        return cases
    return cases.subset([name for name, label in labels.items() if label != NO_LESION])
