"""PNet: photometry and astrometry of stars with error bars, after Sun, Jia et al. (2023).

The library behind the reproducible companion of the paper. Import the module you need
(``from pnet import frame, metrics``); nothing heavy is imported here.
"""

__version__ = "0.1.0"
