"""One seed from several numbers, the same in every process and on every machine."""

from __future__ import annotations

import hashlib


def stable_seed(*parts: int | str) -> int:
    """A seed of 63 bits for a generator: parts that differ in anything give unrelated seeds.

    Python's own ``hash`` of a text changes from process to process; this does not.

    Example:
        >>> stable_seed(0, 1) == stable_seed(0, 1), stable_seed(0, 1) == stable_seed(1, 0)
        (True, False)
    """
    text = "\0".join(f"{type(part).__name__}:{part}" for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1
