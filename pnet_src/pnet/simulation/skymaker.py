"""Driver of the real SkyMaker, the simulator of astronomical images by Bertin (2009, Mem. S.A.It. 80, 422).

`sky` (on PATH, or named by $SKY) runs in a temporary folder with a configuration and a source list that are written
here. Versions 3.10.5 (conda-forge) and 4.x are supported: the same list gives the same light in both. Both seed their
noise from the clock, 3.10.5 by the whole second, so that frames made side by side would share one noise image. So the
program is asked for its noiseless light alone, and the camera's noise, bleeding and rounding are drawn here from the
frame's seed, by the renderer's model of the camera, which is SkyMaker's: the same seed gives the same frame.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from pnet.common import programs
from pnet.common.errors import ConfigError, MissingError
from pnet.common.seeds import derive
from pnet.simulation import renderer, skymaker_files, stuff
from pnet.simulation.frame_file import write_frame
from pnet.simulation.recipe import Conditions, Recipe, draw_conditions, draw_stars

INSTALL = "mamba install -c conda-forge astromatic-skymaker"
OLDEST = (3, 10)
TIME_LIMIT = 300.0  # s; a 512 px frame takes 1 to 3 s


def sky_program() -> programs.Program:
    """Return SkyMaker with its version.

    Raises
    ------
    MissingError
        If there is no `sky`.
    ConfigError
        If it is something else, or older than 3.10.
    """
    path = programs.find("sky", "SKY")
    if path is None:
        raise MissingError(f"SkyMaker (sky) is neither on PATH nor named by $SKY; {INSTALL}")
    program = programs.identify(path, "SkyMaker")
    if program.version < OLDEST:
        raise ConfigError(f"{path} is {program}; 3.10.5 or newer is needed: {INSTALL}")
    return program


def expected_image(
    conditions: Conditions, sources: pd.DataFrame, name: str = "frame"
) -> tuple[np.ndarray, pd.DataFrame]:
    """Let SkyMaker paint a field without noise: (size, size) float64 electrons, sky included, and the truth of
    `simulate_frame`."""
    program = sky_program()
    settings, lines = skymaker_files.configuration(conditions), skymaker_files.source_list(sources)
    with tempfile.TemporaryDirectory(prefix="pnet-sky-") as temporary:
        folder = Path(temporary)
        skymaker_files.write_settings(folder / "program.conf", settings)
        (folder / "sources.txt").write_text(lines)  # not frame.list: that is the output, and `sky` does not overwrite
        programs.run([program.path, "sources.txt", "-c", "program.conf"], folder, name, TIME_LIMIT)
        adu = skymaker_files.read_image(folder / "frame.fits", conditions.size, name)
        painted = skymaker_files.read_list(folder / "frame.list", name)
    truth = skymaker_files.painted_sources(sources, painted, name)
    truth = truth.assign(flux=conditions.flux(truth["mag"]))[["x", "y", "mag", "flux", "kind"]]
    return adu * conditions.gain, truth


def simulate_frame(
    conditions: Conditions, sources: pd.DataFrame, seed: int, *, name: str = "frame"
) -> tuple[np.ndarray, pd.DataFrame]:
    """Make one frame: SkyMaker's light, and the camera's noise from `seed`.

    Parameters
    ----------
    conditions : Conditions
    sources : DataFrame
        See `skymaker_files.source_list`; sources outside the frame add the light that reaches it.
    seed : int
    name : str
        What error messages call this frame.

    Returns
    -------
    image : ndarray, (size, size), uint16
        ADU.
    truth : DataFrame
        x, y (px from 0), mag, flux (electrons) and kind of every source that `sky` painted.

    Raises
    ------
    MissingError
        If there is no `sky`.
    ConfigError, DataError
        If the conditions or the sources are not allowed, or the program's output cannot be used.
    PNetError
        If it fails or does not end in time.
    """
    light, truth = expected_image(conditions, sources, name)
    return renderer.read_out(torch.from_numpy(light)[None], conditions, derive(seed, "skymaker", "noise")), truth


def make_frames(
    todo: list[tuple[Path, int]], recipe: Recipe, kind: str, *, workers: int = 2, progress: bool = True
) -> None:
    """Draw frames from a recipe, make them with SkyMaker side by side and write each one as soon as it is there.

    Parameters
    ----------
    todo : list of (path, seed)
        Where each frame goes, and its seed.
    recipe : Recipe
    kind : str
        Kind of field in the recipe. Its galaxies come from Stuff, or from `galaxies` where there is no `stuff`.
    workers : int
        Programs at a time.
    progress : bool
        Show a progress bar.

    Raises
    ------
    MissingError
        If there is no `sky`.
    PNetError
        As from `simulate_frame`; the first failure ends the series. Frames already written stay.
    """
    if not todo:
        return
    simulator = str(sky_program())  # a missing program is one error before the bar, not one within it

    def make(job: tuple[Path, int]) -> None:
        path, seed = job
        sources, magnitudes = draw_stars(recipe, kind, seed), recipe.fields[kind].galaxies
        if magnitudes:
            sources = pd.concat([sources, stuff.galaxies(recipe, magnitudes, seed)], ignore_index=True)
        conditions = draw_conditions(recipe, seed)
        image, truth = simulate_frame(conditions, sources, seed, name=path.stem)
        write_frame(path, image, truth, conditions, simulator=simulator, kind=kind, seed=seed % 2**31)

    with ThreadPoolExecutor(workers) as pool:
        for _ in tqdm(pool.map(make, todo), total=len(todo), desc="SkyMaker", disable=not progress):
            pass  # an error here cancels what has not begun
