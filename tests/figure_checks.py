"""What every figure is checked for."""

import matplotlib
import pytest
from PIL import Image

from pnet.book.figures import style


def panels(figure):
    return [ax for ax in figure.axes if ax.get_label() not in ("inset_axes", "<colorbar>")]


def texts(figure):
    return [text.get_text() for ax in panels(figure) for text in ax.texts]


def check(draw, folder, apart=True):
    """A figure is labelled, not empty, no text covers another (`apart`), and the same data give the same bytes."""
    figure = draw()
    assert "no measurements" not in texts(figure)
    assert all(ax.get_title() and ax.get_xlabel() for ax in panels(figure))
    if apart:
        assert overlaps(figure) == []
    first = style.save(draw(), folder / "a.png")
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red"}):  # a user's own settings must not matter
        second = style.save(draw(), folder / "b.png")
    assert first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        assert image.info["dpi"][0] == pytest.approx(200, abs=1) and image.width >= 1300
        assert not {"Software", "Creation Time", "date"} & set(image.info)


def check_empty(figure, folder):
    """Where there is nothing to show a figure says so, and can be saved."""
    assert "no measurements" in texts(figure)
    style.save(figure, folder / "c.png")


def overlaps(figure):
    """Return pairs of texts (titles, labels, notes) that cover each other, and texts that are cut off."""
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    texts = []
    for ax in panels(figure):
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts):
            if text.get_text().strip() and text.get_visible():
                texts.append((text.get_text(), text.get_window_extent(renderer).padded(-1)))
    outside = [(text, "the figure's edge") for text, box in texts if not _inside(box, figure.bbox)]
    return outside + [(a, b) for i, (a, one) in enumerate(texts) for b, two in texts[i + 1 :] if one.overlaps(two)]


def _inside(box, frame):
    return box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
