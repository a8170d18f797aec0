"""The challenge's pickles: plain values are read, nothing is executed."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from challenge_files import save
from hypothesis import given, settings
from hypothesis import strategies as st

from ultrarefiner.data import (
    read_interactive_case,
)
from ultrarefiner.data.plain_pickle import load_plain


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_all_pickles_that_numpy_writes_are_read(protocol: int) -> None:
    values = [
        {"a": np.int64(3), "b": np.float32(1.5), "c": [1, 2.5, None, True], "d": ("x",)},
        np.array([[1, 2], [3, 4]], dtype=np.int16),
        np.array([], dtype=np.float64),
        np.array(7),
        np.array([1, 2], dtype=">i4"),
        np.arange(6).reshape(2, 3).T,
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1),
        np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        np.asfortranarray(np.array([["a", None], [1, 2]], dtype=object)),
        np.array(["fg", "b", ""]),
        np.array([["fg"], ["bg"]], dtype=">U3"),
        np.str_("bg"),
    ]
    found = load_plain(pickle.dumps(values, protocol=protocol))
    assert found == [
        {"a": 3, "b": 1.5, "c": [1, 2.5, None, True], "d": ["x"]},
        [[1, 2], [3, 4]],
        [],
        7,
        [1, 2],
        [[0, 3], [1, 4], [2, 5]],
        np.arange(24).reshape(2, 3, 4).transpose(2, 0, 1).tolist(),
        np.arange(24.0).reshape(2, 3, 4).tolist(),
        [["a", None], [1, 2]],
        ["fg", "b", ""],
        [["fg"], ["bg"]],
        "bg",
    ]
    objects = np.array([{"x": 1}, {"x": 2}], dtype=object)
    assert load_plain(pickle.dumps(objects, protocol=protocol)) == [{"x": 1}, {"x": 2}]


def test_pickles_of_older_numpy_are_read() -> None:
    """NumPy 1 named its modules without the underscore."""
    new = pickle.dumps(np.array([{"x": np.int64(1)}], dtype=object), protocol=3)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != new
    assert load_plain(old) == [{"x": 1}]


class Evil:
    """Makes a file where it is unpickled."""

    def __init__(self, call: Any, *arguments: Any) -> None:
        self.call = call
        self.arguments = arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call, self.arguments


def evil_calls(marker: Path) -> list[Evil]:
    return [
        Evil(os.system, f"touch {marker}"),
        Evil(eval, f"open({str(marker)!r}, 'w')"),
        Evil(open, str(marker), "w"),
        Evil(getattr, "a", "format"),
        Evil(np.save, str(marker), 1),
        Evil(torch.load, str(marker)),
        Evil(pickle.loads, pickle.dumps(1)),
    ]


def test_the_evil_is_evil(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(open, str(tmp_path / "made"), "w")))
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("number", range(7))
def test_a_malicious_file_is_refused_and_does_nothing(tmp_path: Path, number: int) -> None:
    marker = tmp_path / "made"
    evil = evil_calls(marker)[number]
    for name in ("boxes", "clicks", "clicks_order", "imgs", "gts"):
        array = np.empty(1, dtype=object)
        array[0] = {"fg": [evil], "bg": []}
        with pytest.raises(
            ValueError, match=r"it names .* but only plain numbers.*nothing in it was executed"
        ) as caught:
            read_interactive_case(save(tmp_path / "a.npz", **{name: array}))
        assert str(caught.value).count("executed") == 1
        assert not marker.exists()


def test_stand_ins_cannot_be_changed_or_reached_through() -> None:
    core = b"cnumpy._core.multiarray\n"
    attacks = {
        "sets the state of what it calls": core + b"scalar\n}b.",
        "sets attributes of what it calls": core + b"scalar\n(N}U\x06_build\x88stb.",
        "walks to another name": b"cnumpy._core.multiarray\nscalar.__class__\n.",
        "names another module": b"cnumpy.f2py.diagnose\nrun\n(tR.",
        "names a module of ours": b"cultrarefiner.data.plain_pickle\nio.open\n.",
        "is a persistent name": b"Pevil\n.",
        "is of an extension": b"\x82\x01.",
        "is an object dtype in bytes": core + b"scalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00O8\x89\x88tRC\x08aaaaaaaatR.",
        "is a string without end": core + b"scalar\n(cnumpy\ndtype\n(X\x05\x00\x00\x00U8888\x89\x88tRC\x08aaaaaaaatR.",
        "has letters that are none": core + b"scalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00U2\x89\x88tRC\x08aaaaaaaatR.",
        "is a hostile dtype": core + b"scalar\n(cnumpy\ndtype\n(X\x05\x00\x00\x00V8888\x89\x88tRC\x08aaaaaaaatR.",
    }
    for name, content in attacks.items():
        with pytest.raises(ValueError, match=r"."):
            load_plain(content)
        assert load_plain(pickle.dumps([np.int64(3)])) == [3], name


def test_strings_of_letters_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    """Python makes a broken string of them, or ends in a SystemError."""
    for content in (b"aaaaaaaa", b"\x00\xd8\x00\x00" * 2, b"\x00\x00\x11\x00" * 2):
        order = np.frombuffer(content, dtype="<U2")
        for protocol in (4, 5):
            with pytest.raises(ValueError, match="strings of letters that do not exist; nothing in it was executed"):
                load_plain(pickle.dumps(order, protocol=protocol))
        with pytest.raises(ValueError, match=r"a.npz .* clicks_order.npy holds strings of letters that do not exist"):
            read_interactive_case(save(tmp_path / "a.npz", clicks_order=order))


def test_bombs_are_refused_quickly() -> None:
    many: list[Any] = [0]
    for _ in range(11):
        many = [many] * 20
    deep: list[Any] = []
    for _ in range(100):
        deep = [deep]
    shape = pickle.dumps(np.zeros((1000, 1000), dtype=np.int8), protocol=4).replace(
        b"M\xe8\x03M\xe8\x03", b"J\xff\xff\xff\x7fM\xe8\x03"
    )
    place = b"\x80\x03]r" + struct.pack("<I", 2**32 - 1) + b"."
    itself: list[Any] = []
    itself.append(itself)
    for content in (pickle.dumps(many), pickle.dumps(deep), shape, place, pickle.dumps(itself)):
        with pytest.raises(ValueError, match=r"nested more than 12|do not fill its shape|keeps a value at place"):
            load_plain(content)
    with pytest.raises(ValueError, match=r"at most 4,194,304 are read"):
        load_plain(bytes(5_000_000))


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_damaged_pickles_are_values_or_sentences(data: st.DataObject) -> None:
    content = bytearray(pickle.dumps([{"fg": [[1, 2, np.int64(3)]], "bg": np.arange(3)}], protocol=4))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(1, len(content)))]
    try:
        load_plain(bytes(content))
    except ValueError as error:
        assert str(error)  # noqa: PT017 - most are damaged, some are not
