"""The paper's Figures 2 to 5, drawn from the configurations, so that another width is another drawing.

A box is what a layer gives: the wider, the larger the map; the taller, the more channels (both by their logarithm).
The layers are the arrows. Green goes in, purple is the detection net, blue a network of single stars, orange comes out.
Text has 9.5 points or more on 5 inches, so that half a page, or a telephone, is wide enough.
"""

import math
from itertools import chain, pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Patch

from pnet.book.figures import style
from pnet.detection import losses
from pnet.detection import network as detection
from pnet.sky import patches
from pnet.stars import network as stars
from pnet.stars.inputs import CONTEXT, IMAGES
from pnet.stars.predict import SAMPLES
from pnet.stars.weights import SETS

WIDTH, PITCH, FIRST = 5.0, 0.64, 0.28  # inches: of a figure, from row to row, from the edge to the first row
SMALL, LARGE = 9.5, 10.5  # points
INPUT, DETECTION, STARS, OUTPUT, PLAIN = (style.COLOURS[name] for name in ("truth", "purple", "pnet", "sep", "grey"))
GROUND = {"facecolor": "white", "edgecolor": "none", "pad": 1}  # behind words: some viewers have a dark page
KEY = "{1} · {2}²: {1} channels,\n{2} × {2} cells\n→ residual block\n↓ with stride 2\n↑ and doubled\ntwo arrows: sum"
FOCAL = {"soft": "focal, labels soft around a star (CenterNet)", "hard": "focal, α-balanced (Eq. 19)"}
FLUX = {
    "linear": f"flux, in units of {losses.LINEAR_UNIT:,.0f} times the sky noise",
    "log": "ln of the flux in units of the sky noise",
    "correction": "ln of the flux divided by a simple aperture's",
}


def _canvas(height: float) -> tuple[Figure, Axes]:
    """Return a transparent figure and its axes, in inches from the upper left corner."""
    figure, ((ax,),) = style.new(1, 1, height, WIDTH)
    figure.set(layout_engine="none", facecolor="none")
    ax.set(position=(0, 0, 1, 1), xlim=(0, WIDTH), ylim=(height, 0))
    ax.axis("off")
    return figure, ax


def _words(ax: Axes, x: float, y: float, text: str, **options) -> None:
    ax.text(x, y, text, **{"fontsize": SMALL, "va": "center", "linespacing": 1.25, "bbox": GROUND} | options)


def _box(ax: Axes, x: float, y: float, text: str, colour: str, width: float, height: float, dashed=False) -> Patch:
    """Draw a box around its middle; the first of several lines is its title."""
    corner, rounded = (x - width / 2 + 0.04, y - height / 2 + 0.04), "round,pad=0.04,rounding_size=0.06"
    face = "white" if dashed else tuple(0.8 + 0.2 * np.array(to_rgb(colour)))
    look = {"facecolor": face, "edgecolor": colour, "linewidth": 1.3, "linestyle": "--" if dashed else "-"}
    title, _, rest = text.partition("\n")
    options, large = {"ha": "center", "zorder": 3, "bbox": None}, {"fontsize": LARGE}
    _words(ax, x, y - 0.09 * text.count("\n"), title, **options, **large, fontweight="bold" if rest else "normal")
    _words(ax, x, y + 0.09, rest, **options)
    return ax.add_patch(FancyBboxPatch(corner, width - 0.08, height - 0.08, boxstyle=rounded, zorder=2, **look))


def _map(ax: Axes, x: float, y: float, channels: int, side: int, colour=DETECTION, base=0.42, gain=0.1) -> Patch:
    width, height = base + gain * math.log2(side), 0.2 + 0.027 * math.log2(channels)
    return _box(ax, x, y, f"{channels} · {side}²", colour, width, height)


def _arrow(ax: Axes, start: Patch, end: Patch, x: float | None = None) -> None:
    """Draw an arrow from box to box, straight or along a vertical line at `x`; the boxes cover its ends."""
    first, last = (box.get_bbox().get_points().mean(axis=0) for box in (start, end))
    points = [first, last] if x is None else [first, (x, first[1]), (x, last[1]), last]
    line = {"color": "#555555", "linewidth": 1.2}
    ax.plot(*zip(*points[:-1], strict=True), zorder=1, **line)
    head = {"arrowstyle": "-|>,head_width=0.2,head_length=0.4", "shrinkA": 0, "shrinkB": 0, "patchB": end, **line}
    ax.annotate("", points[-1], points[-2], arrowprops=head, zorder=1)


@style.styled
def flowchart(together: str) -> Figure:
    """Return Fig. 2, the way from an image to a catalogue with a set of weights of `pnet.stars.weights.SETS`."""
    names = {kind: name.removeprefix(f"{kind}-") for kind, name in SETS[together].items()}
    config = stars.CONFIGS[names["bpnn"]]
    net = f"BPNN ({names['bpnn']})\n"
    if config.bare:
        zero_point = ("Zero point (Eq. 18)\nmakes fluxes magnitudes, the BPNN's too", PLAIN)
        measured = [zero_point, (f"{net}magnitude and its error, {SAMPLES} draws of the weights", STARS)]
    else:
        fit = ("Fit of the frame's own PSF\nposition and flux of each star; not in the paper", PLAIN)
        zero_point = ("Zero point (Eq. 18)\nmakes fluxes magnitudes", PLAIN)
        measured = [fit, (f"{net}corrects the fit, with errors, {SAMPLES} draws of the weights", STARS), zero_point]
    steps = [
        ("Image\nmasked pixels are filled from around, the sky is taken off", INPUT),
        (f"Patches\n{patches.SIZE} × {patches.SIZE} px, overlapping by {patches.OVERLAP}", INPUT),
        (f"Photometry-Detection Net ({names['detection']})\nposition, flux and confidence of each star", DETECTION),
        *measured,
        (f"Catalogue\npositions{',' if config.bare else ' and'} magnitudes with their errors", OUTPUT),
    ]
    rows = FIRST + 0.76 * np.arange(len(steps))
    figure, ax = _canvas(rows[-1] + FIRST)
    boxes = [_box(ax, 2.76, y, text, colour, 4.4, 0.5) for y, (text, colour) in zip(rows, steps, strict=True)]
    for before, box in pairwise(boxes):
        _arrow(ax, before, box)
    _arrow(ax, boxes[0], boxes[4 if config.bare else 3], 0.35)
    pixels = f"stamps of {config.stamp}² px" if config.bare else "pixels of each star"
    _words(ax, 0.15, rows[2], pixels, rotation=90, ha="center")
    return figure


@style.styled
def detection_net(config: detection.DetectionConfig) -> Figure:
    """Return Fig. 3, for a patch of `patches.SIZE` px: Downsample, hourglasses with every scale's map, PreHeads."""
    left, right, last, depth = 0.95, 2.52, 4.2, len(config.channels)
    tops = [FIRST + (2 + stack * (depth + 1)) * PITCH for stack in range(config.stacks)]
    figure, ax = _canvas(tops[-1] + (depth - 1) * PITCH + FIRST)
    above = _map(ax, left, FIRST + PITCH, config.stem, patches.SIZE // 2)
    _arrow(ax, _map(ax, left, FIRST, 1 + config.inputs.count("+"), patches.SIZE, INPUT), above)
    _words(ax, 1.7, FIRST, f"patch: {config.inputs.replace('+', ' and ')} of signal ÷ noise")
    _words(ax, left + 0.1, FIRST + 0.5 * PITCH, "Downsample: 7 × 7 convolution, stride 2")
    _words(ax, left + 0.1, FIRST + 1.5 * PITCH, "Downsample: residual block, stride 2")
    for stack, top in enumerate(tops, start=1):
        sides = [patches.SIZE // detection.STRIDE >> scale for scale in range(depth)]
        maps = list(zip(top + PITCH * np.arange(depth), config.channels, sides, strict=True))
        down, up = ([_map(ax, x, *one) for one in maps] for x in (left, right))
        features, final = _map(ax, last, *maps[0]), stack == config.stacks
        ways = pairwise([above, *down]), zip(down, up, strict=True), pairwise([*up[::-1], features])
        for start, end in chain(*ways):
            _arrow(ax, start, end)
        _words(ax, (left + right) / 2, top + PITCH / 2, f"hourglass {stack}", ha="center", fontweight="bold")
        text = f"PreHeads {stack}\n" + ("heatmap, offset,\nflux, size" if final else "for training\nonly")
        _arrow(ax, features, _box(ax, last, top + 0.83, text, OUTPUT, 1.25, 0.62, dashed=not final))
        if not final:
            above = _box(ax, left, top + depth * PITCH, "+", PLAIN, 0.24, 0.24)
            _arrow(ax, down[0], above, 0.08)
            _arrow(ax, features, above, WIDTH - 0.06)
            _words(ax, 3, top + (depth - 0.2) * PITCH, "1 × 1 convolution", ha="center")
            _words(ax, left + 0.1, top + (depth + 0.4) * PITCH, "ReLU")
    _words(ax, 3.3, tops[0] + 3.3 * PITCH, KEY.format(*maps[-1]))
    return figure


@style.styled
def preheads(config: detection.DetectionConfig) -> Figure:
    """Return Fig. 4: the four heads, what each gives in every cell and the loss that trains it."""
    side, start, each = patches.SIZE // detection.STRIDE, 0.3, 1.15
    learnt = f"in its cell{' and around it' if config.offset_reach else ''}"
    told = {
        "heatmap": f"confidence that a star is in the cell\nloss: {FOCAL[config.focal]}",
        "offset": f"x and y of the star from the cell's corner, in cells\nloss: mean absolute error, {learnt}",
        "flux": f"{FLUX[config.flux]}\nloss: mean squared error",
        "size": "FWHM of the stars in x and y, in cells\nloss: mean absolute error",
    }
    figure, ax = _canvas(start + each * len(told) + 0.2)
    features = _map(ax, 0.75, start, config.channels[0], side)
    _words(ax, 1.4, start, "features of an hourglass")
    for row, (name, channels) in enumerate(detection.HEAD_CHANNELS.items()):
        y, weight = start + 0.65 + each * row, losses.WEIGHTS[name]
        hidden = _map(ax, 2.05, y, config.head, side)
        _arrow(ax, features, hidden, 0.3)
        _arrow(ax, hidden, _map(ax, 4.2, y, channels, side, OUTPUT))
        _words(ax, 0.45, y - 0.13, "3 × 3, ReLU")
        _words(ax, 3.12, y - 0.13, "1 × 1", ha="center")
        _words(ax, 0.45, y + 0.26, name, fontweight="bold", va="top")
        _words(ax, 1.25, y + 0.26, told[name] + (f", × {weight:g}" if weight != 1 else ""), va="top")
    return figure


@style.styled
def bpnn(config: stars.BPNNConfig) -> Figure:
    """Return Fig. 5: stem, stages of bottleneck blocks, the five linear layers and what comes out."""
    side, context = config.stamp, CONTEXT if config.context else 0
    sees = "pixels of the stamp" if config.bare else "what the fit leaves, star, PSF,\nlight of others, usable pixels"
    maps = [(1 if config.bare else IMAGES, side, INPUT, sees), (config.widths[0], side, STARS, "3 × 3 convolution")]
    for stage, (count, width) in enumerate(zip(config.blocks, config.widths, strict=True)):
        side, channels = -(-side // 2) if stage else side, width * stars.EXPANSION
        title = f"{count} bottleneck block{'s' if count > 1 else ''}{', stride 2' if stage else ''}"
        maps.append((channels, side, STARS, f"{title}:\n1 × 1 to {width}, 3 × 3, 1 × 1 to {channels}"))
    beside = f", and\n{context} numbers of the fit" if context else ""
    vectors = [(channels * side**2 + context, STARS, f"all in a row{beside}")]
    kind, after = "flipout" if config.head == "flipout" else "linear", ", dropout" if config.head == "dropout" else ""
    vectors += [(width, STARS, f"{kind} layer {i}, ReLU{after}") for i, width in enumerate(config.hidden, start=1)]
    means = ", ".join(config.targets).replace("mag", "magnitude")
    means = f"corrections to {means}" if config.target == "correction" else means
    passes = "" if config.head == "plain" else f"\nin {SAMPLES} passes (Eq. 14, 15)"
    vectors.append((2 * len(config.targets), OUTPUT, f"{kind} layer 5: mean and ln σ of\n{means}{passes}"))
    rows = FIRST + PITCH * np.arange(len(maps) + len(vectors))
    figure, ax = _canvas(rows[-1] + FIRST)
    boxes = [_map(ax, 1.15, y, *one[:3], 0.7, 0.25) for y, one in zip(rows, maps, strict=False)]
    for y, (n, colour, _) in zip(rows[len(maps) :], vectors, strict=True):
        boxes.append(_box(ax, 1.15, y, str(n), colour, 0.4 + 0.13 * math.log2(n), 0.28))
    for start, end in pairwise(boxes):
        _arrow(ax, start, end)
    for y, (*_, note) in zip(rows, maps + vectors, strict=True):
        _words(ax, 2.4, y, note)
    return figure
