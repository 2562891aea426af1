"""What every figure is checked for."""


def panels(figure):
    return [ax for ax in figure.axes if ax.get_label() not in ("inset_axes", "<colorbar>")]


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
