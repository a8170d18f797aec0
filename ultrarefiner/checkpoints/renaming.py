"""From the names of published files to ours: a table of patterns, and what a pattern cannot say."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ultrarefiner.ops.position_embedding import position_grid

_POSITIONS = "encoder.position_embedding"
_SPLIT = re.compile(r"(?P<block>.+\.attention)\.(?P<part>query|key|value)\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class Renamed:
    """A state dict in our names.

    Attributes:
        state: tensors by our names.
        left_out: what of the file no network of ours has a place for, and why.
    """

    state: dict[str, Tensor]
    left_out: dict[str, str]


Table = Mapping[str, Callable[[re.Match[str]], str] | str]


def rename(state: Mapping[str, Tensor], table: Table, surplus: Mapping[str, str], *, what: str) -> Renamed:
    """Rename tensors by patterns; query, key and value become one tensor, rows of positions a grid.

    Args:
        state: tensors by their published names.
        table: regular expressions of whole names, and what replaces them.
        surplus: regular expressions of names that are not needed, and why.
        what: such a file, for the complaint.

    Raises:
        ValueError: a name is in neither, two become one, or a query, key or value lacks the others.
    """
    renamed: dict[str, Tensor] = {}
    left_out: dict[str, str] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        reason = next((reason for pattern, reason in surplus.items() if re.fullmatch(pattern, name)), None)
        if reason is not None:
            left_out[name] = reason
            continue
        new = next(
            (match.expand(to) if isinstance(to, str) else to(match) for match, to in _matches(name, table)), None
        )
        if new is None or new in renamed:
            unknown.append(name)
            continue
        if new == _POSITIONS:
            renamed[new] = position_grid(tensor)
            if tensor.shape[1] > renamed[new][0, 0].numel():
                left_out[f"{name}[:, 0]"] = "the position of the class token, which segmentation does without"
            continue
        renamed[new] = tensor
    if unknown:
        message = (
            f"{len(unknown)} of {len(state)} tensors have no place in a {what} ({', '.join(sorted(unknown)[:3])}"
            f"{', …' if len(unknown) > 3 else ''}); name the layout that the file has."
        )
        raise ValueError(message)
    return Renamed(_joined(renamed), left_out)


def _matches(name: str, table: Table) -> list[tuple[re.Match[str], Callable[[re.Match[str]], str] | str]]:
    found = ((re.fullmatch(pattern, name), to) for pattern, to in table.items())
    return [(match, to) for match, to in found if match]


def _joined(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value, which one matrix multiplication makes in our transformer."""
    parts: dict[tuple[str, str], dict[str, Tensor]] = {}
    whole: dict[str, Tensor] = {}
    for name, tensor in state.items():
        match = _SPLIT.fullmatch(name)
        if match is None:
            whole[name] = tensor
        else:
            parts.setdefault((match["block"], match["kind"]), {})[match["part"]] = tensor
    for (block, kind), found in parts.items():
        if len(found) < 3:
            message = (
                f"{block} must have a query, a key and a value, but the file has only {' and '.join(sorted(found))} "
                f"({kind}); it is not complete: download or save it again."
            )
            raise ValueError(message)
        whole[f"{block}.query_key_value.{kind}"] = torch.cat([found[part] for part in ("query", "key", "value")])
    return whole
