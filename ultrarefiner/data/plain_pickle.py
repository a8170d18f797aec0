"""Read pickles that hold plain containers and numbers only, and refuse all others before anything in them runs."""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

LARGEST = 2**22  # bytes: boxes and clicks of a case take some thousand
_MOST = 2**16  # values, each time that one is named
_DEEPEST = 12
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_STRINGS = re.compile(r"U[1-9]\d{0,4}", re.ASCII)
_LAST_LETTER = 0x10FFFF
_OBJECTS = ("O", "O4", "O8")

# Where NumPy 1 and 2 keep what their pickles name.
_NUMPY_MODULES = (
    "numpy",
    "numpy.core.multiarray",
    "numpy._core.multiarray",
    "numpy.core.numeric",
    "numpy._core.numeric",
)


def load_plain(content: bytes) -> Any:
    """Unpickle dictionaries, lists, tuples, numbers, strings, None, and NumPy's scalars and arrays of them.

    Nothing that a pickle names is imported or called. The five names that NumPy's pickles hold stand for small
    classes of this file, which build plain Python values: arrays become nested lists, scalars numbers. Any other name
    ends the reading, so neither a function nor a class of a hostile file is ever reached.

    Args:
        content: the pickle, at most 4 MiB.

    Raises:
        ValueError: the pickle names anything else, is damaged or too large.

    Example:
        >>> load_plain(pickle.dumps([{"z_min": np.int64(3), "at": np.array([1.5, 2.0])}]))
        [{'z_min': 3, 'at': [1.5, 2.0]}]
        >>> load_plain(pickle.dumps(print))
        Traceback (most recent call last):
        ValueError: it names builtins.print, but only plain numbers, ...
    """
    if len(content) > LARGEST:
        message = f"it has {len(content):,} bytes of pickled values, at most {LARGEST:,} are read"
        raise ValueError(message)
    try:
        _check_places(content)
        return _Finish().plain(_PlainUnpickler(io.BytesIO(content)).load())
    except pickle.UnpicklingError as error:
        message = f"{error}; nothing in it was executed"
        raise ValueError(message) from error
    except Exception as error:  # a damaged pickle fails in any way
        message = f"its pickled values are damaged ({type(error).__name__}: {error}); nothing in it was executed"
        raise ValueError(message) from error


def has_letters(data: bytes | bytearray, order: str) -> bool:
    """Whether NumPy's strings in bytes are of letters that exist; of others Python would make a broken string.

    Args:
        data: four bytes a letter.
        order: of the bytes, such as "<".

    Example:
        >>> has_letters("fg".encode("utf-32-le"), "<"), has_letters(b"aaaa", "<")
        (True, False)
    """
    codes = np.frombuffer(bytes(data), dtype=np.dtype(order + "u4"))
    return not bool(((codes > _LAST_LETTER) | ((codes >= 0xD800) & (codes < 0xE000))).any())


def _check_places(content: bytes) -> None:
    """Refuse numbers of places so high that the unpickler would ask for gigabytes."""
    for opcode, argument, _ in pickletools.genops(content):
        if "PUT" in opcode.name and not 0 <= int(str(argument)) <= len(content):
            message = f"it keeps a value at place {argument} of {len(content)} bytes"
            raise pickle.UnpicklingError(message)


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _STAND_INS.get(name) if module in _NUMPY_MODULES else None
        if found is None:
            message = (
                f"it names {module}.{name}, but only plain numbers, strings, lists, dictionaries and arrays are read"
            )
            raise pickle.UnpicklingError(message)
        return found


class _Call:
    """What a pickle may call in NumPy's place; it can be called and nothing else."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)

    def __setstate__(self, state: object) -> None:
        message = "it changes what it calls"
        raise pickle.UnpicklingError(message)


class _Type:
    """Stands for numpy.dtype: one type of numbers or strings, and its byte order."""

    __slots__ = ("code", "order")

    def __init__(self, code: object) -> None:
        self.code = str(code)
        self.order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = {"<": "<", ">": ">", "|": "|", "=": "="}[state[1]]
        if any(part is not None for part in state[2:5]):  # fields and sub-arrays
            message = f"it holds an array of a structured type ({self.code}), only plain numbers are read"
            raise pickle.UnpicklingError(message)

    @property
    def of_objects(self) -> bool:
        """Whether the values are any Python objects."""
        return self.code in _OBJECTS

    def values(self, data: object) -> Any:
        """The numbers or strings in bytes."""
        known = self.code in _NUMBERS or _STRINGS.fullmatch(self.code) is not None
        if not known or not isinstance(data, bytes | bytearray):
            message = f"it holds values of the type {self.code:.80}, only plain numbers and strings are read"
            raise pickle.UnpicklingError(message)
        if self.code.startswith("U") and not has_letters(data, self.order):
            message = "it holds strings of letters that do not exist"
            raise pickle.UnpicklingError(message)
        return np.frombuffer(bytes(data), dtype=np.dtype(self.order + self.code))


class _Array:
    """Stands for an array until its values are known."""

    __slots__ = ("shape", "values")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.shape: tuple[int, ...] = (0,)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, data = state
        self.fill(shape, kind, data, tuple(reversed(range(len(shape)))) if fortran else None)

    def fill(self, shape: tuple[int, ...], kind: _Type, data: object, axes: tuple[int, ...] | None) -> None:
        """Take the values; ``axes`` are the array's own, from the slowest in the bytes on, None for 0, 1, 2, ..."""
        sides = tuple(shape)
        values = data if kind.of_objects else kind.values(data)
        fits = all(isinstance(side, int) and 0 <= side <= _MOST for side in sides)
        if not isinstance(values, list | np.ndarray) or not fits or len(values) != math.prod(sides):
            message = f"it holds an array whose values do not fill its shape {sides}"
            raise pickle.UnpicklingError(message)
        if isinstance(values, np.ndarray):  # lists of objects are row by row, whatever the array's order
            if axes is not None:
                values = values.reshape([sides[axis] for axis in axes]).transpose(np.argsort(axes))
            values = values.ravel().tolist()
        self.values, self.shape = values, sides


class _Finish:
    """Makes plain values, arrays as nested lists; counts them, for a pickle may hold one list a million times."""

    def __init__(self) -> None:
        self.left = _MOST

    def plain(self, value: Any, depth: int = 0) -> Any:
        self.left -= 1
        if depth > _DEEPEST or self.left < 0:
            message = f"its values are nested more than {_DEEPEST} times, or there are more than {_MOST:,}"
            raise pickle.UnpicklingError(message)
        if isinstance(value, _Array):
            return _nested([self.plain(one, depth + 1) for one in value.values], value.shape)
        if isinstance(value, list | tuple):
            return [self.plain(one, depth + 1) for one in value]
        if isinstance(value, dict):
            return {str(key): self.plain(one, depth + 1) for key, one in value.items()}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        message = f"it holds a {type(value).__name__}, only plain numbers, strings, lists and dictionaries are read"
        raise pickle.UnpicklingError(message)


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    if not shape:
        return values[0]
    for side in reversed(shape[1:]):
        values = [values[start : start + side] for start in range(0, len(values), side)] if side else []
    return values


def _scalar(kind: _Type, data: object) -> Any:
    (value,) = kind.values(data).tolist()
    return value


def _from_buffer(
    data: object, kind: _Type, shape: tuple[int, ...], order: str, places: tuple[int, ...] | None = None
) -> _Array:
    """Order "K": the shape is that of the bytes, and ``places`` tells where each axis of the array is in it."""
    array = _Array()
    if order == "K" and places is not None:
        axes = tuple(int(axis) for axis in np.argsort(places))
        array.fill(tuple(shape[place] for place in places), kind, data, axes)
    else:
        array.fill(shape, kind, data, tuple(reversed(range(len(shape)))) if order == "F" else None)
    return array


_STAND_INS: dict[str, _Call] = {
    "ndarray": _Call(lambda: None),  # only named, as what _reconstruct makes
    "dtype": _Call(lambda code, *_: _Type(code)),
    "_reconstruct": _Call(lambda *_: _Array()),
    "scalar": _Call(_scalar),
    "_frombuffer": _Call(_from_buffer),
}
