"""Write the latest results into the README, between two markers."""

from __future__ import annotations

from pathlib import Path

from benchmarks.record import HEADINGS, load

__all__ = ["rewrite", "tables"]

README = Path(__file__).parent / "README.md"
_START, _END = "<!-- results -->", "<!-- end of results -->"


def rewrite(folder: Path) -> None:
    """Replace what stands between the markers by the tables of all results in a folder."""
    head, _, rest = README.read_text(encoding="utf-8").partition(_START)
    _, _, tail = rest.partition(_END)
    README.write_text(f"{head}{_START}\n\n{tables(folder)}\n{_END}{tail}", encoding="utf-8")


def tables(folder: Path) -> str:
    """Return the results of a folder as Markdown."""
    parts = []
    for path in sorted(folder.glob("*.json")):
        record, figures = load(path)
        machine, versions = record["machine"], record["versions"]
        lines = [f"### {record['benchmark']}", ""]
        for board in record.get("boards", ()):
            lines += [f"**{board['title']}**", "", _row(board["headings"])]
            lines += [_row(["---", *["---:"] * (len(board["headings"]) - 1)]), *map(_row, board["rows"]), ""]
        lines += [_row(HEADINGS), _row(["---", "---", *["---:"] * (len(HEADINGS) - 2)])]
        lines += [_row(figure.cells()) for figure in figures]
        peers = list(dict.fromkeys(figure.peer_name for figure in figures if figure.peer_name))
        if peers:
            lines += ["", "Peer: " + "; ".join(peers) + "."]
        libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
        lines += [
            "",
            f"`{record['command']}`, {record['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gb']} GB; {libraries}.",
            "",
        ]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
