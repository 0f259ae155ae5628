"""Arrays of ONNX files. Nothing is allocated for a size that the file does not back with bytes."""

from __future__ import annotations

import math
import os
import stat
from typing import Any

import numpy as np

from pycnn.errors import FileError, FormatError, UnsupportedError
from pycnn.optional import optional

__all__ = ["MOST_AXES", "MOST_ELEMENTS", "TensorReader", "dtype_name", "is_narrow"]

#: No tensor of a network has more.
MOST_ELEMENTS = 2**31
#: Nor more axes.
MOST_AXES = 8
# TensorProto.DataType, the field that holds such numbers one by one, and NumPy's name.
_TYPES = {
    1: ("float_data", "float32"),
    2: ("int32_data", "uint8"),
    3: ("int32_data", "int8"),
    4: ("int32_data", "uint16"),
    5: ("int32_data", "int16"),
    6: ("int32_data", "int32"),
    7: ("int64_data", "int64"),
    9: ("int32_data", "bool"),
    10: ("int32_data", "float16"),
    11: ("double_data", "float64"),
    12: ("uint64_data", "uint32"),
    13: ("uint64_data", "uint64"),
}
# Types that NumPy lacks: how many bits an element has, and the name in the package ml_dtypes. Files hold their bits as
# unsigned numbers; several elements share a byte, the first in its lowest bits.
_NARROW = {
    16: (16, "bfloat16"),
    17: (8, "float8_e4m3fn"),
    18: (8, "float8_e4m3fnuz"),
    19: (8, "float8_e5m2"),
    20: (8, "float8_e5m2fnuz"),
    21: (4, "uint4"),
    22: (4, "int4"),
    23: (4, "float4_e2m1fn"),
    24: (8, "float8_e8m0fnu"),
    25: (2, "uint2"),
    26: (2, "int2"),
}
# Later versions of the format may add some.
_LAST_TYPE = 64
_FIELDS = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data", "string_data")
_EXTERNAL = 1


def dtype_name(number: int, where: str) -> str:
    """NumPy's name of an ONNX element type.

    Raises:
        UnsupportedError: Texts, complex numbers and others.
        FormatError: There is no such type.
    """
    if number in _TYPES:
        return _TYPES[number][1]
    if number in _NARROW:
        return _NARROW[number][1]
    if 1 <= number <= _LAST_TYPE:
        raise UnsupportedError(f"{where}: element type {number} of ONNX is not supported")
    raise FormatError(f"{where}: there is no element type {number}")


def is_narrow(dtype: str) -> bool:
    """Whether it is one of the types that NumPy lacks: read from files, not made here."""
    return any(dtype == name for _, name in _NARROW.values())


def check_sizes(sizes: tuple[int, ...], where: str) -> int:
    """Number of elements of a shape.

    Raises:
        FormatError: A size is negative, or there are too many axes or elements.
    """
    if len(sizes) > MOST_AXES or any(size < 0 for size in sizes):
        raise FormatError(f"{where}: shape {sizes[:16]} must have at most {MOST_AXES} axes, none negative")
    count = math.prod(sizes)
    if count > MOST_ELEMENTS:
        raise FormatError(f"{where}: shape {sizes} has {count} elements, more than {MOST_ELEMENTS}")
    return count


class TensorReader:
    """Reads the tensors of one model.

    Args:
        folder: Where external data may lie; None when the model was given as bytes.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    def read(self, tensor: Any, where: str) -> np.ndarray:
        """Return a tensor's values.

        Raises:
            FormatError: Shape, element type and bytes do not fit together.
            UnsupportedError: The element type is not known here.
            FileError: External data cannot be read.
        """
        if tensor.HasField("segment"):
            raise FormatError(f"{where}: is a segment of a tensor")
        sizes = tuple(tensor.dims)
        count = check_sizes(sizes, where)
        if tensor.data_type in _NARROW:
            bits, name = _NARROW[tensor.data_type]
            dtype = _narrow_type(name, where)
            held = np.dtype(np.uint16 if bits == 16 else np.uint8)
            units = self._values(tensor, "int32_data", held, (-(-count * bits // (8 * held.itemsize)),), where)
            return _unpacked(units, dtype, bits, count).reshape(sizes)
        name = dtype_name(tensor.data_type, where)
        return self._values(tensor, _TYPES[tensor.data_type][0], np.dtype(name), sizes, where)

    def _values(self, tensor: Any, typed: str, dtype: np.dtype, sizes: tuple[int, ...], where: str) -> np.ndarray:
        """The numbers of a tensor, in whichever field they lie."""
        name, count = dtype.name, math.prod(sizes)
        filled = [field for field in _FIELDS if len(getattr(tensor, field))]
        external = tensor.data_location == _EXTERNAL
        if len(filled) + tensor.HasField("raw_data") + external > 1 and (filled or len(tensor.raw_data)):
            raise FormatError(f"{where}: has values in more than one field")
        if external:
            return self._external(tensor, dtype, sizes, count, where)
        if filled and filled[0] != typed:
            raise FormatError(f"{where}: values in {filled[0]}, expected {typed} for {name}")
        if filled:
            values = np.asarray(getattr(tensor, typed))
            if values.size != count:
                raise FormatError(f"{where}: shape {sizes} needs {count} values, there are {values.size}")
            if name == "float16":
                return values.astype(np.uint16).view(np.float16).reshape(sizes)
            return values.astype(dtype).reshape(sizes)
        return _from_bytes(tensor.raw_data, dtype, sizes, count, where)

    def _external(self, tensor: Any, dtype: np.dtype, sizes: tuple[int, ...], count: int, where: str) -> np.ndarray:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if self._folder is None:
            raise FormatError(f"{where}: its values lie in another file; load it by path, not as bytes")
        location = entries.get("location", "")
        length = count * dtype.itemsize
        offset = _whole(entries.get("offset", "0"), f"{where}: offset")
        if "length" in entries and _whole(entries["length"], f"{where}: length") != length:
            raise FormatError(f"{where}: length {entries['length']}, shape {sizes} of {dtype} has {length} bytes")
        return _from_bytes(_read_beneath(self._folder, location, offset, length, where), dtype, sizes, count, where)


def _narrow_type(name: str, where: str) -> np.dtype:
    types = optional("ml_dtypes", extra="onnx", who=f"{where}: element type {name}")
    if not hasattr(types, name):
        raise UnsupportedError(f"{where}: element type {name} needs a newer version of the package ml_dtypes")
    return np.dtype(getattr(types, name))


def _unpacked(units: np.ndarray, dtype: np.dtype, bits: int, count: int) -> np.ndarray:
    """Elements of a type that NumPy lacks, from the unsigned numbers that hold their bits."""
    if bits < 8:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        units = (units[:, None] >> shifts & (1 << bits) - 1).reshape(-1)[:count]
        if dtype.name.startswith("int"):
            # The highest bit is the sign.
            return ((units ^ 1 << bits - 1).astype(np.int8) - (1 << bits - 1)).astype(dtype)
        if dtype.name.startswith("uint"):
            return units.astype(dtype)
    return units.view(dtype)


def _from_bytes(data: bytes, dtype: np.dtype, sizes: tuple[int, ...], count: int, where: str) -> np.ndarray:
    if len(data) != count * dtype.itemsize:
        raise FormatError(f"{where}: shape {sizes} of {dtype} needs {count * dtype.itemsize} bytes, not {len(data)}")
    array = np.frombuffer(data, dtype.newbyteorder("<"))
    return array.astype(dtype, copy=False).reshape(sizes)


def _whole(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise FormatError(f"{what} {text[:40]!r} is no whole number")
    return int(text)


def _read_beneath(folder: str, location: str, offset: int, length: int, where: str) -> bytes:
    """Bytes of a file below a folder; no link is followed, nothing but an ordinary file is opened."""
    parts = location.removeprefix("./").split("/")
    if not location or "\0" in location or any(part in ("", ".", "..") for part in parts):
        raise FormatError(f"{where}: external data in {location[:200]!r}, expected a relative path without '..'")
    opened: list[int] = []
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        opened.append(descriptor)
        for part in parts[:-1]:
            descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            opened.append(descriptor)
        # NONBLOCK: opening a pipe must not wait for its writer.
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=descriptor)
        opened.append(descriptor)
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1:
            raise FormatError(f"{where}: external data in '{location}', which is no ordinary file with one name")
        if offset + length > status.st_size:
            raise FormatError(
                f"{where}: external data at {offset} with {length} bytes, '{location}' has {status.st_size}"
            )
        with os.fdopen(opened.pop(), "rb") as file:
            file.seek(offset)
            return file.read(length)
    except OSError as error:
        if isinstance(error, FormatError):
            raise
        raise FileError(error.errno, f"{where}: external data: {error.strerror}", location) from None
    finally:
        for descriptor in reversed(opened):
            os.close(descriptor)
