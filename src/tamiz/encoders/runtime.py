"""Tokens of texts, and what an exported encoder answers to them, by ONNX Runtime or OpenVINO.

A row's answer does not depend on the rows it is computed with: padding is masked, and no form of the weights that
Tamiz makes by default scales anything over a whole batch.
"""

from __future__ import annotations

import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tamiz.encoders.graph import MAX_LENGTH, PAD
from tamiz.errors import DataError, MissingExtraError, PackageError, SourceError
from tamiz.extras import require

__all__ = ["TOKENIZER", "Feed", "OnnxModel", "RowModel", "Tokenizer", "batches", "by_width", "copy_model", "open_model"]

TOKENIZER = "tokenizer.json"

Array = NDArray[np.float32]
Feed = dict[str, NDArray[np.int64]]
"""What a model is given by the names of its inputs, each `(rows, tokens)`."""
_Part = tuple[list[int], list[int]]

_TEXTS, _CHARACTERS = 1000, 2_000_000  # given to the library at once, which takes up to 300 bytes a token
_BATCH_TOKENS = 512  # the fastest of 128 to 4,096 on one thread: what a batch needs stays near the core
_MOST_PADDING = 0.1
_LEAST_PADDING = 32  # tokens that cost less than one more call
_STEP = 8  # tokens; more calls or more padding would cost more than the few hundredths that it does
_SLOWER = ["SkipLayerNormFusion"]  # what it makes takes several times as long on a CPU as what it replaces
_PADS = ("[PAD]", "<pad>", "<|pad|>")
_UNKNOWN = ("[UNK]", "<unk>", "<|endoftext|>")
_HALVES = re.compile("[\ud800-\udfff]")  # of surrogate pairs: bytes of the command line that are no UTF-8, odd escapes


def copy_model(source: Path, target: Path, name: str) -> None:
    """Copy a model and its tokenizer from folder to folder.

    Args:
        source: holds them.
        target: an existing folder.
        name: file of the model; the weights of a large one lie beside it, in files whose names begin with this one.

    Raises:
        PackageError: they are not there any more.
    """
    if not (source / TOKENIZER).is_file():
        raise PackageError(
            f"the model cannot be saved: the folder {source} is gone, from which it was loaded. One loaded from "
            "an archive can be saved once it was loaded from its folder: unpack the archive with tar xzf"
        )
    for path in (*source.glob(f"{name}*"), source / TOKENIZER):
        shutil.copyfile(path, target / path.name)


class Tokenizer:
    """The tokenizer of an encoder.

    Args:
        path: `tokenizer.json`, or the folder that holds it.

    Attributes:
        specials: how many special tokens `wrap` adds.
        pad_id: id of the padding token; `None` without one.

    Raises:
        SourceError: the file is not there or is no tokenizer.
    """

    def __init__(self, path: Path) -> None:
        self._file = file = path / TOKENIZER if path.is_dir() else path
        try:
            self._tokenizer = require("tokenizers", extra="onnx").Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except MissingExtraError:
            raise
        except Exception as error:  # the library raises bare exceptions
            raise SourceError(f"{file} is no tokenizer that can be read; get the encoder's files again") from error
        padding = self._tokenizer.padding
        self.pad_id: int | None = padding["pad_id"] if padding else self._first_of(_PADS)
        # What is read of a text without a token, if there are no special ones either: a row cannot be empty.
        self._nothing = next((one for one in (self.pad_id, self._first_of(_UNKNOWN)) if one is not None), 0)
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._before, self._after = self._ends()
        self.specials = len(self._before) + len(self._after)

    def check(self, known: int) -> None:
        """Refuse weights that know fewer pieces than the tokenizer gives.

        Raises:
            SourceError: they do.
        """
        pieces = self._tokenizer.get_vocab_size(with_added_tokens=False)
        if pieces > known:
            raise SourceError(
                f"{self._file} has {pieces} pieces, and the weights know {known}: they are of different encoders; "
                "take all files of one"
            )

    def encode(self, texts: Iterable[str]) -> list[list[int]]:
        """Return the ids of every text's tokens, all of them, without special ones; half a surrogate pair is U+FFFD."""
        return list(self.read(texts))

    def read(self, texts: Iterable[str]) -> Iterator[list[int]]:
        """Yield what `encode` returns, for texts too long to hold the tokens of all at once."""
        for some in _portions(texts):
            whole = [_HALVES.sub("\ufffd", text) for text in some]  # the library refuses a text with half a pair
            for one in self._tokenizer.encode_batch_fast(whole, add_special_tokens=False):
                yield one.ids

    def wrap(self, ids: Sequence[int]) -> list[int]:
        """Return the ids of a text with the special tokens around them, at least one id."""
        return [*self._before, *ids, *self._after] or [self._nothing]

    def wrap_pair(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the ids of two texts with the special tokens around and between them, and the token types."""
        (before, before_types), (between, between_types), (after, after_types), (one, two) = self._pair
        types = [*before_types, *[one] * len(first), *between_types, *[two] * len(second), *after_types]
        return [*before, *first, *between, *second, *after], types

    @property
    def pair_specials(self) -> int:
        """How many special tokens `wrap_pair` adds."""
        return sum(len(ids) for ids, _ in self._pair[:3])

    @cached_property
    def _pair(self) -> tuple[_Part, _Part, _Part, tuple[int, int]]:
        """Return ids and types of the special tokens before, between and after two texts, and the texts' own types."""
        found = self._tokenizer.encode("a", "a")
        ids, types, owners = found.ids, found.type_ids, found.sequence_ids
        first, second = owners.index(0), owners.index(1)
        between, after = first + owners.count(0), second + owners.count(1)
        parts = [(ids[start:end], types[start:end]) for start, end in ((0, first), (between, second), (after, None))]
        return parts[0], parts[1], parts[2], (types[first], types[second])

    def _first_of(self, tokens: Sequence[str]) -> int | None:
        ids = (self._tokenizer.token_to_id(one) for one in tokens)
        return next((one for one in ids if one is not None), None)

    def _ends(self) -> tuple[list[int], list[int]]:
        found = self._tokenizer.encode("a")
        first = found.special_tokens_mask.index(0)
        count = found.special_tokens_mask.count(0)
        return found.ids[:first], found.ids[first + count :]


class RowModel(ABC):
    """An exported encoder, ready to answer; several threads may use it at once.

    Attributes:
        max_length: the most tokens a row may have, where the file says so.
        pad_id: fills up short rows; a decoder finds a text's last token by it, so it is what the file says.
    """

    max_length: int | None = None
    pad_id: int = 0

    def run(
        self, rows: Sequence[Sequence[int]], *, types: Sequence[Sequence[int]] | None = None, steady: bool = False
    ) -> Array:
        """Return the answers to rows of token ids, float32 (n, columns).

        Args:
            rows: complete ids, special tokens included, of any lengths.
            types: token types beside them; 0 by default.
            steady: whether the last bits of an answer must not depend on the other rows either.

        Raises:
            DataError: a row is empty or longer than the encoder allows.
        """
        lengths = np.array([len(row) for row in rows], np.int64)
        self._check(lengths)
        answers: Array = np.empty((len(rows), self._columns()), np.float32)
        for places, width in self._steady(lengths) if steady else self._plan(lengths):
            found = self._answer(_padded(rows, places, lengths, width, types, self.pad_id))
            if answers.shape[1] != found.shape[1]:
                answers = np.empty((len(rows), found.shape[1]), np.float32)
            answers[places] = found
        return answers

    @abstractmethod
    def _columns(self) -> int:
        """Return how many numbers answer a row; 0 where the file does not say."""

    @abstractmethod
    def _plan(self, lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Yield the places of rows to be answered together, and to which length they are padded."""

    def _steady(self, lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        """Yield what `_plan` does, each row's width told by its own length: sums of floats depend on it."""
        return by_width(lengths, step=_STEP, tokens=_BATCH_TOKENS, most=self.max_length)

    @abstractmethod
    def _answer(self, feed: Feed) -> Array:
        """Return the answers to rows of one length; inputs that the model lacks are left out."""

    def _know(self, about: Mapping[str, str]) -> None:
        """Take over what a file says of itself."""
        self.max_length = int(about[MAX_LENGTH]) if about.get(MAX_LENGTH) else None
        self.pad_id = int(about.get(PAD, 0))

    def _check(self, lengths: NDArray[np.int64]) -> None:
        if len(lengths) and lengths.min() < 1:
            raise DataError("tokens: a row has none; allowed: at least 1, as Tokenizer.wrap gives it")
        if self.max_length is not None and len(lengths) and lengths.max() > self.max_length:
            raise DataError(
                f"tokens: a row has {lengths.max()}; allowed: at most {self.max_length} with the special ones; cut it"
            )


class OnnxModel(RowModel):
    """An exported encoder, run by ONNX Runtime.

    Args:
        path: the ONNX file.
        threads: for the work inside one batch; 0 takes all cores.

    Raises:
        SourceError: the file is not there or ONNX Runtime cannot run it.
    """

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        runtime = require("onnxruntime", extra="onnx")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        # Threads that spin while they wait for each other halve the speed on a machine with other work.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(
                path, options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER
            )
        except Exception as error:  # ONNX Runtime has an exception class of its own for every status
            raise SourceError(f"{path} cannot be run by ONNX Runtime; export the encoder again") from error
        self._inputs = {one.name for one in self._session.get_inputs()}
        self._know(self._session.get_modelmeta().custom_metadata_map)

    def _columns(self) -> int:
        columns = self._session.get_outputs()[0].shape[-1]
        return columns if isinstance(columns, int) else 0

    def _plan(self, lengths: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], int]]:
        return ((places, int(lengths[places].max())) for places in batches(lengths))

    def _answer(self, feed: Feed) -> Array:
        return np.asarray(self._session.run(None, {name: feed[name] for name in self._inputs})[0])


def open_model(path: Path, *, form: str, threads: int = 0) -> RowModel:
    """Return an exported encoder, ready to answer, in the runtime that its form is made for.

    Args:
        path: the ONNX file.
        form: one of `tamiz.encoders.forms.FORMS`.
        threads: for the work inside one batch; 0 takes all cores.

    Raises:
        SourceError: the file is not there or cannot be run.
        MissingExtraError: the runtime is not installed.
    """
    if form != "bf16":
        return OnnxModel(path, threads=threads)
    from tamiz.encoders.openvino import OpenVinoModel

    return OpenVinoModel(path, threads=threads)


def batches(lengths: NDArray[np.int64], *, tokens: int = _BATCH_TOKENS) -> Iterator[NDArray[np.int64]]:
    """Yield the places of rows to be answered together: of like lengths, the longest first.

    Args:
        lengths: tokens of every row.
        tokens: the most in a batch, padding included; a longer row stands alone.
    """
    order = np.argsort(-lengths, kind="stable")
    start = padding = 0
    for place, row in enumerate(order):
        longest = lengths[order[start]]
        padding += longest - lengths[row]
        size = (place - start + 1) * longest
        if place > start and (size > tokens or padding > max(_LEAST_PADDING, _MOST_PADDING * size)):
            yield order[start:place]
            start, padding = place, 0
    if len(order):
        yield order[start:]


def by_width(
    lengths: NDArray[np.int64], *, step: int, tokens: int, most: int | None
) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield the places of rows that are padded to one width, the next multiple of `step`, and that width.

    Args:
        lengths: tokens of every row.
        step: tokens.
        tokens: the most in a batch, padding included; a longer row stands alone.
        most: the longest width.
    """
    widths = -(-lengths // step) * step
    if most is not None:
        widths = widths.clip(max=most)
    for width in np.unique(widths):
        places = np.flatnonzero(widths == width)
        rows = max(1, tokens // int(width))
        for start in range(0, len(places), rows):
            yield places[start : start + rows], int(width)


def _portions(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yield texts in lists, up to so many texts and characters."""
    some: list[str] = []
    characters = 0
    for text in texts:
        if some and (len(some) == _TEXTS or characters + len(text) > _CHARACTERS):
            yield some
            some, characters = [], 0
        some.append(text)
        characters += len(text)
    if some:
        yield some


def _padded(
    rows: Sequence[Sequence[int]],
    places: NDArray[np.int64],
    lengths: NDArray[np.int64],
    width: int,
    types: Sequence[Sequence[int]] | None,
    pad: int,
) -> Feed:
    shape = (len(places), width)
    ids, mask, kinds = (np.full(shape, filler, np.int64) for filler in (pad, 0, 0))
    for line, place in enumerate(places):
        ids[line, : lengths[place]] = rows[place]
        mask[line, : lengths[place]] = 1
        if types is not None:
            kinds[line, : lengths[place]] = types[place]
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": kinds}
