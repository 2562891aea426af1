"""Windowed moments of stamps against closed forms."""

import numpy as np
import pytest
import torch

from pnet.sky.stamps import gaussian_moments, gaussian_width


@pytest.mark.parametrize("width", [1.2, 1.7, 2.4])
def test_moments_of_a_gaussian_are_exact_whatever_the_window(width):
    """The step length that belongs to a window: five steps find it from 0.3 px away to a ten-thousandth."""
    axis = np.arange(31) - 15
    star = np.exp(-((axis[None] - 0.31) ** 2 + (axis[:, None] + 0.22) ** 2) / (2 * 1.7**2)) / (2 * np.pi * 1.7**2) * 5e4
    stamp, start = torch.from_numpy(star).float()[None], torch.zeros(1)
    x, y = gaussian_moments(stamp, start, start, torch.tensor([width]), scale=width / 1.7)
    assert (float(x), float(y)) == (pytest.approx(0.31, abs=1e-4), pytest.approx(-0.22, abs=1e-4))
    assert float(gaussian_width(stamp, x, y)) == pytest.approx(1.7, rel=1e-3)
