from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.data.cases import Case, CaseDataset, CaseFiles, Cases, join, load_case, natural_key
from ultrarefiner.data.phantoms import Phantoms

Draw = Callable[..., Path]


def _files(name: str, group: str = "g", label: str = "benign") -> CaseFiles:
    return CaseFiles(name, Path(f"{name}.png"), (Path(f"{name}_mask.png"),), label, group)


def test_several_masks_are_united(draw: Draw) -> None:
    image = draw("a.png", 102)
    masks = draw("a_mask.png", box=(0, 2, 0, 3)), draw("a_mask_1.png", box=(1, 4, 2, 5))
    case = load_case(CaseFiles("a", image, masks, "benign", "p"))
    expected = torch.zeros(1, 6, 8)
    expected[:, 0:2, 0:3] = 1
    expected[:, 1:4, 2:5] = 1
    assert torch.equal(case.mask, expected)
    assert torch.allclose(case.image, torch.full((1, 6, 8), 0.4))
    assert (case.name, case.label, case.group) == ("a", "benign", "p")


def test_no_mask_file_is_an_empty_mask(draw: Draw) -> None:
    case = load_case(CaseFiles("a", draw("a.png"), (), "normal", "p"))
    assert case.mask.shape == case.image.shape
    assert case.mask.sum() == 0


def test_a_mask_of_another_size_is_named(draw: Draw) -> None:
    files = CaseFiles("a", draw("a.png"), (draw("a_mask.png", size=(6, 9)),), "benign", "p")
    with pytest.raises(
        ValueError, match=r"a_mask\.png has the size \(height, width\) \(6, 9\), but its image .*a\.png has \(6, 8\)"
    ):
        load_case(files)


@settings(deadline=None, max_examples=15)
@given(order=st.permutations([f"case ({number})" for number in (1, 2, 10, 11, 100)]))
def test_the_order_of_files_does_not_matter(order: list[str]) -> None:
    names = CaseDataset([_files(name) for name in order]).names
    assert names == ("case (1)", "case (2)", "case (10)", "case (11)", "case (100)")


@given(names=st.sets(st.text("a09-", max_size=6), min_size=2))
@settings(deadline=None, max_examples=30)
def test_the_natural_order_tells_all_names_apart(names: set[str]) -> None:
    assert len({natural_key(name) for name in names}) == len(names)


def test_a_data_set_serves_names_labels_groups_and_cases(draw: Draw) -> None:
    files = [
        CaseFiles(name, draw(f"{name}.png"), (draw(f"{name}_m.png"),), label, f"patient {name}")
        for name, label in (("b2", "malignant"), ("b1", "benign"))
    ]
    dataset = CaseDataset(files)
    assert isinstance(dataset, Cases)
    assert len(dataset) == 2
    assert dataset.names == ("b1", "b2")
    assert dataset.labels == ("benign", "malignant")
    assert dataset.groups == ("patient b1", "patient b2")
    assert isinstance(dataset[1], Case)
    assert dataset[1].name == "b2"
    assert [case.name for case in dataset] == ["b1", "b2"]  # type: ignore[attr-defined] # by index, until it ends


def test_a_subset_keeps_order_and_mark() -> None:
    dataset = CaseDataset([_files(name) for name in "abcd"], unseen=True)
    chosen = dataset.subset(["d", "a"])
    assert chosen.names == ("a", "d")
    assert chosen.unseen
    assert not CaseDataset([_files("a")]).unseen


def test_joined_sets_do_not_collide() -> None:
    one, two = CaseDataset([_files("1", "g1")]), CaseDataset([_files("1", "g1")], unseen=True)
    both = join({"bus": one, "uc": two})
    assert both.names == ("bus/1", "uc/1")
    assert both.groups == ("bus/g1", "uc/g1")
    assert both.unseen
    assert not join({"bus": one}).unseen


def test_wrong_data_sets_get_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"at least one case, none was given"):
        CaseDataset([])
    with pytest.raises(ValueError, match=r"must be unique, but 2 cases are called 'a'"):
        CaseDataset([_files("a"), _files("a"), _files("b")])
    for dataset in (CaseDataset([_files("a"), _files("b")]), Phantoms(2)):
        with pytest.raises(ValueError, match=r"2 of the 3 wanted names are not in the data set, the first is 'x'"):
            dataset.subset([dataset.names[0], "y", "x"])
        with pytest.raises(ValueError, match=r"at least"):
            dataset.subset([])
