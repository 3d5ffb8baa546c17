"""Find the weights of an encoder: in a folder, by a name of the catalogue, or by the id of a model on a hub.

Only weights in safetensors form are read. What is on this machine is taken without asking the network.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tamiz.encoders import cache, int8
from tamiz.encoders.catalogue import CATALOGUE, Entry
from tamiz.encoders.known import advice, prepared
from tamiz.errors import ConfigError, MissingExtraError, SourceError, one_of
from tamiz.extras import require
from tamiz.types import Progress

__all__ = ["Weights", "content_of", "find"]

_NEEDED = ("config.json", "tokenizer.json", "model.safetensors")
_SETTINGS = ("config_sentence_transformers.json", "1_Pooling/config.json")
_PATTERNS = ["*.safetensors", "*.json", "*.txt", "*.model"]
_HUB_ID = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_POOLINGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean",  # of another length, which is made 1
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
}
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.bin")


@dataclass(frozen=True, slots=True)
class Weights:
    """The files of an encoder.

    Attributes:
        name: as it was asked for.
        folder: holds config.json, model.safetensors and tokenizer.json in Hugging Face layout.
        sha256: hash of model.safetensors, hexadecimal.
        prefix: text that the model expects before every text.
        pooling: how its authors make one vector of a text: `mean`, `cls` or `max`, or words for another way.
        languages: codes of its languages, `multilingual` for about a hundred; empty where unknown.
    """

    name: str
    folder: Path
    sha256: str
    prefix: str
    pooling: str
    languages: tuple[str, ...]


def find(name: str, *, offline: bool = False, progress: Progress | None = None) -> Weights:
    """Return the weights called `name`.

    Args:
        name: path of a folder in Hugging Face layout, or of one with weights in 8 bits; a name of the catalogue, such
            as `minilm`; or the id of a model on a hub, `organisation/name`, with `@revision` to pin one.
        offline: never ask the network.
        progress: told what takes long.

    Raises:
        ConfigError: the name is none of these.
        SourceError: what is there is damaged or lacks a file, or the hub does not give it.
        MissingExtraError: the model is not on this machine, or a library is not installed; the message says how to get
            it.
    """
    path = Path(name).expanduser()
    if path.is_dir() and (name not in CATALOGUE or (path / "config.json").is_file()):
        return _folder(name, _converted(path, progress))
    if name in CATALOGUE:
        return _known(CATALOGUE[name], progress)
    if path.is_absolute() or name.startswith((".", "~")):
        raise SourceError(f"encoder {name!r}: there is no folder {path.absolute().resolve()}")
    hub = _HUB_ID.fullmatch(name)
    if hub is None:
        raise ConfigError(
            f"encoder {name!r} is not known; {one_of(name, CATALOGUE)}; "
            "or a folder in Hugging Face layout, or a hub id such as organisation/name@revision"
        )
    return _hub(name, hub["id"], hub["revision"], offline=offline, progress=progress)


def content_of(name: str) -> str | None:
    """Return a hash of the files of an encoder in a folder, `None` for names that stand for the same ones always.

    Args:
        name: as `find` takes it.

    Raises:
        SourceError: a file cannot be read.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return None
    files = (folder / file for file in (*_NEEDED, *int8.FILES, *_SETTINGS))
    found = {file.relative_to(folder).as_posix(): cache.checksum(file) for file in files if file.is_file()}
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def _known(entry: Entry, progress: Progress | None) -> Weights:
    folder = prepared(entry, progress)
    if folder is None:
        raise MissingExtraError(f"the encoder {entry.name!r} is not on this machine. {advice(entry)}")
    sha256 = cache.checksum(folder / "model.safetensors")
    return Weights(entry.name, folder, sha256, entry.prefix, "mean", entry.languages)


def _converted(folder: Path, progress: Progress | None) -> Path:
    """Return the folder itself, or where its weights are in 8 bits alone, one in the cache with the same in float32."""
    sources = [folder / name for name in int8.FILES]
    if (folder / "model.safetensors").is_file() or not all(source.is_file() for source in sources):
        return folder
    content = hashlib.sha256("".join(cache.checksum(source) for source in sources).encode()).hexdigest()[:12]
    made = cache.place(f"int8-{content}")
    with cache.locked(made.name, progress):
        files = cache.manifest(made)
        if not files or cache.check(made, files) is not None:
            with cache.make(made, {"source": content}) as target:
                int8.convert(sources, target, progress)
    return made


def _folder(name: str, folder: Path) -> Weights:
    """Check a folder that somebody else made.

    Raises:
        SourceError: a file is missing, or weights are in a form that is never read.
    """
    missing = [needed for needed in _NEEDED if not (folder / needed).is_file()]
    if missing:
        raise SourceError(f"encoder {name!r}: {folder} lacks {', '.join(missing)}. {_remedy(folder, missing)}")
    _check_safetensors(name, folder / "model.safetensors")
    if not isinstance(_json(folder / "config.json").get("model_type"), str):
        raise SourceError(f"encoder {name!r}: config.json in {folder} names no model_type; it is no model's folder")
    sha256 = cache.checksum(folder / "model.safetensors")
    return Weights(name, folder, sha256, _prefix(folder), _pooling(folder), ())


def _remedy(folder: Path, missing: list[str]) -> str:
    """Say why a folder cannot be used as it is, and what to do."""
    if "config.json" in missing:
        below = [path.parent for path in sorted(folder.glob("*/config.json"))]
        return f"Did you mean {below[0]}?" if below else "It must be a folder in Hugging Face layout"
    if "model.safetensors" not in missing:
        return "Write it with: AutoTokenizer.from_pretrained(folder, use_fast=True).save_pretrained(folder)"
    if any((folder / name).is_file() for name in _PICKLED):
        return (
            "PyTorch's .bin files are pickles, which can run any code when they are read, and are never opened here. "
            "Take a revision of the model with safetensors, or convert them where you trust their source"
        )
    if (folder / "model.safetensors.index.json").is_file():
        return "Weights in several files are not supported; save the model anew in one file"
    return "Weights are read in safetensors form only; take a revision of the model that has them"


def _check_safetensors(name: str, path: Path) -> None:
    """Refuse a file that is not as long as its header says; this is a length and that many bytes of JSON."""
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(length)) if length + 8 <= size else {}
        ends = [one["data_offsets"][1] for tensor, one in header.items() if tensor != "__metadata__"]
        whole = 8 + length + max(ends) == size
    except OSError as error:
        raise SourceError(f"encoder {name!r}: {path} cannot be read: {error.strerror}") from error
    except (ValueError, AttributeError, LookupError, TypeError):
        whole = False
    if not whole:
        raise SourceError(f"encoder {name!r}: {path} is damaged, cut off or no safetensors file. Copy it again")


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _prefix(folder: Path) -> str:
    """Return the prompt that the model's own settings put before every text."""
    settings = _json(folder / _SETTINGS[0])
    prompts, chosen = settings.get("prompts"), settings.get("default_prompt_name")
    return str(prompts.get(chosen, "")) if isinstance(prompts, dict) else ""


def _pooling(folder: Path) -> str:
    """Return how vectors are made, as the modules of Sentence Transformers say; the mean where nothing does."""
    settings = _json(folder / _SETTINGS[1])
    named = settings.get("pooling_mode")
    modes = [key for key, value in settings.items() if key.startswith("pooling_mode_") and value is True]
    kinds = [named] if isinstance(named, str) else [_POOLINGS.get(mode, mode) for mode in modes]
    after = sorted(path.parent.name for path in folder.glob("[2-9]_*/config.json") if "Norm" not in path.parent.name)
    return " and ".join([*(kinds or ["mean"]), *after])


def _hub(name: str, repository: str, revision: str | None, *, offline: bool, progress: Progress | None) -> Weights:
    """Take a model from the hub's own cache, else download it."""
    hub = require("huggingface_hub", extra="onnx")
    asked: dict[str, Any] = {"revision": revision, "allow_patterns": _PATTERNS}
    try:
        return _folder(name, Path(hub.snapshot_download(repository, local_files_only=True, **asked)))
    except (OSError, ValueError) as error:  # not in the cache, or only a part of it
        silent = offline or hub.constants.HF_HUB_OFFLINE
        if isinstance(error, SourceError) and silent:
            raise
        if silent:
            raise MissingExtraError(
                f"the encoder {name!r} is not on this machine, there is no folder {Path(name).absolute()} either, "
                "and the network may not be asked. Where it may be, run "
                f"hf download {name.replace('@', ' --revision ')}, and copy the hub's cache folder here; "
                f"or name a folder with the model instead, or one of: {', '.join(sorted(CATALOGUE))}"
            ) from error
    if progress:
        progress(f"download {name}")
    try:
        folder = Path(hub.snapshot_download(repository, **asked))
    except Exception as error:  # the client raises its own errors, the web library's and the system's
        raise SourceError(
            f"the hub does not give {name!r} ({type(error).__name__}), and there is no folder "
            f"{Path(name).absolute()} either. Check the id, the revision, the network and, "
            f"for a gated model, the access token; or name a folder, or one of: {', '.join(sorted(CATALOGUE))}"
        ) from error
    return _folder(name, folder)
