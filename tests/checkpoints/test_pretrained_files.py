"""Folders of saved systems: both files or neither, nothing executed, every damage a sentence."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from saved_systems import edit_config, edit_tensors
from torch import nn

from ultrarefiner.checkpoints import fill_strictly, read_pretrained, write_pretrained
from ultrarefiner.checkpoints import pretrained as module
from ultrarefiner.checkpoints.pretrained_tensors import state_of

SETTINGS = {"width": 2, "names": ["b", "a"], "inner": {"on": True, "nothing": None, "share": 0.25}}


class Trap:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.file),)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("scratch", torch.ones(5), persistent=False)
        self.register_buffer("mask", torch.tensor([True, False]))


@pytest.fixture
def net() -> Net:
    torch.manual_seed(0)
    net = Net()
    net.norm.num_batches_tracked.fill_(12345)
    return net


@pytest.fixture
def folder(tmp_path: Path, net: Net) -> Path:
    return write_pretrained(tmp_path / "saved", net, system="Net", settings=SETTINGS)


def test_what_is_written_comes_back(folder: Path, net: Net) -> None:
    saved = read_pretrained(folder)
    assert (saved.system, saved.settings) == ("Net", SETTINGS)
    assert saved.tensors.keys() == net.state_dict().keys()
    assert all(torch.equal(value, saved.tensors[name]) for name, value in net.state_dict().items())
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_config_is_for_people(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    config = json.loads(text)
    assert text == json.dumps(config, indent=2, sort_keys=True) + "\n"
    assert config["format"] == 1
    assert config["library"] == "ultrarefiner"
    assert config["tensors"] == len(load_file(folder / "model.safetensors")) == 8
    assert config["digest"].startswith("sha256:")


def test_half_precision_leaves_whole_numbers_whole(tmp_path: Path, net: Net) -> None:
    write_pretrained(tmp_path, net, system="Net", settings={}, dtype=torch.float16)
    stored = load_file(tmp_path / "model.safetensors")
    assert stored["first.weight"].dtype == torch.float16
    assert stored["norm.num_batches_tracked"].dtype == torch.int64
    assert stored["norm.num_batches_tracked"].item() == 12345
    assert stored["mask"].dtype == torch.bool
    other = Net()
    fill_strictly(other, read_pretrained(tmp_path).tensors, source="the file")
    assert other.first.weight.dtype == torch.float32
    assert torch.equal(other.first.weight, net.first.weight.half().float())


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_other_dtypes_get_a_sentence(tmp_path: Path, net: Net, dtype: torch.dtype) -> None:
    with pytest.raises(
        ValueError, match=rf"dtype must be torch.float16, bfloat16, float32, float64 or None, but it is {dtype}"
    ):
        write_pretrained(tmp_path, net, system="Net", settings={}, dtype=dtype)


def test_a_weight_that_half_precision_cannot_hold_gets_a_sentence(tmp_path: Path, net: Net) -> None:
    net.norm.running_var[1] = 1e5
    with pytest.raises(
        ValueError, match=r"norm.running_var has values up to 1e\+05 and torch.float16 ends at 6.55e\+04"
    ):
        write_pretrained(tmp_path, net, system="Net", settings={}, dtype=torch.float16)
    assert list(tmp_path.iterdir()) == []
    write_pretrained(tmp_path, net, system="Net", settings={}, dtype=torch.bfloat16)


def test_a_state_that_is_no_tensor_gets_a_sentence() -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> object:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(ValueError, match=r"_extra_state must be a plain tensor to be saved, but it is a dict"):
        state_of(Odd(1, 1))
    with pytest.raises(ValueError, match=r"weight must be a plain tensor .* on no device \(meta\)"):
        state_of(nn.Linear(1, 1, device="meta"))


def test_tied_and_strided_tensors_keep_their_values(tmp_path: Path) -> None:
    net = nn.Module()
    net.a, net.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    net.b.weight = net.a.weight
    net.c = nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last)
    net.register_buffer("view", net.a.weight.detach()[1])
    net.register_buffer("turned", torch.arange(6.0).view(2, 3).T)
    write_pretrained(tmp_path, net, system="Net", settings={})
    assert "b.weight" not in load_file(tmp_path / "model.safetensors")
    saved = read_pretrained(tmp_path).tensors
    assert all(torch.equal(value, saved[name]) for name, value in net.state_dict().items())
    untied = nn.Module()
    untied.a, untied.b, untied.c = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False), nn.Conv2d(4, 4, 3)
    untied.register_buffer("view", torch.zeros(3))
    untied.register_buffer("turned", torch.zeros(3, 2))
    fill_strictly(untied, saved, source="the file")
    assert torch.equal(untied.b.weight, net.a.weight)


def test_one_tensor_cannot_take_two_values() -> None:
    tied = nn.ModuleList([nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)])
    tied[1].weight = tied[0].weight
    two = {"0.weight": torch.zeros(3, 3), "1.weight": torch.ones(3, 3)}
    with pytest.raises(ValueError, match=r"two values for 0.weight and 1.weight, which are one tensor in this system"):
        fill_strictly(tied, two, source="the file")


def test_double_precision_comes_back_double(tmp_path: Path, net: Net) -> None:
    write_pretrained(tmp_path, net.double(), system="Net", settings={})
    other = Net()
    fill_strictly(other, read_pretrained(tmp_path).tensors, source="the file")
    assert torch.equal(other.first.weight, net.first.weight)


@pytest.mark.parametrize("stop", ["weights", "config"])
def test_a_stop_while_writing_leaves_the_old_pair(
    folder: Path, net: Net, stop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(
        module.os if stop == "weights" else module, "fsync" if stop == "weights" else "config_text", stopped
    )
    with pytest.raises(KeyboardInterrupt):
        write_pretrained(folder, Net(), system="Net", settings={})
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_both_files_are_complete_before_either_takes_its_name(
    folder: Path, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    replace = Path.replace

    def noted(self: Path, target: Path) -> Path:
        sizes.append({path.name: path.stat().st_size for path in folder.iterdir()})
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", noted)
    write_pretrained(folder, net, system="Net", settings={"other": 1})
    final = (folder / "model.safetensors").stat().st_size
    assert sizes[0][".model.safetensors.part"] == final
    assert sizes[0][".config.json.part"] == (folder / "config.json").stat().st_size


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pair_of_which_one_was_replaced_is_noticed(folder: Path, net: Net, name: str, tmp_path: Path) -> None:
    net.first.weight.data.add_(1)
    other = write_pretrained(tmp_path / "other", net, system="Net", settings=SETTINGS)
    (folder / name).write_bytes((other / name).read_bytes())
    with pytest.raises(ValueError, match=r"were not written together: their digest is sha256:.*Copy the folder again"):
        read_pretrained(folder)


def test_a_pair_that_is_replaced_while_it_is_read_is_noticed(
    folder: Path, net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = module._read_weights

    def and_then(path: Path) -> Any:
        found = read(path)
        write_pretrained(folder, net, system="Net", settings=SETTINGS)
        return found

    monkeypatch.setattr(module, "_read_weights", and_then)
    with pytest.raises(ValueError, match="were not written together"):
        read_pretrained(folder)


def test_a_pickle_in_its_place_is_refused_and_never_run(folder: Path, tmp_path: Path) -> None:
    for content in (pickle.dumps(Trap(tmp_path / "trapped")), None):
        if content is None:
            torch.save({"weight": torch.ones(1)}, folder / "model.safetensors")
        else:
            (folder / "model.safetensors").write_bytes(content)
        with pytest.raises(
            ValueError, match=r"is a pickle or a zip archive.*was not opened, and nothing in it was executed"
        ):
            read_pretrained(folder)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.99])
def test_a_truncated_file_is_refused(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"is truncated, damaged or no safetensors file"):
        read_pretrained(folder)


def test_one_flipped_bit_is_noticed(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="were not written together"):
        read_pretrained(folder)


def test_a_missing_tensor_is_noticed(folder: Path, net: Net) -> None:
    edit_tensors(folder, lambda tensors: tensors.pop("first.bias"), honest=False)
    with pytest.raises(ValueError, match=r"must hold 8 tensors, as config.json says, but it holds 7"):
        read_pretrained(folder)
    edit_tensors(folder, lambda tensors: None)
    with pytest.raises(ValueError, match=r"the file lacks 1 tensor that Net needs: first.bias\. It was changed"):
        fill_strictly(net, read_pretrained(folder).tensors, source="the file")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.update(extra=torch.zeros(1)), r"has 1 tensor that Net does not know: extra\."),
        (
            lambda t: t.update({"first.bias": torch.zeros(4)}),
            r"first.bias with the shape \(4,\), but the system's is \(3,\)",
        ),
        (
            lambda t: t.update({"first.bias": torch.zeros(3, dtype=torch.int64)}),
            "whole numbers in place of floating-point",
        ),
        (lambda t: t.update({"norm.num_batches_tracked": torch.zeros(())}), "floating-point numbers in place of whole"),
        (lambda t: t.update(mask=torch.zeros(2, dtype=torch.uint8)), "whole numbers in place of truth values"),
    ],
)
def test_other_tensors_are_refused_and_nothing_is_loaded(
    folder: Path, net: Net, change: Callable[[dict[str, Any]], None], sentence: str
) -> None:
    edit_tensors(folder, lambda tensors: tensors.update({"first.weight": torch.full((3, 3), 9.0)}))
    edit_tensors(folder, change)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(ValueError, match=sentence):
        fill_strictly(net, read_pretrained(folder).tensors, source="the file")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda c: c.update(format=2, version="9.1"),
            r"has format 2, written by ultrarefiner 9.1, .* up to 1; install",
        ),
        (lambda c: c.update(format="one"), r"must say its format, a whole number from 1 to 1, but it says 'one'"),
        (lambda c: c.update(format=True), r"must say its format, .* but it says True"),
        (lambda c: c.pop("format"), r"must say its format, .* but it says None"),
        (lambda c: c.update(library="transformers"), r'"library": "ultrarefiner", but it says \'transformers\''),
        (lambda c: c.update(colour=1), r"has the unknown colour;"),
        (lambda c: c.pop("digest"), r"lacks digest;"),
        (lambda c: c.update(tensors="8"), r"must give tensors as int, but it is '8'"),
        (lambda c: c.update(settings=[]), r"must give settings as dict, but it is \[\]"),
        (lambda c: c["settings"].update(width=3), r"were not written together"),
        (lambda c: c.update(system="Other"), r"were not written together"),
        (lambda c: c["settings"]["inner"].update(share=float("nan")), r"it holds NaN, but every number must be finite"),
    ],
)
def test_an_edited_config_is_refused(folder: Path, change: Callable[[dict[str, Any]], None], sentence: str) -> None:
    edit_config(folder, change, honest=False)
    with pytest.raises(ValueError, match=sentence):
        read_pretrained(folder)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON as save_pretrained writes it"),
        ("[1]", "but it says 'a list'"),
        ('{"format": 1, "format": 1}', "it says 'format' twice"),
        ("[" * 100_000, "is not JSON as save_pretrained writes it"),
        (" " * (2**20 + 1), "must be a short text, but it has 1,048,577 bytes"),
        ("\udcff", "is not JSON as save_pretrained writes it"),
    ],
    ids=["broken", "list", "twice", "deep", "long", "bytes"],
)
def test_a_config_that_is_none_is_refused(folder: Path, text: str, sentence: str) -> None:
    (folder / "config.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=sentence):
        read_pretrained(folder)


def test_a_number_beyond_floats_is_refused(folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(path.read_text().replace("0.25", "1e999"))
    with pytest.raises(ValueError, match=r"settings.inner.share must be a finite number, but it is inf"):
        read_pretrained(folder)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"a": {"b": [1.0, float("inf")]}}, r"settings.a.b.1 must be a finite number, but it is inf"),
        ({"a": {1: 2}}, r"settings.a must be a plain value"),
        ({"a": object()}, r"settings.a must be a plain value \(number, text, list, dictionary\), but it is <object"),
    ],
)
def test_settings_that_are_not_plain_are_not_written(
    tmp_path: Path, net: Net, settings: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        write_pretrained(tmp_path, net, system="Net", settings=settings)
    assert list(tmp_path.iterdir()) == []


def test_missing_files_get_a_sentence(folder: Path, net: Net) -> None:
    with pytest.raises(ValueError, match=r"folder must be a folder, but .*config.json is a file"):
        write_pretrained(folder / "config.json", net, system="Net", settings={})
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no model.safetensors in .* beside config.json"):
        read_pretrained(folder)
    (folder / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no config.json in .*save_pretrained wrote"):
        read_pretrained(folder)


def test_a_header_that_renames_wrongly_is_refused(folder: Path) -> None:
    from safetensors.torch import save_file

    path = folder / "model.safetensors"
    save_file(dict(load_file(path)), path, {"format": "pt", "first.bias": "../../etc"})
    with pytest.raises(
        ValueError, match=r"header that 'first.bias' is another name of '../../etc', which does not fit"
    ):
        read_pretrained(folder)
