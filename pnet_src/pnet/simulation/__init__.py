"""Simulated frames with truth: the recipe, SkyMaker's driver, the project's own renderer, data sets."""
