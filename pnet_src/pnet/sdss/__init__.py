"""SDSS frames, catalogues and PSFs, and how their files are had."""
