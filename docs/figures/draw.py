"""Draw the three diagrams of the documents: `python docs/figures/draw.py` writes the SVG files beside it.

The same script gives the same bytes: the ids inside the SVG files are salted with a fixed word and no date is written.
`--png FOLDER` writes PNG files there as well, to look at.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

SETTINGS = {"svg.hashsalt": "dupmae", "svg.fonttype": "path", "font.family": "DejaVu Sans", "font.size": 9}
HERE = Path(__file__).parent
INK, SOFT = "#1f2937", "#64748b"
Colour = tuple[str, str]  # line and area
GREY: Colour = ("#64748b", "#f1f5f9")
BLUE: Colour = ("#1d4ed8", "#dbeafe")  # the dense half
GREEN: Colour = ("#15803d", "#dcfce7")  # the lexical half
AMBER: Colour = ("#b45309", "#ffedd5")  # what is masked, or may be left out
Point = tuple[float, float]


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty white drawing whose coordinates are tenths of an inch, from the lower left corner."""
    figure = Figure(figsize=(width / 10, height / 10), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return figure, axes


def box(
    axes: Axes, place: Point, extent: Point, text: str, colour: Colour = GREY, *, dashed: bool = False, **font: object
):
    """A rounded box with text in its middle; `place` is its lower left corner."""
    line, area = colour
    patch = FancyBboxPatch(
        place, *extent, boxstyle="round,pad=0,rounding_size=0.8", fc=area, ec=line, lw=1.1, ls="--" if dashed else "-"
    )
    axes.add_patch(patch)
    axes.text(
        place[0] + extent[0] / 2,
        place[1] + extent[1] / 2,
        text,
        **{"ha": "center", "va": "center", "color": INK} | font,
    )


def say(axes: Axes, place: Point, text: str, **font: object) -> None:
    """Text without a box, beginning at a point."""
    axes.text(*place, text, **{"ha": "left", "va": "center", "color": SOFT} | font)


def arrow(axes: Axes, points: Sequence[Point], colour: str = SOFT, *, dashed: bool = False) -> None:
    """A line through points, with a head at the last one."""
    for begin, end in pairwise(points[:-1]):
        axes.plot(
            *zip(begin, end, strict=True), color=colour, lw=1.2, ls="--" if dashed else "-", solid_capstyle="round"
        )
    axes.add_patch(
        FancyArrowPatch(
            *points[-2:], arrowstyle="-|>", mutation_scale=9, shrinkA=0, shrinkB=0, color=colour, lw=1.2,
            ls="--" if dashed else "-",
        )
    )  # fmt: skip


def encoder() -> Figure:
    """One encoder, three losses (Eq. 1-9)."""
    figure, axes = canvas(100, 60)
    words = ["[CLS]", "a", "lamp", "and", "a", "lens", "make", "a", "beam"]
    masked = {2, 6}
    width = 6.4
    lefts = [13.5, *(28 + 7.2 * number for number in range(8))]
    right = lefts[-1] + width
    rows = {"text": 3.9, "30 % of its\nwords masked": 11.5, "states": 28.1, "= L   (Eq. 9)": 53.6}
    for label, height in rows.items():
        say(axes, (right + 1.8, height), label)
    for number, (x, word) in enumerate(zip(lefts, words, strict=True)):
        centre = x + width / 2
        kind = BLUE if number == 0 else AMBER if number in masked else GREEN
        if number:
            box(axes, (x, 2.1), (width, 3.6), word)
            arrow(axes, [(centre, 5.7), (centre, 9.7)])
        box(axes, (x, 9.7), (width, 3.6), "[MASK]" if number in masked else word, AMBER if number in masked else GREY)
        arrow(axes, [(centre, 13.3), (centre, 16.4)])
        arrow(axes, [(centre, 22.4), (centre, 26.3)])
        box(axes, (x, 26.3), (width, 3.6), "$h_{cls}$" if number == 0 else f"$h_{number}$", kind)
        arrow(axes, [(centre, 29.9), (centre, 34.6)], kind[0])
    box(axes, (lefts[0], 16.4), (right - lefts[0], 6), "encoder (all its layers)", weight="bold")

    text = "decoder of one layer;\neach row sees $h_{cls}$ and a\nrandom half of the text"
    box(axes, (1.5, 34.6), (23, 9.4), text, BLUE, size=8.5)
    arrow(axes, [(lefts[1], 3.9), (6, 3.9), (6, 34.6)], dashed=True)
    arrow(axes, [(13, 44), (13, 49.2)], BLUE[0])
    box(axes, (1.5, 49.2), (23, 8.8), "predicts every word of the text\n$L_{dec}$   (Eq. 2-5)", BLUE)

    box(axes, (lefts[1], 34.6), (right - lefts[1], 3.8), "vocabulary head: a logit for every term")
    arrow(axes, [(38.5, 38.4), (38.5, 49.2)], AMBER[0])
    box(axes, (28, 49.2), (21, 8.8), "predicts masked words\n$L_{mlm}$   (Eq. 1)", AMBER)
    arrow(axes, [(69, 38.4), (69, 40.8)], GREEN[0])
    box(axes, (52.5, 40.8), (right - 52.5, 4.4), "μ: each term's maximum over the visible words", GREEN, size=8.5)
    arrow(axes, [(69, 45.2), (69, 49.2)], GREEN[0])
    box(axes, (52.5, 49.2), (right - 52.5, 8.8), "predicts the set of the text's words\n$L_{bow}$   (Eq. 6-8)", GREEN)
    for x in (26.25, 50.75):
        say(axes, (x, 53.6), "+", ha="center", size=13)
    return figure


def run_folder() -> Figure:
    """The folders of a run, and what each one is made from."""
    figure, axes = canvas(100, 53)
    width, height = 17.0, 7.2
    top, middle, low = 43.5, 25.5, 9.0
    places = {
        "index": (21, top, "the corpus, searchable", GREEN),
        "8-evaluation": (41, top, "test queries, ranked", GREEN),
        "report.md": (61, top, "tables and figures", GREEN),
        "9-baselines": (81, top, "what to compare with", GREY),
        "1-store": (1, middle, "the corpus as tokens", GREY),
        "2-pretrain": (21, middle, "checkpoint (Eq. 1-9)", GREY),
        "3-finetune": (41, middle, "stage 1 (Eq. 13)", BLUE),
        "5-hard-negatives": (61, middle, "stage 2 (Eq. 14)", AMBER),
        "7-distil": (81, middle, "stage 3 (Eq. 15)", AMBER),
        "4-mine": (51, low, "hard negatives", AMBER),
        "6-teacher": (73, low, "scores of the lists", AMBER),
    }
    for name, (x, y, what, colour) in places.items():
        box(axes, (x, y), (width, height), "", colour, dashed=colour is AMBER)
        axes.text(x + width / 2, y + 4.8, name, ha="center", va="center", color=INK, weight="bold", size=8.5)
        axes.text(x + width / 2, y + 2.2, what, ha="center", va="center", color=SOFT, size=7.5)
    for begin, end in (("1-store", "2-pretrain"), ("2-pretrain", "3-finetune"), ("3-finetune", "5-hard-negatives"),
                       ("5-hard-negatives", "7-distil"), ("index", "8-evaluation"), ("8-evaluation", "report.md"),
                       ("4-mine", "6-teacher")):  # fmt: skip
        y = places[begin][1] + height / 2
        optional = places[end][3] is AMBER
        arrow(
            axes, [(places[begin][0] + width, y), (places[end][0], y)], AMBER[0] if optional else SOFT, dashed=optional
        )
    arrow(axes, [(81, top + height / 2), (78, top + height / 2)])

    ceiling, bus = middle + height, 38.0  # the last of stages 1 to 3 is indexed
    for x in (49.5, 69.5, 89.5):
        axes.plot((x, x), (ceiling, bus), color=BLUE[0] if x < 50 else AMBER[0], lw=1.2, ls="-" if x < 50 else "--")
    axes.plot((29.5, 89.5), (bus, bus), color=GREEN[0], lw=1.2)
    arrow(axes, [(29.5, bus), (29.5, top)], GREEN[0])
    say(axes, (31, bus + 1.6), "the model of the last stage", size=7.5)

    roof = low + height
    arrow(axes, [(54.5, middle), (54.5, roof)], AMBER[0], dashed=True)
    arrow(axes, [(65, roof), (65, middle)], AMBER[0], dashed=True)
    arrow(axes, [(86, roof), (86, middle)], AMBER[0], dashed=True)
    arrow(axes, [(29.5, middle), (29.5, 4.5), (81.5, 4.5), (81.5, low)], AMBER[0], dashed=True)
    say(axes, (31, 6.1), "the teacher begins here, unless another is named", size=7.5)

    axes.plot((1.5, 5), (13.4, 13.4), color=AMBER[0], lw=1.2, ls="--")
    say(axes, (6, 13.4), "with stages: 2 or 3", size=7.5)
    return figure


def rooms() -> Figure:
    """The rooms of the package, from the one that knows all to those that know none."""
    figure, axes = canvas(100, 65)
    floors: list[list[tuple[str, str, Colour]]] = [
        [("cli", "what people type", GREY)],
        [("serving", "the HTTP server, its page, tools of assistants", GREEN)],
        [("experiments", "run, adapt, variants, reproduce: stages, folders, reports", GREY)],
        [("finetuning", "stages 1 to 3, mining, the teacher", BLUE)],
        [("evaluation", "what measures: benchmarks' rules, metrics, significance, reports", GREEN)],
        [("retrievers", "what ranks: BM25, brute force, encoders, windows, rerankers", GREEN)],
        [("index", "storage, scoring, writing, engines", GREEN)],
        [("duplex", "representation, encoder", BLUE), ("pretraining", "Eq. 1-9", BLUE)],
        [("backbones", "model families, loading, from scratch", BLUE)],
        [("models", "names, packing", GREY), ("corpus", "text, pairs, benchmarks", GREEN)],
        [("runtime", "processes, logs, resuming, places of caches", GREY)],
        [("config", "every setting", GREY), ("files", "whole or not at all", GREY)],
        [("errors", "DupmaeError", GREY), ("kernels", "vocabulary-sized loops", GREY)],
    ]  # fmt: skip
    height, gap, whole = 3.9, 0.95, 84.0
    for floor, parts in enumerate(floors):
        y = 65 - 1.5 - (floor + 1) * height - floor * gap
        width = (whole - gap * (len(parts) - 1)) / len(parts)
        for place, (name, what, colour) in enumerate(parts):
            x = 1.5 + place * (width + gap)
            box(axes, (x, y), (width, height), "", colour)
            axes.text(x + 1.4, y + height / 2, name, ha="left", va="center", color=INK, weight="bold")
            inset = 14 if len(parts) < 3 else 10.5
            axes.text(x + inset, y + height / 2, what, ha="left", va="center", color=SOFT, size=8)
    arrow(axes, [(89.5, 63), (89.5, 2)])
    for y, name, colour in ((59, "the model", BLUE), (54, "data, search,\nmeasures", GREEN)):
        box(axes, (90.7, y - 0.7), (1.4, 1.4), "", colour)
        say(axes, (92.7, y), name, size=7)
    say(axes, (91, 30), "a room\nimports\nonly rooms\nbelow it", size=8.5)
    return figure


DRAWINGS = {"encoder": encoder, "run-folder": run_folder, "rooms": rooms}


def main() -> None:
    """Write the diagrams."""
    parser = argparse.ArgumentParser(description="Draw the diagrams of the documents as SVG files.")
    parser.add_argument("--png", type=Path, help="folder for PNG files of them, too")
    folder = parser.parse_args().png
    with matplotlib.rc_context(SETTINGS):
        for name, draw in DRAWINGS.items():
            figure = draw()
            figure.savefig(HERE / f"{name}.svg", metadata={"Date": None, "Creator": None})
            if folder is not None:
                figure.savefig(folder / f"{name}.png", dpi=130)


if __name__ == "__main__":
    main()
