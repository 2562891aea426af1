"""The Photometry-Detection Net (section 3.3.1 of the paper): network, targets, losses, prediction."""
