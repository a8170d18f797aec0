"""KeptParts: never more than it may, and the right ones."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.systems.kept_parts import KeptParts, bytes_of


@settings(deadline=None, max_examples=40)
@given(
    said=st.lists(st.tuples(st.sampled_from(["view", "answer"]), st.integers(0, 9), st.integers(0, 800)), max_size=40),
    limit=st.integers(0, 9000),
    every=st.integers(1, 5),
)
def test_the_limit_holds_and_what_is_found_is_what_was_kept(said, limit, every) -> None:
    kept, last = KeptParts(), {}
    for count, (kind, name, numbers) in enumerate(said):
        if count % every == 0:
            kept.turn(limit=limit)
        kept.keep((kind, name), torch.full((numbers,), float(count)))
        last[kind, name] = count
        assert kept.bytes <= limit
        for key, made in last.items():
            found = kept.drop(key)
            assert found is None or bool((found == made).all())
            if found is not None:
                kept.keep(key, found)
    for key in last:
        kept.drop(key)
    assert kept.bytes == 0
    assert len(kept) == 0


def test_those_of_earlier_turns_go_first_and_then_embeddings() -> None:
    kept, part = KeptParts(), torch.zeros(1000)
    kept.turn(limit=14_000)
    for name in "abc":
        kept.keep(("answer", name), part.clone())
    assert list(kept.of_kind("answer")) == [("a",), ("b",), ("c",)]
    kept.keep(("answer", "d"), part.clone())
    assert list(kept.of_kind("answer")) == [("a",), ("b",), ("c",)], "nothing of this turn goes for a fourth"
    kept.turn(limit=14_000)
    kept.use(("answer", "a"))
    kept.keep(("view", "d"), part.clone())
    assert list(kept.of_kind("answer")) == [("c",), ("a",)], "b was used longest ago"
    kept.touch([("answer", "c"), ("answer", "gone")])
    kept.keep(("answer", "e"), part.clone())
    assert kept.of_kind("view") == {}
    assert list(kept.of_kind("answer")) == [("a",), ("c",), ("e",)]
    kept.turn(limit=5000)
    assert list(kept.of_kind("answer")) == [("e",)]
    assert kept.use(("answer", "a")) is None


def test_tensors_are_counted_once_and_a_view_as_all_that_it_keeps() -> None:
    tensor = torch.zeros(8, 4)
    inner = SimpleNamespace(hidden=torch.zeros(3), name="x")
    assert bytes_of(SimpleNamespace(first=tensor, again=tensor[0], memory=inner, nothing=None)) == 8 * 4 * 4 + 12
    assert bytes_of(tensor[0]) == 128
