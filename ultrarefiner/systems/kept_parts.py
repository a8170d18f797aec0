"""Parts of a long conversation, kept as far as memory allows; whoever asks must be able to make them anew."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

Key = tuple[Hashable, ...]
"""The kind of a part, then what it is known by."""

_ENTRY = 512  # bytes, about, that a part takes besides its tensors
_CLICK = 16  # and a click in its name


@dataclass
class _Part:
    value: Any
    bytes: int
    turn: int


class KeptParts:
    """Parts of any kind by name, all together within so many bytes; those used longest ago go first.

    A *turn* is one answer. What was used in this turn makes no room for anything else, or the first of a hundred
    windows would be forgotten at the last, and all be made anew at every click. The one exception are embeddings
    ("view"): they are the largest, and a window whose answer is known needs none.

    Example:
        >>> import torch
        >>> kept = KeptParts()
        >>> for name in ("a", "b", "a", "c"):
        ...     kept.turn(limit=3000)
        ...     if kept.use(("view", name)) is None:
        ...         _ = kept.keep(("view", name), torch.zeros(200))
        >>> list(kept.of_kind("view")), kept.bytes <= 3000
        ([('a',), ('c',)], True)
    """

    def __init__(self) -> None:
        self.bytes = 0
        self.limit = 0
        self._now = 0
        self._parts: OrderedDict[Key, _Part] = OrderedDict()

    def __len__(self) -> int:
        return len(self._parts)

    def turn(self, *, limit: int) -> None:
        """Begin an answer, with at most so many bytes from here on."""
        self._now += 1
        self.limit = limit
        self._make_room(0, for_view=True)

    def use(self, key: Key) -> Any:
        """A part, which now was used last; None where it is not kept."""
        part = self._parts.get(key)
        if part is None:
            return None
        part.turn = self._now
        self._parts.move_to_end(key)
        return part.value

    def touch(self, keys: Iterable[Key]) -> None:
        """Use parts, those that are kept, without looking at them."""
        for key in keys:
            self.use(key)

    def keep(self, key: Key, value: Any) -> Any:
        """Keep a part if room can be made for it; whatever was kept under its name is dropped.

        Args:
            key: its name.
            value: a tensor, or an object whose attributes are tensors, or objects with such attributes.

        Returns:
            The value.
        """
        self.drop(key)
        taken = bytes_of(value) + _ENTRY + _CLICK * sum(len(one) for one in key if isinstance(one, tuple))
        if self._make_room(taken, for_view=key[0] == "view"):
            self._parts[key] = _Part(value, taken, self._now)
            self.bytes += taken
        return value

    def drop(self, key: Key) -> Any:
        """Forget a part, and return it; None where it is not kept."""
        part = self._parts.pop(key, None)
        if part is None:
            return None
        self.bytes -= part.bytes
        return part.value

    def of_kind(self, kind: str) -> dict[Any, Any]:
        """The parts of a kind, by the rest of their names, those used longest ago first."""
        return {key[1:]: part.value for key, part in self._parts.items() if key[0] == kind}

    def _make_room(self, wanted: int, *, for_view: bool) -> bool:
        if wanted > self.limit:
            return False
        while self.bytes + wanted > self.limit:
            oldest = next(iter(self._parts))
            if self._parts[oldest].turn == self._now:
                break
            self.drop(oldest)
        views = [] if for_view else [key for key in self._parts if key[0] == "view"]
        for key in views if self.bytes + wanted > self.limit else []:
            self.drop(key)
            if self.bytes + wanted <= self.limit:
                break
        return self.bytes + wanted <= self.limit


def bytes_of(value: Any) -> int:
    """What the tensors of a value take, each once.

    Example:
        >>> import torch
        >>> bytes_of(torch.zeros(3)), bytes_of(None)
        (12, 0)
    """
    found: dict[int, int] = {}
    _collect(value, found)
    return sum(found.values())


def _collect(value: Any, found: dict[int, int]) -> None:
    if isinstance(value, Tensor):
        # A view keeps all alive that it is a view of.
        storage = value.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
    elif hasattr(value, "__dict__"):
        for one in vars(value).values():
            _collect(one, found)
