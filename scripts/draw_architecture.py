"""Draw docs/pictures/architecture.svg: the packages on their floors, arrows for their imports.

python scripts/draw_architecture.py
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "rd_lightning"
PICTURE = ROOT / "docs" / "pictures" / "architecture.svg"
NOT_DRAWN = {"mini", "conf", "errors", "__main__"}
"""Data, the exceptions that every package imports, and ``python -m rd_lightning``."""
COMMANDS = ("embed", "evaluate", "fit", "merge", "search")
PLACES: dict[str, tuple[float, int, str]] = {
    "search": (-1.5, 6, "rd-search"),
    "embed": (0.6, 6, "rd-embed"),
    "evaluate": (2.7, 6, "rd-evaluate"),
    "fit": (4.8, 6, "rd-fit"),
    "merge": (6.9, 6, "rd-merge"),
    "evaluation": (2.7, 5, "assays, probes, statistics"),
    "export": (-1.6, 4, "ONNX, torch.export"),
    "retrieval": (1.2, 4, "index, search, hits"),
    "metrics": (7.4, 4, "torchmetrics of a head"),
    "fitting": (4.8, 4, "FASTA to moments to head"),
    "embedding": (0.6, 3, "FASTA to embeddings"),
    "distillation": (3.5, 3, "moments, regression, solve"),
    "head": (1.0, 2, "RDHead, files, Hub"),
    "cli": (8.4, 2, "Hydra, trainer"),
    "families": (1.0, 1, "backbones, weights"),
    "formats": (-1.6, 1, "embedding files"),
    "display": (5.6, 1, "console, figures"),
    "pages": (8.4, 1, "reports in a browser"),
    "data": (1.0, 0, "FASTA, windows, batches"),
    "runtime": (5.6, 0, "files, ranks, precision"),
}
"""Of each package: column, floor, what it is for."""
COLOURS = ("#dfe7f1", "#dcebe3", "#f3edd8", "#f5e3da", "#ece2f1", "#dcebef", "#f3e1e6")


def packages() -> dict[str, list[Path]]:
    """Source files of each package; a command is a file of its own."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if name not in NOT_DRAWN and name != "__init__":
            found.setdefault(name, []).append(path)
    return found


def edges() -> set[tuple[str, str]]:
    """(package, package that it imports), parsed from the sources."""
    found = set()
    for name, paths in packages().items():
        for path in paths:
            depth = len(path.relative_to(PACKAGE).parts)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ImportFrom) and node.level == depth:
                    targets = [node.module] if node.module else [a.name for a in node.names]
                    found |= {(name, target.split(".")[0]) for target in targets}
    return {(a, b) for a, b in found if a != b and b in packages()}


def direct_edges() -> set[tuple[str, str]]:
    """Without those that follow from others: a -> c where a -> b -> ... -> c."""
    known = edges()

    def reaches(start: str, end: str) -> bool:
        return any(b == end or reaches(b, end) for a, b in known if a == start)

    def implied(a: str, c: str) -> bool:
        return any(reaches(b, c) for x, b in known if x == a and b != c)

    return {(a, c) for a, c in known if not implied(a, c)}


def drawn_edges(picture: Path = PICTURE) -> set[tuple[str, str]]:
    """What the picture in the documentation shows; it holds its own list."""
    found = re.search(r"<dc:description>(.*?)</dc:description>", picture.read_text(), re.DOTALL)
    assert found is not None
    return {(a, b) for a, b in json.loads(found[1])}


def draw(picture: Path = PICTURE) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    width, height, gap = 1.9, 0.62, 1.25
    plt.rcParams.update({"svg.fonttype": "path", "svg.hashsalt": "rd_lightning"})
    figure, axes = plt.subplots(figsize=(11.5, 8.6))

    def box(x, y, w, h, **style) -> None:
        shape = FancyBboxPatch(
            (x - w / 2, y - h / 2), w, h, boxstyle="round,pad=0,rounding_size=0.09", **style
        )
        axes.add_patch(shape)

    def arrow(start, end) -> None:
        axes.add_patch(
            FancyArrowPatch(
                start,
                end,
                arrowstyle="-|>",
                mutation_scale=13,
                color="#5a6472",
                linewidth=1.1,
                shrinkA=0,
                shrinkB=1,
                zorder=2,
            )
        )

    left, right = -3.05, 9.5
    for floor in range(7):
        axes.axhspan(
            floor * gap - gap / 2, floor * gap + gap / 2, color=("#ffffff", "#f7f8fa")[floor % 2]
        )
        axes.text(left + 0.08, floor * gap, str(floor + 1), color="#8a93a0", va="center", size=11)
    for name, (x, floor, purpose) in PLACES.items():
        y = floor * gap
        box(x, y, width, height, facecolor=COLOURS[floor], edgecolor="#4a5360", lw=1.1, zorder=3)
        axes.text(x, y + 0.1, name, ha="center", va="center", weight="bold", size=11.5, zorder=4)
        axes.text(x, y - 0.15, purpose, ha="center", va="center", size=8.2, zorder=4)
    base = -gap * 0.95
    box(3.4, base, 11.9, 0.46, facecolor="#eceff2", edgecolor="#4a5360", lw=1.1, zorder=3)
    axes.text(3.4, base, "errors: InputError, imported by all", ha="center", va="center", size=10)
    axes.texts[-1].set_zorder(4)
    axes.text(left + 0.08, base, "0", color="#8a93a0", va="center", size=11)

    # All commands import cli: one arrow from the frame around them.
    frame = (PLACES["search"][0] + PLACES["merge"][0]) / 2
    box(frame, 6 * gap, 10.7, 0.92, facecolor="none", edgecolor="#9aa3af", lw=1, ls="--", zorder=1)
    x, floor, _ = PLACES["cli"]
    arrow((frame + 5.35, 6 * gap - 0.1), (x, floor * gap + height / 2))

    outgoing: dict[str, list[str]] = {}
    incoming: dict[str, list[str]] = {}
    for a, b in sorted(direct_edges(), key=lambda e: (PLACES[e[0]][0], PLACES[e[1]][0])):
        if b != "cli" or a not in COMMANDS:
            outgoing.setdefault(a, []).append(b)
            incoming.setdefault(b, []).append(a)

    def port(here: str, there: str, others: list[str]) -> float:
        """Where on a box's edge an arrow ends: side by side, in the order of the other ends."""
        ordered = sorted(others, key=lambda n: PLACES[n][0] - PLACES[here][0])
        step = min(0.5, 1.3 / len(ordered))
        return PLACES[here][0] + (ordered.index(there) - (len(ordered) - 1) / 2) * step

    for a, below in outgoing.items():
        for b in below:
            start = (port(a, b, below), PLACES[a][1] * gap - height / 2)
            end = (port(b, a, incoming[b]), PLACES[b][1] * gap + height / 2)
            arrow(start, end)
    axes.set(xlim=(left, right), ylim=(base - 0.4, 6 * gap + 0.62))
    axes.set_axis_off()
    figure.tight_layout(pad=0.3)
    about = {"Date": None, "Description": json.dumps(sorted(edges()))}
    figure.savefig(picture, metadata=about)
    plt.close(figure)


if __name__ == "__main__":
    draw()
