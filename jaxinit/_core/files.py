"""Files that are whole or refused: written at once or not at all, and checked to the last byte when read."""

from __future__ import annotations

import hashlib
import io
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["pack_arrays", "read_arrays", "unpack_arrays", "write_arrays", "write_bytes"]

#: A sealed archive ends in the length of its comment and the comment, a digest of all bytes before both.
_DIGITS = 64
_LENGTH = struct.pack("<H", _DIGITS)
#: The last 22 bytes of an archive without a comment begin and end so.
_END, _END_BYTES, _NO_COMMENT = b"PK\5\6", 22, b"\0\0"


def write_bytes(target: Path, content: bytes) -> None:
    """Write bytes atomically: a temporary file `.NAME.*.part` beside the target, fsync, rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(target)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk says no name
            error.filename = str(target)
        raise


def write_arrays(target: Path, arrays: Mapping[str, Any], *, compress: bool = True) -> None:
    """Write an .npz atomically. The comment of the archive is the SHA-256 of all that precedes it."""
    write_bytes(target, pack_arrays(arrays, compress=compress))


def pack_arrays(arrays: Mapping[str, Any], *, compress: bool = True) -> bytes:
    """The content of the file that `write_arrays` writes."""
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    body = buffer.getvalue()[:-2]  # an archive without comment ends in two bytes: its length, 0
    digest = hashlib.sha256(body).hexdigest().encode()
    return body + _LENGTH + digest


def read_arrays(source: Path) -> dict[str, np.ndarray]:
    """Read an .npz into memory; a sealed one is checked whole, one of another writer as far as zip does.

    Raises:
        ValueError: the file is truncated, damaged, of another kind, or holds Python objects.
        OSError: it cannot be read.
    """
    return unpack_arrays(source.read_bytes())


def unpack_arrays(content: bytes) -> dict[str, np.ndarray]:
    """What `pack_arrays` packed; raises ValueError."""
    body, length, digest = content[: -_DIGITS - 2], content[-_DIGITS - 2 : -_DIGITS], content[-_DIGITS:]
    sealed = length == _LENGTH and hashlib.sha256(body).hexdigest().encode() == digest
    if not sealed and not (content[-_END_BYTES:].startswith(_END) and content.endswith(_NO_COMMENT)):
        raise ValueError("its checksum does not fit its content")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError, NotImplementedError) as error:
        raise ValueError(str(error) or type(error).__name__) from error
