"""Single stars: fits with the frame's PSF, and the Bayesian Photometry Neural Network (section 3.3.2)."""
