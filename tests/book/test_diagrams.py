"""Diagrams of the networks: they follow the configurations, nothing overlaps, the same bytes each time."""

from dataclasses import replace

import pytest
import torch
from figure_checks import overlaps, texts

from pnet.book.figures import diagrams, style
from pnet.detection import network as detection
from pnet.stars import network as stars
from pnet.stars.weights import SETS

CASES = [
    *((draw, config) for draw in (diagrams.detection_net, diagrams.preheads) for config in detection.CONFIGS.values()),
    *((diagrams.bpnn, config) for config in stars.CONFIGS.values()),
    *((diagrams.flowchart, together) for together in SETS),
]


@pytest.mark.parametrize(("draw", "given"), CASES)
def test_every_configuration_is_drawn_and_no_text_covers_another(draw, given):
    figure = draw(given)
    assert texts(figure) and overlaps(figure) == []
    assert min(text.get_fontsize() for text in figure.axes[0].texts) >= 9.5


def test_a_changed_width_changes_its_labels():
    config = detection.CONFIGS["compact"]
    other = replace(config, stem=31, channels=(49, 48, 64, 64, 65), head=50, stacks=3)
    drawn = texts(diagrams.detection_net(other))
    assert [drawn.count(label) for label in ("31 · 256²", "49 · 128²", "65 · 8²")] == [1, 3 * 3, 2 * 3]
    assert "hourglass 3" in drawn and "49 · 128²" not in texts(diagrams.detection_net(config))
    assert texts(diagrams.preheads(other)).count("50 · 128²") == 4


@pytest.mark.parametrize("name", stars.CONFIGS)
def test_the_linear_layers_drawn_are_the_networks(name):
    config = replace(stars.CONFIGS[name], hidden=(501, 203, 101, 51))
    with torch.device("meta"):
        head = stars.BayesianPhotometryNet(config).head
    drawn = texts(diagrams.bpnn(config))
    assert all(str(layer.in_features) in drawn for layer in head) and str(head[-1].out_features) in drawn


def test_losses_and_the_fit_are_those_of_the_configuration():
    paper, compact = (" ".join(texts(diagrams.preheads(detection.CONFIGS[name]))) for name in ("paper", "compact"))
    assert "Eq. 19" in paper and "Eq. 19" not in compact and "aperture" in compact and "aperture" not in paper
    fitted = {name: "Fit of the frame's own PSF" in " ".join(texts(diagrams.flowchart(name))) for name in SETS}
    assert fitted == {"released": True, "paper": False}


def test_svg_is_the_same_each_time_and_has_no_date(tmp_path):
    first, second = (style.save(diagrams.flowchart("paper"), tmp_path / f"{name}.svg") for name in "ab")
    assert first.read_bytes() == second.read_bytes()
    text = first.read_text()
    assert text.rstrip().endswith("</svg>") and "dc:date" not in text and "<text" not in text
