"""Stars on stamps, drawn with a frame's PSF and nothing else."""

import numpy as np
import torch

from pnet.sky.psf_fit import FittedStars, fit, psf_errors, side

SKY = 300.0  # electrons², the variance of an empty pixel


class DrawnStars:
    """Stars of a PSF all over its frame, with noise or without; `flux` is one number or (n,).

    `x` and `y` (px) tell where on the frame, `dx` and `dy` where in the stamp; `share` is the PSF of each.
    """

    def __init__(self, psf, flux, n=1500, seed=1, noise=True, sky=SKY):
        rng = np.random.default_rng(seed)
        self.psf, self.sky = psf, sky
        self.x, self.y = torch.from_numpy(rng.uniform(0.05, 0.95, (2, n)) * np.array(psf.shape)[::-1, None])
        self.dx, self.dy = torch.from_numpy(rng.uniform(-0.5, 0.5, (2, n)))
        self.flux = torch.from_numpy(np.zeros(n) + flux)
        self.size = side(psf.basis.width)
        self.share = psf.drawn(self.x, self.y, self.size, at=(self.dx, self.dy))[0]
        light = self.share * self.flux[:, None, None]
        self.pixels = light + noise * (light.clamp(min=0) + sky).sqrt() * torch.from_numpy(rng.normal(size=light.shape))

    @property
    def truth(self):
        return self.flux, self.dx, self.dy

    def fitted(self, psf=None, *, start=None, pixels=None, **options):
        """Return the fit of a PSF, the true one by default."""
        start = start or (0.9 * self.flux, self.dx + 0.1, self.dy - 0.1)
        pixels = self.pixels if pixels is None else pixels
        return fit(psf or self.psf, pixels, self.x, self.y, start, self.sky, **{"iterations": 4} | options)

    def stars(self, psf=None, **options):
        """Return the fit as that of a frame's stars."""
        psf, found = psf or self.psf, self.fitted(psf, **options)
        error = psf_errors(psf, self.x, self.y, found)
        return FittedStars(psf, found, self.x, self.y, error, torch.zeros_like(self.pixels), self.sky**0.5)

    def errors(self, found):
        """Return (n, 3) by how much a fit is off."""
        return torch.stack([found.flux - self.flux, found.dx - self.dx, found.dy - self.dy], dim=1)
