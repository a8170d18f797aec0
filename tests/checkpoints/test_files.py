"""Files of tensors: whole or old, never executed, every complaint a sentence."""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ultrarefiner.checkpoints.files import read_tensors, replaced_file, write_tensors

PAYLOAD = {"model": {"weight": torch.arange(1000.0)}, "epoch": 3, "names": ["a", "b"], "nothing": None}


class Trap:
    """A pickle of this runs code when a careless reader opens it."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    write_tensors(tmp_path / "new" / "a.pt", PAYLOAD)
    content = read_tensors(tmp_path / "new" / "a.pt")
    assert torch.equal(content.pop("model")["weight"], PAYLOAD["model"]["weight"])
    assert content == {"epoch": 3, "names": ["a", "b"], "nothing": None}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.pt"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    write_tensors(path, {"epoch": 1})
    with pytest.raises(AttributeError, match=r"local object|Can't pickle|Can't get"):
        write_tensors(path, {"epoch": 2, "function": lambda: None})
    assert read_tensors(path) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_has_the_name_before_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"old")
    with replaced_file(path) as file:
        file.write(b"n")
        file.flush()
        assert path.read_bytes() == b"old"
        file.write(b"ew")
    assert path.read_bytes() == b"new"


def test_what_a_killed_writer_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.pt.part").write_bytes(b"half")
    write_tensors(tmp_path / "a.pt", {"epoch": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no file a.pt \(looked in .*check the name, or download"):
        read_tensors(tmp_path / "a.pt")
    with pytest.raises(FileNotFoundError, match=r"is a folder, not a file"):
        read_tensors(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_truncated_file(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pt"
    write_tensors(path, PAYLOAD)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"truncated or damaged. Download or copy it again|or it is damaged"):
        read_tensors(path)


def test_truncated_old_format(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"weight": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    assert torch.equal(read_tensors(path)["weight"], torch.ones(1000))
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"truncated or damaged"):
        read_tensors(path)


@pytest.mark.parametrize("writer", ["torch", "old torch", "pickle"])
def test_code_in_a_pickle_is_not_executed(tmp_path: Path, writer: str) -> None:
    path, sprung = tmp_path / "a.pt", tmp_path / "sprung"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"weight": Trap(sprung)}, protocol=2))
    else:
        torch.save({"weight": Trap(sprung)}, path, _use_new_zipfile_serialization=writer == "torch")
    with pytest.raises(ValueError, match=r"holds more than tensors.*nothing in it was executed.*weights_only=False"):
        read_tensors(path)
    assert not sprung.exists()


def test_a_whole_model_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"holds more than tensors.*save only the state_dict\(\)"):
        read_tensors(tmp_path / "a.pt")


def test_a_saved_web_page(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("<!DOCTYPE html><html>Not found</html>")
    with pytest.raises(ValueError, match=r"not a PyTorch file, or it is damaged: it starts with b'<!DOCTYPE"):
        read_tensors(tmp_path / "a.pth")


def test_a_lone_tensor_is_refused(tmp_path: Path) -> None:
    torch.save(torch.ones(1), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"dictionary of tensors, but it holds a Tensor; save the model's state_dict"):
        read_tensors(tmp_path / "a.pt")


def test_safetensors(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "a.safetensors"
    save_file({"weight": torch.arange(100.0)}, path)
    assert torch.equal(read_tensors(path)["weight"], torch.arange(100.0))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"truncated, damaged or no safetensors file"):
        read_tensors(path)
    with pytest.raises(ValueError, match=r"path must be a PyTorch file.*name it a.pt"):
        write_tensors(path, {})


def test_safetensors_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'ultrarefiner\[weights\]'"):
        read_tensors(tmp_path / "a.safetensors")


def test_a_full_disk_is_told_in_a_sentence_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.pt"
    write_tensors(path, {"epoch": 3})

    def full(*_: object) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=r"last\.pt could not be written \(PytorchStreamWriter.*; is the disk full\?"):
        write_tensors(path, {"epoch": 4})
    monkeypatch.undo()
    assert read_tensors(path) == {"epoch": 3}
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]
