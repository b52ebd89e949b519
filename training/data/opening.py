"""A file's bytes as UTF-8, whatever its compression and encoding; what is no text is refused by its name.

Knows the first bytes of files, not what the text says.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
from typing import Any, BinaryIO

from rdrec_core.errors import DatasetError, InputError

_CHUNK = 1 << 20
_NO_TEXT = {
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it, or save the sheet as CSV",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; gzip, bz2, xz and plain text are read",
    b"ARROW1": "an Arrow (Feather) file; save it as Parquet",
    b"SQLite format 3": "a database; export the table as CSV",
    b"\x89HDF": "an HDF5 file; save it as Parquet or CSV",
    b"\x93NUMPY": "a NumPy file; save it as Parquet or CSV",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"%PDF": "a PDF; CSV, JSON lines or Parquet are read",
}
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_parquet(head: bytes) -> bool:
    """Whether a file that begins so is Parquet."""
    return head.startswith(b"PAR1")


def open_text(raw: io.RawIOBase, name: str, encoding: str | None) -> BinaryIO:
    """The decompressed text as UTF-8 without a byte order mark; bytes that the encoding does not know stay as they are.

    encoding None: by its mark, or by the noughts of UTF-16, else UTF-8. Raises DatasetError for what is no text.
    """
    stream = _decompressed(raw)
    head = stream.peek(4096)[:4096]
    for mark, what in _NO_TEXT.items():
        if head.startswith(mark):
            raise DatasetError(f"{name} is {what}")
    found = next((known for mark, known in _MARKS if head.startswith(mark)), None) or _without_mark(head)
    if found == "utf-8" and encoding is None and b"\0" in head:
        raise DatasetError(f"{name} is no text (it holds noughts); CSV, JSON lines and Parquet are read")
    chosen = encoding if encoding is not None and not found.startswith("utf-16") else found
    if codecs.lookup(chosen).name == "utf-8" and not head.startswith(codecs.BOM_UTF8):
        return stream  # type: ignore[return-value]
    if codecs.lookup(chosen).name == "utf-8":
        chosen = "utf-8-sig"
    return io.BufferedReader(_Transcoded(stream, chosen), _CHUNK)  # type: ignore[return-value]


def checked_encoding(encoding: str) -> str:
    """The encoding's name. InputError where Python knows none of that name for text."""
    try:
        codecs.lookup(encoding)
        "".encode(encoding)
    except (LookupError, ValueError):
        raise InputError(
            f"--encoding {encoding}: no such encoding; latin-1, cp1252, gb18030 and shift_jis are some",
            field="encoding",
        ) from None
    return encoding


def _without_mark(head: bytes) -> str:
    if len(head) > 3 and head.count(0) > len(head) // 4:
        return "utf-16-le" if head[1::2].count(0) > head[0::2].count(0) else "utf-16-be"
    return "utf-8"


def _decompressed(raw: io.RawIOBase) -> io.BufferedReader:
    buffered = io.BufferedReader(raw, _CHUNK)
    head = buffered.peek(6)[:6]
    unpacked: Any = None
    if head.startswith(b"\x1f\x8b"):
        unpacked = gzip.GzipFile(fileobj=buffered)
    elif head.startswith(b"BZh"):
        unpacked = bz2.BZ2File(buffered)
    elif head.startswith(b"\xfd7zXZ\0"):
        unpacked = lzma.LZMAFile(buffered)  # noqa: SIM115 - closed with the file below
    return buffered if unpacked is None else io.BufferedReader(unpacked, _CHUNK)


class _Transcoded(io.RawIOBase):
    """Text of another encoding as UTF-8."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready and not self._ended:
            chunk = self._stream.read(_CHUNK)
            self._ended = not chunk
            self._ready = self._decoder.decode(chunk, final=not chunk).encode("utf-8", "surrogateescape")
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n
