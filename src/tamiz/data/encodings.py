"""Decide how the bytes of a text file are to be decoded, and prove it on the whole file before a row is read."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from tamiz.errors import ConfigError, EncodingError

__all__ = ["choose_encoding"]

_BLOCK_BYTES = 1 << 20
_SAMPLE_BYTES = 1 << 18

# The mark of UTF-32 little-endian begins with that of UTF-16, so it is looked for first.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Among equally clean readings of a Western text the most used one is the safest guess.
_USUAL = "cp1252"
_CLOSE = 0.05


@dataclass(frozen=True, slots=True)
class _Misfit:
    """The first byte that an encoding does not allow."""

    offset: int
    byte: int


def choose_encoding(opened: Callable[[], BinaryIO], where: str, stated: str | None) -> tuple[str, str | None]:
    """Return the encoding to read a file with and, if a person should know about the choice, a notice.

    The whole file is decoded once, block by block, so that a wrong byte anywhere is found before reading begins.

    Args:
        opened: opens the (decompressed) bytes from the start.
        where: name of the file, for messages.
        stated: the encoding the user named; without one UTF-8 is tried, then the encoding is detected.

    Raises:
        ConfigError: `stated` is not the name of a text encoding.
        EncodingError: the bytes are not text in the stated encoding, or in any encoding found for them.
    """
    with opened() as stream:
        head = stream.read(4096)
    marked = _marked(head)
    if stated is not None:
        return _check_stated(opened, where, _known(stated), marked)
    encoding = marked or _unmarked_utf16(head) or "utf-8"
    misfit = _first_misfit(opened, encoding)
    if misfit is None:
        return encoding, None if encoding.startswith("utf-8") else f"{where} is read as {encoding}"
    for guess in [] if marked else _guesses(opened, misfit.offset):
        if _first_misfit(opened, guess) is None:
            return guess, f"{where} is not UTF-8 and is read as {guess}; if that is wrong, state its encoding"
    raise EncodingError(
        f"{where}: the byte at offset {misfit.offset} is 0x{misfit.byte:02x}, which is not {encoding} text, and no "
        "other encoding was found that fits. Is it a text file? If so, state its encoding"
    )


def _known(stated: str) -> str:
    try:
        name = codecs.lookup(stated).name
        "".encode(name)  # refuses codecs that are no text encodings, such as base64
    except LookupError as error:
        raise ConfigError(
            f"encoding: {stated!r} is not a text encoding; usual: utf-8, utf-16, cp1252, latin-1"
        ) from error
    return "utf-8-sig" if name == "utf-8" else name


def _check_stated(
    opened: Callable[[], BinaryIO], where: str, encoding: str, marked: str | None
) -> tuple[str, str | None]:
    misfit = _first_misfit(opened, encoding)
    plain = encoding.removesuffix("-sig")
    if misfit is not None:
        seems = marked or next(iter(_fitting(opened, misfit.offset)), None)
        advice = f"It seems to be {seems}" if seems else "No encoding was found that fits"
        raise EncodingError(
            f"{where}: the byte at offset {misfit.offset} is 0x{misfit.byte:02x}, which is not {plain} text. {advice}"
        )
    # A single-byte encoding accepts nearly anything, while other text is hardly ever valid UTF-8 by chance.
    if not plain.startswith("utf") and not _is_ascii(opened) and _first_misfit(opened, "utf-8") is None:
        return encoding, f"{where} is read as {plain}, as stated, but all of it is valid UTF-8: is the encoding right?"
    return encoding, None


def _fitting(opened: Callable[[], BinaryIO], offset: int) -> Iterator[str]:
    for guess in ("utf-8", *_guesses(opened, offset)):
        if _first_misfit(opened, guess) is None:
            yield guess


def _marked(head: bytes) -> str | None:
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


def _unmarked_utf16(head: bytes) -> str | None:
    """Recognise UTF-16 without a mark: half of the bytes of Latin letters are zero, all in one position."""
    pairs = len(head) // 2
    if pairs < 2:
        return None
    even, odd = head[: 2 * pairs : 2].count(0), head[1 : 2 * pairs : 2].count(0)
    if odd > 0.4 * pairs and even < 0.05 * pairs:
        return "utf-16-le"
    if even > 0.4 * pairs and odd < 0.05 * pairs:
        return "utf-16-be"
    return None


def _blocks(opened: Callable[[], BinaryIO]) -> Iterator[bytes]:
    with opened() as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block


def _is_ascii(opened: Callable[[], BinaryIO]) -> bool:
    return all(block.isascii() for block in _blocks(opened))


def _first_misfit(opened: Callable[[], BinaryIO], encoding: str) -> _Misfit | None:
    decoder = codecs.getincrementaldecoder(encoding)()
    fed = 0
    try:
        for block in _blocks(opened):
            fed += len(block)
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        # The decoder looked at the end of what it was fed: bytes it had kept back, then the new block.
        return _Misfit(fed - len(error.object) + error.start, error.object[error.start])
    except UnicodeError:  # UTF-16 and UTF-32 without a mark where the codec demands one
        return _Misfit(0, next(_blocks(opened))[0])
    return None


def _guesses(opened: Callable[[], BinaryIO], offset: int) -> list[str]:
    """Return likely encodings, best first, from the lines around the byte at `offset` that is not UTF-8."""
    from charset_normalizer import from_bytes

    matches = list(from_bytes(_sample(opened, offset)))
    names = [match.encoding for match in matches]
    close = [match for match in matches if match.chaos <= matches[0].chaos + _CLOSE]
    if any(_USUAL in (match.encoding, *match.could_be_from_charset) for match in close):
        names.insert(0, _USUAL)
    return list(dict.fromkeys(names))


def _sample(opened: Callable[[], BinaryIO], offset: int) -> bytes:
    """Take lines with bytes beyond ASCII: the others say nothing about the encoding."""
    with opened() as stream:
        skipped = max(0, offset - _SAMPLE_BYTES // 2)
        stream.seek(skipped)
        lines = stream.read(_SAMPLE_BYTES).splitlines(keepends=True)
    telling = b"".join(line for line in (lines[1:] if skipped and len(lines) > 1 else lines) if not line.isascii())
    return telling or b"".join(lines)
