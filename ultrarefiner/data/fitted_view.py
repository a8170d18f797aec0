"""What data sets over fitted cases have in common."""

from __future__ import annotations

from torch.utils.data import Dataset

from ultrarefiner.data.batches import FittedCases
from ultrarefiner.data.fit import FittedCase


class FittedView(Dataset[FittedCase]):
    """Fitted cases with something added, each perhaps several times.

    Args:
        dataset: the cases.
    """

    def __init__(self, dataset: FittedCases) -> None:
        self.dataset = dataset

    @property
    def size(self) -> int:
        """The side of the square, in pixels."""
        return self.dataset.size

    @property
    def unseen(self) -> bool:
        """Whether the cases are kept for testing alone."""
        return self.dataset.unseen

    def __len__(self) -> int:
        raise NotImplementedError

    def check_index(self, index: int) -> None:
        """Raise if there is no such sample.

        Raises:
            IndexError: there is none.
        """
        if not 0 <= index < len(self):
            message = f"index must be in 0 to {len(self) - 1}, got {index}; there are {len(self)} samples"
            raise IndexError(message)
