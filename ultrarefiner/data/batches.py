"""From cases to batches: fitted once, shuffled by a seed, stacked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from ultrarefiner.data.cases import Cases
from ultrarefiner.data.fit import Fit, FittedCase, as_fit
from ultrarefiner.data.progress import progress_bar
from ultrarefiner.data.seeds import stable_seed


class Batch(NamedTuple):
    """Fitted cases, stacked; a named tuple, which loaders and Lightning Fabric move to a device as it is.

    Attributes:
        images: in [0, 1], all grey (one channel) or all RGB (three); `PADDING_GREY` right of and below their content.
        masks: 0 or 1, one mask an image.
        names: the names of the cases.
        content_sizes: (height, width) of each image's content in the square.
        original_sizes: (height, width) of each image on disk.
        other_masks: what second annotators drew, 0 or 1; None where there are none.
        coarse_probability: a coarse network's soft masks, predicted or simulated; None where there are none.
        embeddings: SAM's embeddings of the images, where they were computed before; None where they were not.
    """

    images: Float[Tensor, "b c s s"]
    masks: Float[Tensor, "b 1 s s"]
    names: tuple[str, ...]
    content_sizes: Int[Tensor, "b 2"]
    original_sizes: Int[Tensor, "b 2"]
    other_masks: Float[Tensor, "b 1 s s"] | None = None
    coarse_probability: Float[Tensor, "b 1 s s"] | None = None
    embeddings: Float[Tensor, "b d low_h low_w"] | None = None


class FittedCases(Dataset[FittedCase]):
    """The cases of a data set, fitted to a square.

    Args:
        dataset: the cases.
        size: the side of the square, in pixels, for `FitToSquare`; or a fit such as ``StretchToSquare(224)``.
        keep_in_memory: keep what was read once: 5 bytes a pixel of the square (the image in float32, the mask in one
            byte; a second annotation takes a sixth), that is 0.33 MB a case at 256 and 5.2 MB at 1024; 13 bytes in
            colour. Each worker of a data loader keeps its own, but for what `fill` has read before it started.

    Attributes:
        names: the cases' names, in order.

    Example:
        >>> from ultrarefiner.data.phantoms import Phantoms
        >>> fitted = FittedCases(Phantoms(2, size=(48, 64)), 32)
        >>> fitted[0].image.shape, fitted[0].content_size
        (torch.Size([1, 32, 32]), (24, 32))
    """

    def __init__(self, dataset: Cases, size: int | Fit, *, keep_in_memory: bool = True) -> None:
        self.dataset = dataset
        self.fit = as_fit(size)
        self.names = dataset.names
        self._kept: dict[str, _Kept] | None = {} if keep_in_memory else None

    @property
    def size(self) -> int:
        """The side of the square, in pixels."""
        return self.fit.size

    @property
    def unseen(self) -> bool:
        """Whether the cases are kept for testing alone, and nothing should be trained on them."""
        return self.dataset.unseen

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FittedCase:
        if not 0 <= index < len(self):
            message = f"index must be in 0 to {len(self) - 1}, got {index}; the data set has {len(self)} cases"
            raise IndexError(message)
        if self._kept is None:
            return self.fit(self.dataset[index])
        name = self.names[index]
        if name not in self._kept:
            with torch.inference_mode(False):  # what an evaluation reads first may be trained on later
                self._kept[name] = _Kept.of(self.fit(self.dataset[index]))
        return self._kept[name].case()

    def subset(self, names: Iterable[str]) -> FittedCases:
        """The cases of these names, in this data set's own order; what was read is read for both.

        Raises:
            ValueError: a name is not in the data set, or no name was given.
        """
        part = FittedCases(self.dataset.subset(names), self.fit)
        part._kept = self._kept
        return part

    def fill(self, *, progress: bool = True) -> FittedCases:
        """Read every case into memory now, in the data set's own order.

        A shuffled first epoch would read a compressed volume again for almost every slice; in order each is read
        once. Workers that start afterwards share what was read (where processes are forked, as on Linux).

        Args:
            progress: whether to show a progress bar, if tqdm is installed.

        Returns:
            This data set.

        Raises:
            ValueError: nothing is kept in memory.

        Example:
            >>> from ultrarefiner.data.phantoms import Phantoms
            >>> len(FittedCases(Phantoms(2, size=(48, 64)), 32).fill(progress=False))
            2
        """
        if self._kept is None:
            message = "keep_in_memory must be True to fill the memory, but it is False; leave it out, or do not fill"
            raise ValueError(message)
        with progress_bar(len(self), "read", "case", shown=progress) as bar:
            for index in range(len(self)):
                self[index]
                bar.update(1)
        return self


class _Kept(NamedTuple):
    """A `FittedCase` whose masks take one byte a pixel."""

    name: str
    image: Tensor
    mask: Tensor
    other_mask: Tensor | None
    content_size: tuple[int, int]
    original_size: tuple[int, int]

    @classmethod
    def of(cls, case: FittedCase) -> _Kept:
        other = None if case.other_mask is None else case.other_mask.bool()
        return cls(case.name, case.image, case.mask.bool(), other, case.content_size, case.original_size)

    def case(self) -> FittedCase:
        dtype = self.image.dtype
        return FittedCase(
            name=self.name,
            image=self.image,
            mask=self.mask.to(dtype),
            content_size=self.content_size,
            original_size=self.original_size,
            other_mask=None if self.other_mask is None else self.other_mask.to(dtype),
        )


def collate(cases: Sequence[FittedCase]) -> Batch:
    """Stack fitted cases, for the ``collate_fn`` of a data loader.

    Args:
        cases: of one square size.

    Returns:
        The cases' tensors on a leading dimension, in order.

    Raises:
        ValueError: there is no case, their squares differ in size, some are grey and some in colour, or some but not
            all have a second annotation, a coarse mask or an embedding.

    Example:
        >>> from ultrarefiner.data.phantoms import Phantoms
        >>> batch = collate([FittedCases(Phantoms(2, size=(48, 64)), 32)[i] for i in range(2)])
        >>> batch.images.shape, batch.original_sizes.tolist()
        (torch.Size([2, 1, 32, 32]), [[48, 64], [48, 64]])
    """
    sizes = {case.image.shape[-1] for case in cases}
    if len(sizes) != 1:
        message = (
            f"a batch needs cases fitted to one square, got the sizes {sorted(sizes)}; fit all with the same "
            "FitToSquare"
        )
        raise ValueError(message)
    channels = {case.image.shape[0]: case.name for case in cases}
    if len(channels) != 1 or not channels.keys() <= {1, 3}:
        shown = " and ".join(f"{count} ({name!r})" for count, name in sorted(channels.items()))
        message = (
            f"a batch needs images that all have 1 channel (grey) or all have 3 (RGB), got {shown}; open all data sets "
            "with colour=False, or all with colour=True"
        )
        raise ValueError(message)
    return Batch(
        images=torch.stack([case.image for case in cases]),
        masks=torch.stack([case.mask for case in cases]),
        names=tuple(case.name for case in cases),
        content_sizes=torch.tensor([case.content_size for case in cases]),
        original_sizes=torch.tensor([case.original_size for case in cases]),
        other_masks=_of_all(cases, "other_mask", "a second annotation"),
        coarse_probability=_of_all(cases, "coarse_probability", "a coarse mask"),
        embeddings=_of_all(cases, "embedding", "an embedding"),
    )


def _of_all(cases: Sequence[FittedCase], field: str, what: str) -> Tensor | None:
    """What all cases have, stacked, or None where none has it."""
    there = [value for case in cases if (value := getattr(case, field)) is not None]
    if 0 < len(there) < len(cases):
        alone = next(case.name for case in cases if getattr(case, field) is None)
        message = (
            f"a batch needs {what} ({field}) of all its cases or of none, got {len(there)} of {len(cases)}; "
            f"{alone!r} has none: leave out the cases without one, or leave it out of all"
        )
        raise ValueError(message)
    return torch.stack(there) if there else None


class SeededSampler(Sampler[int]):
    """Shuffles by (seed, epoch) alone; a resumed epoch goes on exactly where it was broken off.

    There is no ``set_epoch`` on purpose: Lightning Fabric calls a method of that name with the number of
    passes since the program started, so a resumed run would see the first epoch's order again.

    Args:
        length: how many cases there are.
        seed: two samplers of the same length, seed and epoch give the same order.

    Raises:
        ValueError: the length is less than 1.

    Example:
        >>> sampler = SeededSampler(5, seed=0)
        >>> sampler.begin(3)
        >>> whole = list(sampler)
        >>> sampler.begin(3, skip=2)
        >>> len(sampler), list(sampler) == whole[2:]
        (3, True)
    """

    def __init__(self, length: int, *, seed: int) -> None:
        if length < 1:
            message = f"length must be at least 1, got {length}; the data set is empty"
            raise ValueError(message)
        self.length = length
        self.seed = seed
        self._epoch = 0
        self._skip = 0

    def begin(self, epoch: int, *, skip: int = 0) -> None:
        """Choose the epoch whose order comes next, and how many of its cases were already seen.

        Raises:
            ValueError: the epoch is negative, or more cases are skipped than there are.
        """
        if epoch < 0 or not 0 <= skip <= self.length:
            message = (
                f"epoch must not be negative and skip must be 0 to {self.length}, got epoch {epoch} and skip "
                f"{skip}; "
                "skip counts cases, not batches"
            )
            raise ValueError(message)
        self._epoch, self._skip = epoch, skip

    def __len__(self) -> int:
        return self.length - self._skip

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self._epoch))
        yield from torch.randperm(self.length, generator=generator).tolist()[self._skip :]
