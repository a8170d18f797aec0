"""Fitted cases with stored embeddings of their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.utils.data import Dataset

from ultrarefiner.data.embedding_cache import EmbeddingCache
from ultrarefiner.data.fit import FittedCase


class CachedEmbeddings(Dataset[FittedCase]):
    """Fitted cases with their embeddings from a cache, for recipes that leave the image encoder as it is.

    Args:
        dataset: the cases, with coarse masks or without.
        cache: filled with them.

    Attributes:
        names: the names of the cases, in order.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> from ultrarefiner.sam import build_sam
        >>> cases = FittedCases(Phantoms(2, size=(48, 64)), 64)
        >>> cache = EmbeddingCache(tempfile.mkdtemp(), build_sam("tiny", image_size=64))
        >>> _ = cache.fill(cases, progress=False)
        >>> CachedEmbeddings(cases, cache)[0].embedding.shape[1:]
        torch.Size([4, 4])
    """

    def __init__(self, dataset: Any, cache: EmbeddingCache) -> None:
        self.dataset = dataset
        self.cache = cache

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("dataset", "cache"):
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers."""
        own = getattr(self.dataset, "settings", None)
        return {"embeddings": self.cache.settings(), "of": None if own is None else own()}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FittedCase:
        return self._with_embedding(self.dataset[index])

    def __getitems__(self, indices: Sequence[int]) -> list[FittedCase]:
        """Several samples at once, as a loader asks for them."""
        together = getattr(self.dataset, "__getitems__", None)
        cases = [self.dataset[index] for index in indices] if together is None else together(indices)
        return [self._with_embedding(case) for case in cases]

    def _with_embedding(self, case: FittedCase) -> FittedCase:
        return replace(case, embedding=self.cache.read(case))
