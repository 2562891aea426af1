"""The physics of a star field: background, PSF, renderer, the Cramér-Rao limit, stamps, patches, lists of stars."""
