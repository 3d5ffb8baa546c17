"""Guess from a sample of a data set which columns hold the text, the label, an identifier and a time, and the task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tamiz.data.leaks import label_warnings, leak_warnings
from tamiz.data.profiles import Profile, find_separator, plain_name, profile
from tamiz.data.readers import FileSource, open_source
from tamiz.errors import ColumnError, DataError, one_of
from tamiz.types import Task

__all__ = ["ColumnGuess", "Sniffed", "sniff"]

# Rows and bytes looked at, so that data sorted by label still shows more than one; the sample is spread over them.
_SCAN_FACTOR = 20
_SCAN_BYTES = 1 << 28

_TEXT_NAMES = (
    *("text", "texto", "texte", "document", "content", "contenido", "contenu", "body", "cuerpo", "message", "mensaje"),
    *("review", "resena", "avis", "comment", "comentario", "commentaire", "narrative", "plot", "description"),
    *("descripcion", "tweet", "sentence", "frase", "phrase", "utterance", "query", "article", "question", "pregunta"),
)
_LABEL_NAMES = (
    *("label", "labels", "etiqueta", "etiquetas", "etiquette", "etiquettes", "target", "objetivo", "cible"),
    *("class", "clase", "classe", "classes", "category", "categories", "categoria", "categorias", "categorie"),
    *("sentiment", "sentimiento", "polarity", "polaridad", "genre", "genres", "genero", "generos", "topic", "topics"),
    *("tema", "temas", "sujet", "theme", "intent", "intents", "intencion", "intention", "tag", "tags", "y", "emotion"),
    *("emocion", "spam", "toxic", "product", "producto", "produit", "type", "tipo", "section", "department"),
    *("rating", "ratings", "stars", "score", "scores", "grade", "priority", "queue", "outcome", "verdict", "status"),
)
# What describes a row rather than its text: the label only where there is nothing else.
_SELDOM_LABELS = ("split", "fold", "set", "subset", "lang", "language", "idioma", "langue", "locale", "verified")
_ID_NAMES = (
    "id",
    "ids",
    "uuid",
    "guid",
    "identifier",
    "identificador",
    "identifiant",
    "key",
    "clave",
    "index",
    "number",
)
_TIME_NAMES = (
    *("date", "time", "timestamp", "datetime", "fecha", "hora", "heure", "jour", "created", "received", "published"),
    *("posted", "created_at", "day"),
)
_LABEL_KINDS = ("list", "text", "boolean", "integer")

# Ranks of column names: below `_BY_WORD` the whole name fits, below `_BY_NOTHING` one of its words.
_BY_WORD = 1000
_BY_NOTHING = 10_000

_LEAST_WORDS = 2.0
_LEAST_DISTINCT_TEXTS = 0.1
_NAMED_TEXT_FACTOR = 3.0
_ID_LENGTH = 64
_UNNAMED_ID_ROWS = 20


@dataclass(frozen=True, slots=True)
class ColumnGuess:
    """What was seen of a column.

    Attributes:
        name: the column's name.
        type: `text`, `list`, `boolean`, `integer`, `number` or `date`.
        missing: share of rows without a value, 0 to 1.
        distinct: number of different values.
        mean_length: characters of a value, on average.
        role: `text`, `label`, `id`, `time`, or `None`.
    """

    name: str
    type: str
    missing: float
    distinct: int
    mean_length: float
    role: str | None


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What a data set seems to be.

    Attributes:
        place: where it lies.
        text: column with the text.
        label: column with the label.
        id: column that identifies a row, if any.
        time: column with a date or time, if any.
        reasons: why, for each of `text`, `label`, `id` and `time` that was found.
        task: what kind of classifier the labels ask for.
        separator: what parts several labels in one cell; `None` for single labels and for real lists.
        labels: how often each label occurs in the sample, most frequent first.
        columns: all columns, in order.
        rows: number of rows in the sample that everything here was computed from.
        complete: whether the sample is the whole data set.
        warnings: what a person should look at before training.
    """

    place: str
    text: str
    label: str
    id: str | None
    time: str | None
    reasons: Mapping[str, str]
    task: Task
    separator: str | None
    labels: Mapping[str, int]
    columns: tuple[ColumnGuess, ...]
    rows: int
    complete: bool
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the same as values that JSON can hold."""
        return {**asdict(self), "task": str(self.task), "warnings": list(self.warnings)}


def sniff(
    place: str,
    *,
    encoding: str | None = None,
    rows: int = 10_000,
    text: str | None = None,
    label: str | None = None,
) -> Sniffed:
    """Look at a data set and guess what its columns mean.

    Args:
        place: file, folder, glob pattern or `s3://` address.
        encoding: encoding of text formats; by default detected.
        rows: largest number of rows to compute from; they are spread over the first `20 * rows` rows.
        text: the text column, where the user named it.
        label: the label column, where the user named it.

    Raises:
        ColumnError: a named column is not there.
        DataError: no column can be the text, or none the label.
        SourceError: the place cannot be read.
    """
    source = open_source([place], encoding=encoding, text=text or "text", label=label or "label")
    sample, complete = _sample(source, rows)
    columns = {name: profile(name, values) for name, values in sample.items()}
    count = len(next(iter(sample.values()), ()))
    if not count:
        said = f"{place} has a header and no rows; texts with labels are expected"
        raise DataError(". ".join((said, *source.notices)))  # such as that other sheets were passed over
    for named in filter(None, (text, label)):
        if named not in columns:
            raise ColumnError(f"{place} has no column {named!r}; {one_of(named, columns)}")
    roles = _roles(place, columns, text, label)
    chosen = columns[roles["label"][0]]
    separator = find_separator(chosen)
    counts = chosen.label_counts(separator)
    warnings = [
        *source.notices,
        *_unnamed(roles, counts),
        *label_warnings(chosen, counts, complete=complete),
        *_repeated_ids(columns, roles),
        *leak_warnings([c for c in columns.values() if c.name not in _taken(roles)], chosen),
    ]
    return Sniffed(
        place=place,
        text=roles["text"][0],
        label=roles["label"][0],
        id=roles["id"][0] if "id" in roles else None,
        time=roles["time"][0] if "time" in roles else None,
        reasons={role: reason for role, (_, reason) in roles.items()},
        task=_task(chosen, separator, len(counts)),
        separator=separator,
        labels=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        columns=tuple(_guess(column, roles) for column in columns.values()),
        rows=count,
        complete=complete,
        warnings=tuple(warnings),
    )


def _guess(column: Profile, roles: Mapping[str, tuple[str, str]]) -> ColumnGuess:
    role = next((role for role, (name, _) in roles.items() if name == column.name), None)
    mean_length = round(column.mean_length, 1)
    return ColumnGuess(column.name, column.kind, round(column.missing, 4), column.distinct, mean_length, role)


def _task(column: Profile, separator: str | None, labels: int) -> Task:
    if column.kind == "list" or separator:
        return Task.MULTI_LABEL
    return Task.BINARY if labels == 2 else Task.MULTI_CLASS


# --- the sample


def _sample(source: FileSource, rows: int) -> tuple[dict[str, list[Any]], bool]:
    """Take every n-th row, n a power of two that keeps at most `rows`; also tell whether that is all there is."""
    sample: dict[str, list[Any]] = {}
    kept = seen = 0
    stride = 1
    size = 0
    for batch in _batches(source):
        if seen >= rows * _SCAN_FACTOR or size >= _SCAN_BYTES:
            return sample, False
        first = -seen % stride
        taken = (
            batch[first:].take(list(range(0, batch.num_rows - first, stride))) if first < batch.num_rows else batch[:0]
        )
        for name in batch.schema.names:
            sample.setdefault(name, [None] * kept)
        for name, values in sample.items():
            column = taken.column(name).to_pylist() if name in batch.schema.names else [None] * taken.num_rows
            values.extend(column)
        kept += taken.num_rows
        seen += batch.num_rows
        size += batch.nbytes
        while kept > rows:
            sample = {name: values[::2] for name, values in sample.items()}
            kept, stride = (kept + 1) // 2, stride * 2
    return sample, stride == 1


def _batches(source: FileSource) -> Iterator[Any]:
    for path in source.paths():
        yield from source.batches(path)


# --- the roles


def _roles(
    place: str, columns: Mapping[str, Profile], text: str | None, label: str | None
) -> dict[str, tuple[str, str]]:
    """Return column and reason for each role that was found."""
    named = "named by you"
    rest = {name: column for name, column in columns.items() if name != label}
    roles = {"text": (text, named) if text else _text_role(place, rest)}
    rest = {name: column for name, column in columns.items() if name != roles["text"][0]}
    roles["label"] = (label, named) if label else _label_role(place, rest, list(columns))
    for role, find in (("time", _time_role), ("id", _id_role)):
        rest = {name: column for name, column in columns.items() if name not in _taken(roles)}
        if found := find(rest):
            roles[role] = found
    return roles


def _taken(roles: Mapping[str, tuple[str, str]]) -> set[str]:
    return {name for name, _ in roles.values()}


def _rank(name: str, preferred: Sequence[str]) -> int:
    """Return how well a column's name fits: its place among the names, later if only a word of it fits."""
    plain = plain_name(name)
    if plain in preferred:
        return preferred.index(plain)
    words = [preferred.index(word) for word in plain.split("_") if word in preferred]
    return _BY_WORD + min(words) if words else _BY_NOTHING


def _none_found(place: str, what: str, why: str, names: Sequence[str]) -> DataError:
    return DataError(
        f"{place}: no column seems to hold the {what} ({why}). "
        f"Columns: {', '.join(names)}. "
        f"Name it: tamiz init {place} --{what} COLUMN, or `data.{what}` in the project file"
    )


def _text_role(place: str, columns: Mapping[str, Profile]) -> tuple[str, str]:
    def is_free_text(column: Profile) -> bool:
        varied = column.distinct >= max(2, _LEAST_DISTINCT_TEXTS * column.present)
        return column.kind == "text" and varied and column.mean_words >= _LEAST_WORDS

    def weight(column: Profile) -> float:
        return column.mean_length * (_NAMED_TEXT_FACTOR if _rank(column.name, _TEXT_NAMES) < _BY_WORD else 1)

    free = [column for column in columns.values() if is_free_text(column)]
    if free:
        best = max(free, key=weight)
        return best.name, f"longest free text, {best.mean_length:.0f} characters on average"
    named = [c for c in columns.values() if c.kind == "text" and c.present and _rank(c.name, _TEXT_NAMES) < _BY_WORD]
    if named:
        best = min(named, key=lambda column: _rank(column.name, _TEXT_NAMES))
        return best.name, "its name"
    raise _none_found(place, "text", "values of several words that differ from row to row", list(columns))


def _label_role(place: str, columns: Mapping[str, Profile], names: Sequence[str]) -> tuple[str, str]:
    ranked = []
    for column in columns.values():
        labels = _label_count(column)
        if labels:
            kind = _LABEL_KINDS.index(column.kind) if column.kind in _LABEL_KINDS else len(_LABEL_KINDS)
            seldom = _rank(column.name, _SELDOM_LABELS) < _BY_NOTHING
            ranked.append((seldom, _rank(column.name, _LABEL_NAMES), kind, labels, column.name))
    if not ranked:
        _refuse_one_label(place, columns)
        raise _none_found(place, "label", "few different values, each in several rows", names)
    _, rank, _, labels, name = min(ranked)
    return name, f"{labels} different labels" + (
        " and its name" if rank < _BY_NOTHING else "; the fewest of all columns"
    )


def _refuse_one_label(place: str, columns: Mapping[str, Profile]) -> None:
    """Say so where a column with a label's name holds the same in every row."""
    for column in columns.values():
        if _rank(column.name, _LABEL_NAMES) < _BY_WORD and column.distinct == 1:
            raise DataError(
                f"{place}: column {column.name!r} holds the same label in every row; a classifier needs at least two "
                "labels. Add rows with another one"
            )


def _label_count(column: Profile) -> int:
    """Return the number of labels if the column may hold labels, else 0; a fitting name allows more of them."""
    named = _rank(column.name, _LABEL_NAMES) < _BY_WORD
    if column.kind == "date" or (column.kind == "number" and not named):
        return 0
    labels = len(column.label_counts(find_separator(column)))
    if named:
        most = max(2, column.present - 1)
    elif column.kind in ("integer", "number"):
        most = min(20, column.present // 2)
    else:
        most = int(min(column.present / 2, max(20, 0.1 * column.present)))
    return labels if 2 <= labels <= most else 0


def _time_role(columns: Mapping[str, Profile]) -> tuple[str, str] | None:
    dates = [column for column in columns.values() if column.kind == "date"]
    if not dates:
        return None
    best = min(dates, key=lambda column: (_rank(column.name, _TIME_NAMES), column.missing))
    missing = f", missing in {best.missing:.0%} of rows" if best.missing else ""
    return best.name, f"its values are dates or times{missing}"


def _looks_like_id(column: Profile) -> bool:
    single_words = column.kind == "integer" or (column.kind == "text" and column.mean_words <= 1)
    return single_words and column.mean_length <= _ID_LENGTH and not column.missing


def _id_role(columns: Mapping[str, Profile]) -> tuple[str, str] | None:
    unique = [c for c in columns.values() if _looks_like_id(c) and c.distinct == len(c.values)]
    ranked = sorted((_rank(column.name, _ID_NAMES), place) for place, column in enumerate(unique))
    if not ranked or (ranked[0][0] >= _BY_NOTHING and len(unique[0].values) < _UNNAMED_ID_ROWS):
        return None
    rank, place = ranked[0]
    return unique[place].name, "short and different in every row" + (", and its name" if rank < _BY_NOTHING else "")


def _unnamed(roles: Mapping[str, tuple[str, str]], labels: Mapping[str, int]) -> list[str]:
    """Say so where the columns seem to be named by a first row of data: by a label, and by words as texts have them."""
    text, label = roles["text"][0], roles["label"][0]
    if label not in labels or len(text.split()) < _LEAST_WORDS:
        return []
    return [
        f"the first line seems to be a row of data, since {label!r} is a label too; it is taken for the names of the "
        "columns. Put a line with names above it"
    ]


def _repeated_ids(columns: Mapping[str, Profile], roles: Mapping[str, tuple[str, str]]) -> list[str]:
    if "id" in roles:
        return []
    alike = [c for c in columns.values() if c.name not in _taken(roles) and _rank(c.name, _ID_NAMES) < _BY_WORD]
    return [
        f"column {c.name!r} is named like an identifier but {c.present - c.distinct} of its values are repeated"
        for c in alike
        if _looks_like_id(c)
    ]
