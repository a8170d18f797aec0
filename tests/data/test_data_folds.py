from __future__ import annotations

import pickle
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ultrarefiner.data.cases import CaseDataset, CaseFiles
from ultrarefiner.data.folds import Folds, group_folds
from ultrarefiner.data.phantoms import Phantoms


def _dataset(groups: list[int], labels: list[str] | None = None, prefix: str = "case") -> CaseDataset:
    labels = labels or ["benign"] * len(groups)
    return CaseDataset(
        CaseFiles(f"{prefix} ({index})", Path("x.png"), (), label, f"group {group}")
        for index, (group, label) in enumerate(zip(groups, labels, strict=True))
    )


@settings(deadline=None, max_examples=40)
@given(
    cases=st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=2, max_size=40),
    folds=st.integers(2, 5),
    seed=st.integers(0, 2**31),
)
def test_a_group_is_never_split_and_no_case_is_lost(cases: list[tuple[int, str]], folds: int, seed: int) -> None:
    assume(len({group for group, _ in cases}) >= folds)
    dataset = _dataset([group for group, _ in cases], [label for _, label in cases])
    drawn = group_folds(dataset, folds=folds, seed=seed)
    drawn.check(dataset)
    pairs = list(zip(dataset.names, dataset.groups, strict=True))
    fold_of = {group: drawn.assignment[name] for name, group in pairs}
    assert all(drawn.assignment[name] == fold_of[group] for name, group in pairs)
    parts = [drawn.validation(fold) for fold in range(folds)]
    assert sorted(name for part in parts for name in part) == sorted(dataset.names)
    for fold, part in enumerate(parts):
        assert set(part) | set(drawn.training(fold)) == set(dataset.names)
        assert not set(part) & set(drawn.training(fold))
        assert part
        assert drawn.training(fold)


@dataclass(frozen=True)
class _Unordered:
    names: tuple[str, ...]
    labels: tuple[str, ...]
    groups: tuple[str, ...]
    unseen: bool = False

    def subset(self, names: object) -> _Unordered:
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> object:
        raise NotImplementedError


def test_the_order_of_cases_does_not_matter() -> None:
    names = tuple(f"c{number}" for number in range(30))
    groups = tuple(f"g{number // 3}" for number in range(30))
    labels = tuple("ab"[number % 2] for number in range(30))
    forward, backward = _Unordered(names, labels, groups), _Unordered(names[::-1], labels[::-1], groups[::-1])
    assert group_folds(forward, folds=4, seed=3) == group_folds(backward, folds=4, seed=3)  # type: ignore[arg-type] # a stand-in


def test_the_same_seed_draws_the_same_and_another_does_not() -> None:
    dataset = _dataset([number // 2 for number in range(60)])
    assert group_folds(dataset, seed=1) == group_folds(dataset, seed=1)
    assert group_folds(dataset, seed=1) != replace(group_folds(dataset, seed=2), seed=1)


def test_folds_are_alike_in_size_and_labels() -> None:
    labels = ["malignant" if number % 3 == 0 else "benign" for number in range(150)]
    dataset = _dataset([number // 2 for number in range(150)], labels)
    label_of = dict(zip(dataset.names, dataset.labels, strict=True))
    drawn = group_folds(dataset, folds=5, seed=0)
    for fold in range(5):
        part = drawn.validation(fold)
        assert 26 <= len(part) <= 34
        assert 7 <= Counter(label_of[name] for name in part)["malignant"] <= 13


def test_no_fold_stays_empty_where_scikit_learn_leaves_one() -> None:
    dataset = _dataset([0, 0, 0, 0, 1, 1, 2, 2, 3], list("bbbbbbaaa"))
    for seed in range(20):
        assert set(group_folds(dataset, folds=4, seed=seed).assignment.values()) == {0, 1, 2, 3}


def test_a_rare_label_is_no_obstacle() -> None:
    drawn = group_folds(_dataset(list(range(6)), ["a", "b", "c", "d", "e", "f"]), folds=3, seed=0)
    assert sorted(Counter(drawn.assignment.values()).values()) == [2, 2, 2]


def test_folds_are_saved_as_text_and_loaded(tmp_path: Path) -> None:
    drawn = group_folds(_dataset([0, 0, 1, 2, 3], prefix="bénigne"), folds=2, seed=7)
    path = tmp_path / "folds.tsv"
    path.write_text("what was here before")
    drawn.save(path)
    assert Folds.load(path) == drawn
    lines = path.read_text(encoding="utf-8").split("\n")
    assert lines[:5] == ["# ultrarefiner folds", "# folds\t2", "# seed\t7", "# cases\t5", "name\tfold"]
    assert lines[5] == f"bénigne (0)\t{drawn.assignment['bénigne (0)']}"
    assert [item.name for item in tmp_path.iterdir()] == ["folds.tsv"]
    drawn.save(tmp_path / "new" / "folds.tsv")
    assert Folds.load(tmp_path / "new" / "folds.tsv") == drawn
    own = Folds(assignment={"a": 0}, count=3, seed=None)
    own.save(path)
    assert Folds.load(path) == own
    assert pickle.loads(pickle.dumps(own)) == own


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folds.tsv"
    Folds({"a": 0}, count=2, seed=0).save(path)
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="the disk is full"):
        Folds({"b": 0}, count=2, seed=0).save(path)
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["folds.tsv"]


@settings(deadline=None, max_examples=30)
@given(cut=st.floats(0, 0.999))
def test_a_truncated_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: float) -> None:
    path = tmp_path_factory.mktemp("folds") / "folds.tsv"
    Folds({f"case {number}": number % 3 for number in range(12)}, count=3, seed=0).save(path)
    text = path.read_text()
    path.write_text(text[: int(cut * len(text))])
    with pytest.raises(
        ValueError, match=r"folds\.tsv is not a whole file of folds .* restore it, or draw the folds again"
    ):
        Folds.load(path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "folds.tsv"
    with pytest.raises(FileNotFoundError, match=r"there are no folds at .*folds\.tsv; draw them with group_folds"):
        Folds.load(path)
    good = "# ultrarefiner folds\n# folds\t2\n# seed\t0\n# cases\t2\nname\tfold\na\t0\nb\t1\n"
    path.write_text(good)
    Folds.load(path)
    for bad in (
        "a,b\n",
        good.replace("a\t0", "a\tone"),
        good.replace("a\t0", "a\t2"),
        good.replace("b\t1", "a\t1"),
        good.replace("cases\t2", "cases\t3"),
        good.replace("ultrarefiner", "other"),
        good.replace("name\tfold", "fold\tname"),
    ):
        path.write_text(bad)
        with pytest.raises(ValueError, match=r"is not a whole file of folds"):
            Folds.load(path)


def test_folds_of_another_data_set_are_refused() -> None:
    dataset = _dataset([0, 0, 1, 2])
    drawn = group_folds(dataset, folds=2, seed=0)
    drawn.check(dataset)
    with pytest.raises(ValueError, match=r"1 names in the folds are not in the data set, the first is 'case \(3\)'"):
        drawn.check(_dataset([0, 0, 1]))
    with pytest.raises(ValueError, match=r"1 cases of the data set have no fold, the first is 'case \(4\)': .*4 names"):
        drawn.check(_dataset([0, 0, 1, 2, 3]))
    fold_of_first = drawn.assignment["case (0)"]
    other = next(index for index in (2, 3) if drawn.assignment[f"case ({index})"] != fold_of_first)
    groups = [0, 0, 1, 2]
    groups[other] = 0
    with pytest.raises(ValueError, match=r"the folds split the group 'group 0'"):
        drawn.check(_dataset(groups))


def test_wrong_numbers_get_a_sentence(tmp_path: Path) -> None:
    dataset = _dataset([0, 0, 1, 2])
    for folds in (1, 4):
        with pytest.raises(ValueError, match=rf"folds must be 2 to 3, the number of groups, got {folds}"):
            group_folds(dataset, folds=folds, seed=0)
    drawn = group_folds(dataset, folds=2, seed=0)
    for ask in (drawn.training, drawn.validation):
        for fold in (-1, 2):
            with pytest.raises(ValueError, match=rf"fold must be one of 0 to 1, got {fold}"):
                ask(fold)
    with pytest.raises(ValueError, match=r"'a' is in fold 5, but 5 folds are numbered 0 to 4"):
        Folds({"a": 5}, count=5, seed=None)
    with pytest.raises(ValueError, match=r"the name 'a\\tb' has a tab or a line break"):
        Folds({"a\tb": 0}, count=2, seed=None).save(tmp_path / "folds.tsv")


def test_phantoms_are_folded_too() -> None:
    phantoms = Phantoms(20, size=(32, 32))
    drawn = group_folds(phantoms, folds=4, seed=0)
    drawn.check(phantoms)
    assert phantoms.subset(drawn.validation(0)).names == drawn.validation(0)


@settings(deadline=None, max_examples=30)
@given(
    assignment=st.dictionaries(st.integers(0, 99).map(str), st.integers(0, 4), min_size=1, max_size=30), data=st.data()
)
def test_folds_within_are_those_of_before(assignment: dict[str, int], data: st.DataObject) -> None:
    folds = Folds(assignment, count=5, seed=3)
    names = data.draw(st.lists(st.sampled_from(sorted(assignment)), min_size=1, unique=True))
    part = folds.within(names)
    assert set(part.assignment) == set(names)
    assert part.count == len({assignment[name] for name in names})
    assert part.seed == 3
    # Who was together is together, who was apart is apart, and the order of folds is kept.
    for one in names:
        for other in names:
            before, after = assignment[one] - assignment[other], part.assignment[one] - part.assignment[other]
            assert (before > 0, before < 0) == (after > 0, after < 0)
    assert all(part.validation(fold) for fold in range(part.count))
    assert folds.within(assignment).assignment == part.within(names).assignment or set(names) != set(assignment)


def test_folds_within_a_fold_for_testing_taken_away() -> None:
    dataset = _dataset([number // 2 for number in range(30)])
    folds = group_folds(dataset, folds=5, seed=0)
    left = folds.training(3)
    part = folds.within(left)
    part.check(dataset.subset(left))
    assert [part.validation(fold) for fold in range(4)] == [folds.validation(fold) for fold in (0, 1, 2, 4)]
    with pytest.raises(ValueError, match=r"2 of 3 names are in no fold, the first is 'nobody 2'; take names of the"):
        folds.within([left[0], "nobody 10", "nobody 2"])
