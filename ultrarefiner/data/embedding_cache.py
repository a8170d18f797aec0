"""SAM's embeddings of images, computed once: a frozen encoder gives the same numbers in every epoch."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from ultrarefiner.checkpoints.files import Location, claim_file
from ultrarefiner.checkpoints.settings import first_difference
from ultrarefiner.data.embedding_writer import EmbeddingWriter
from ultrarefiner.data.fit import FittedCase
from ultrarefiner.data.progress import progress_bar
from ultrarefiner.sam import SAM, encode_images

_FORMAT = "ultrarefiner embeddings 1"
_ROWS = 256  # in one array


@runtime_checkable
class FittedCasesLike(Protocol):
    """What a cache is filled from: fitted cases by index, with the names of all."""

    @property
    def names(self) -> Sequence[str]:
        """One name a case; several samples of one case have its name."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> FittedCase: ...


class EmbeddingCache:
    """Embeddings on disk, in float16, that cannot be mistaken for others.

    The folder belongs to one encoder and one input policy: ``settings.json`` has the policy and a digest of the
    encoder's weights, and another SAM is refused. Each entry belongs to one image: a digest of its pixels is kept with
    its name, and another image of the same name is refused, too.

    Entries lie in memory-mapped arrays, of each call of `fill` its own (``part0-….npy``); a journal beside them gets a
    line with name, digest and checksum of an entry after the entry itself is on the disk. So a kill loses at most the
    batch at hand, and an entry that was damaged is found by its checksum and computed again by `fill`. A full disk is
    an ``OSError`` that says so; what was written before it stays.

    One entry of a ViT's takes 2 MB at 1024 pixels (256 x 64 x 64 numbers).

    Args:
        folder: where the files are.
        sam: whose image encoder and input policy make the embeddings; built and loaded as for training.

    Raises:
        ValueError: the folder belongs to another encoder, policy or raster, or is damaged.

    Example:
        >>> import tempfile
        >>> from ultrarefiner.data import FittedCases, Phantoms
        >>> from ultrarefiner.sam import build_sam
        >>> sam, cases = build_sam("tiny", image_size=64), FittedCases(Phantoms(3, size=(48, 64)), 64)
        >>> cache = EmbeddingCache(tempfile.mkdtemp(), sam)
        >>> cache.fill(cases, progress=False), cache.fill(cases, progress=False)
        (3, 0)
        >>> bool((cache.read(cases[1]) - sam(cases[1].image[None])[0]).abs().max() < 0.01)
        True
    """

    def __init__(self, folder: Location, sam: SAM) -> None:
        self.folder = Path(folder)
        self.sam = sam
        self._settings = {
            "format": _FORMAT,
            "input": json.loads(json.dumps(sam.input_policy.settings())),
            "encoder": weights_digest(sam.image_encoder),
        }
        self._claim()
        self._entries: dict[str, _Entry] = {}
        self._read_parts: dict[str, int] = {}
        self._arrays: dict[tuple[int, Path], np.ndarray] = {}
        self._checked: dict[str, int] = {}
        self._read_journals()

    def fill(
        self,
        dataset: FittedCasesLike,
        *,
        batch_size: int = 1,
        part: int = 0,
        parts: int = 1,
        progress: bool = True,
    ) -> int:
        """Compute what is missing or damaged, on the device where the encoder is.

        Every image is read once: what is there is compared with it, and what is missing is encoded on the way. Several
        processes or nodes share the work by ``part`` and ``parts``; each writes files of its own.

        Args:
            dataset: the cases; of several samples of one case the first counts.
            batch_size: images at once; of ViT-B at 1024 pixels one takes 3 GB, four take 10.
            part: which share of the images this call computes, from 0.
            parts: in how many shares.
            progress: show a progress bar on a terminal.

        Returns:
            How many embeddings were computed.

        Raises:
            ValueError: a number out of range, or another image under a name that is in the cache.
            OSError: an embedding cannot be written, above all because the disk is full.
        """
        if batch_size < 1 or not 0 <= part < parts:
            message = f"batch_size must be at least 1 and part 0 to parts - 1, got {batch_size}, {part} and {parts}."
            raise ValueError(message)
        self._refuse_other_weights()
        self._read_journals()
        first: dict[str, int] = {}
        for index, name in enumerate(dataset.names):
            first.setdefault(name, index)
        mine = list(first.values())[part::parts]
        computed, missing = 0, list[FittedCase]()
        with (
            progress_bar(len(mine), "embed", "image", shown=progress) as bar,
            EmbeddingWriter(self.folder, part, rows=min(_ROWS, len(mine))) as writer,
        ):
            for done, index in enumerate(mine, start=1):
                case = dataset[index]
                if self._holds(case):
                    bar.update(1)
                else:
                    missing.append(case)
                if missing and (len(missing) == batch_size or done == len(mine)):
                    writer.write([(case.name, image_digest(case.image)) for case in missing], self._encoded(missing))
                    bar.update(len(missing))
                    computed, missing = computed + len(missing), []
        self._read_journals()
        return computed

    def read(self, case: FittedCase) -> Float[Tensor, "d low_h low_w"]:
        """The embedding of a case, in float32.

        Raises:
            KeyError: there is none.
            ValueError: it is of another image of this name, or damaged.
        """
        if case.name not in self._entries:
            self._read_journals()
        entry = self._entries.get(case.name)
        if entry is None:
            message = f"{self.folder} has no embedding of {case.name!r}; fill the cache with all cases first."
            raise KeyError(message)
        # SHA-256 and the entry's checksum the first time; then a cheap checksum tells the same image again.
        image = zlib.crc32(case.image.numpy().tobytes())
        if self._checked.get(case.name) != image:
            _refuse_other_image(entry, case, self.folder)
        values = self._values(entry)
        if values is None or (case.name not in self._checked and zlib.crc32(values.tobytes()) != entry.checksum):
            message = f"the embedding of {case.name!r} in {self.folder} is damaged; fill the cache again."
            raise ValueError(message)
        self._checked[case.name] = image
        return torch.from_numpy(np.asarray(values, dtype=np.float32))

    def settings(self) -> dict[str, Any]:
        """What a checkpoint remembers."""
        return {"input": self._settings["input"], "encoder": self._settings["encoder"]}

    def refuse_other(self, sam: Any, policy: Any) -> None:
        """Raise unless a SAM and its input policy are those that the entries were made with.

        Args:
            sam: about to be trained on these embeddings.
            policy: its input policy.

        Raises:
            ValueError: they are not.
        """
        now = {
            "input": json.loads(json.dumps(policy.settings())),
            "encoder": weights_digest(sam.image_encoder),
        }
        different = first_difference(self.settings(), now)
        if different is not None:
            name, before, after, why = _shortened(*different)
            message = (
                f"the embeddings in {self.folder} were made with {name} {before!r}, but the SAM that trains has "
                f"{after!r}; fill a cache with that SAM, in a folder of its own{why}."
            )
            raise ValueError(message)

    def __len__(self) -> int:
        return len(self._entries)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_arrays": {}}

    @torch.no_grad()
    def _encoded(self, cases: Sequence[FittedCase]) -> np.ndarray:
        modes = [(module, module.training) for module in self.sam.modules()]
        device = next(self.sam.image_encoder.parameters()).device
        images = torch.stack([case.image for case in cases]).to(device)
        try:
            self.sam.eval()
            embeddings = encode_images(self.sam, self.sam.input_policy(images)).half()
        finally:
            for module, training in modes:
                module.training = training
        if not embeddings.isfinite().all():
            message = (
                f"the embeddings of {cases[0].name!r} and those beside it are not finite in float16; check the images "
                "and the encoder's weights."
            )
            raise ValueError(message)
        values: np.ndarray = embeddings.cpu().numpy()
        return values

    def _holds(self, case: FittedCase) -> bool:
        """Whether a whole entry of this very image is there."""
        entry = self._entries.get(case.name)
        if entry is None:
            return False
        _refuse_other_image(entry, case, self.folder)
        values = self._values(entry)
        return values is not None and zlib.crc32(values.tobytes()) == entry.checksum

    def _values(self, entry: _Entry) -> np.ndarray | None:
        """The numbers of an entry; None where its array is gone, cut off or shorter than it says."""
        key = (os.getpid(), entry.array)
        try:
            if key not in self._arrays:
                self._arrays[key] = np.load(entry.array, mmap_mode="r")
            values: np.ndarray = self._arrays[key][entry.row]
        except (OSError, ValueError, EOFError, IndexError):
            return None
        return values

    def _refuse_other_weights(self) -> None:
        if weights_digest(self.sam.image_encoder) != self._settings["encoder"]:
            message = (
                f"sam has other weights than when the cache in {self.folder} was opened; load the weights first, then "
                "open the cache."
            )
            raise ValueError(message)

    def _claim(self) -> None:
        path = self.folder / "settings.json"
        if not path.exists():  # a cache that is there is opened on a full disk, too
            claim_file(path, (json.dumps(self._settings, indent=1) + "\n").encode())
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            message = f"{path} is damaged ({error}); give another folder, or delete this one and fill it again."
            raise ValueError(message) from error
        different = first_difference(found, self._settings)
        if different is not None:
            name, before, now, why = _shortened(*different)
            message = (
                f"{self.folder} holds embeddings that were made with {name} {before!r}, but this SAM has {now!r}; load "
                f"the weights that it was filled with, or give another folder{why}."
            )
            raise ValueError(message)

    def _read_journals(self) -> None:
        """What other processes have written since, too."""
        for journal in sorted(self.folder.glob("part*.jsonl")):
            with journal.open(encoding="utf-8") as stream:
                stream.seek(self._read_parts.get(journal.name, 0))
                while (line := stream.readline()).endswith("\n"):  # the last line may be cut off
                    self._read_parts[journal.name] = stream.tell()
                    try:
                        told = json.loads(line)
                        entry = _Entry(
                            self.folder / told["array"], told["row"], told["image"], told["checksum"], told["stamp"]
                        )
                        name = told["name"]
                    except (ValueError, KeyError, TypeError):  # the end of a fill that was killed
                        continue
                    known = self._entries.get(name)
                    if known is None or known.stamp <= entry.stamp:  # the later one heals the earlier
                        self._entries[name] = entry
                        self._checked.pop(name, None)


def image_digest(image: Float[Tensor, "c h w"]) -> str:
    """What tells an image from any other: SHA-256 of its shape and its pixels in float32.

    Example:
        >>> image_digest(torch.zeros(1, 2, 2)) == image_digest(torch.zeros(1, 1, 4))
        False
    """
    content = image.detach().cpu().float().contiguous().numpy().tobytes()
    return hashlib.sha256(repr(tuple(image.shape)).encode() + content).hexdigest()


def weights_digest(module: nn.Module) -> str:
    """What tells a module's weights from any others: SHA-256 of every name, shape, dtype and value.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> before = weights_digest(layer)
        >>> _ = nn.init.zeros_(layer.weight)
        >>> weights_digest(layer) == before
        False
    """
    found = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        found.update(repr((name, tuple(tensor.shape), str(tensor.dtype))).encode())
        found.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else b"")
        found.update(repr(tensor.item()).encode() if tensor.ndim == 0 else b"")
    return found.hexdigest()


class _Entry:
    """Where an embedding lies, of which image it is, its checksum, and when it was written."""

    def __init__(self, array: Path, row: int, image: str, checksum: int, stamp: int) -> None:
        self.array, self.row, self.image, self.checksum, self.stamp = array, row, image, checksum, stamp


def _shortened(name: str, before: Any, now: Any) -> tuple[str, Any, Any, str]:
    """A difference with the beginnings of digests alone, and how it may have come about."""
    if name != "encoder":
        return name, before, now, ""
    why = " (the encoder is known by a digest of its weights; random weights of another seed are other weights)"
    return name, str(before)[:12], str(now)[:12], why


def _refuse_other_image(entry: _Entry, case: FittedCase, folder: Path) -> None:
    if image_digest(case.image) != entry.image:
        message = (
            f"{folder} has an embedding of {case.name!r}, but of another image of that name (or fitted otherwise); "
            "give each data set and each fit a folder of its own."
        )
        raise ValueError(message)
