"""Write the latest results into the README, between two markers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.record import HEADINGS, load
from tamiz.classifiers.transformer_params import TransformerParams

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
        lines += _notes(record["details"])
        libraries = ", ".join(f"{name} {number}" for name, number in versions.items())
        lines += [
            "",
            f"`{record['command']}`, {record['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, "
            f"{machine['memory_gb']} GB, load {machine['load_1m']}, OMP_NUM_THREADS={machine['threads']}; {libraries}.",
            "",
        ]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def _notes(details: dict[str, Any]) -> list[str]:
    """Say where a smaller form of an encoder was turned down, with the tolerances that were in force."""
    lines = []
    for name, about in details.items():
        parity = about.get("facts", {}).get("parity", {}) if isinstance(about, dict) else {}
        if parity.get("kept", True):
            continue
        asked, today = parity["tolerance"], TransformerParams()
        lines += [
            "",
            f"`{name}`: the form `{parity['form']}` agreed with fp32 on {100 * parity['agreement']:g} % of "
            f"{parity['texts']} validation texts and moved 99 % of them by at most {parity['shift_99']:.3f}. The run "
            f"asked for {100 * asked['agreement']:g} % and {asked['shift_99']:g} and so kept fp32; the defaults are "
            f"{100 * today.parity_agreement:g} % and {today.parity_shift:g} now.",
        ]
    return lines


def _row(cells: list[str] | tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
