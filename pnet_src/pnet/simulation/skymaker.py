"""Driver of the real SkyMaker, the simulator of astronomical images by Bertin (2009, Mem. S.A.It. 80, 422).

`sky` (on PATH, or named by $SKY) runs in a temporary folder with a configuration and a source list
that are written here; its image and the list of what it painted come back as arrays. Versions
3.10.5 (conda-forge) and 4.x are supported: the same list gives the same light in both. They differ
in the seed of the noise, which the user cannot set: 4.x takes it from the microsecond, 3.10.5 from
the second, so that frames made side by side by 3.10.5 would share one noise image. See `NOISE`.
"""

import contextlib
import itertools
import os
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from pnet.common import programs
from pnet.common.errors import ConfigError, MissingError
from pnet.common.seeds import derive
from pnet.simulation import galaxies, stuff
from pnet.simulation import recipe as simulation
from pnet.simulation.recipe import Conditions, Recipe
from pnet.simulation.skymaker_files import configuration, painted_sources, read_image, source_list

INSTALL = "mamba install -c conda-forge astromatic-skymaker"
OLDEST = (3, 10)
TIME_LIMIT = 300.0  # s; a 512 px frame takes 1 to 3 s
TRUTH_COLUMNS = ["x", "y", "mag", "flux", "kind"]

# Who draws the noise, makes the bleeding trails and rounds to ADU
NOISE = {
    "program": "SkyMaker, seeded by the clock: no two runs give the same pixels",
    "seeded": "PNet from the seed, on SkyMaker's noiseless light: the same numbers every time",
    "auto": "program for 4.x, seeded for 3.x (whose parallel frames would share their noise)",
}


class Job(NamedTuple):
    """One frame to make: its name (for messages), its conditions, its sources and its seed."""

    name: str
    conditions: Conditions
    stars: pd.DataFrame
    seed: int


def find_sky() -> str | None:
    """Return the path of `sky`: $SKY where it is set, else the first on PATH, else None."""
    return programs.find("sky", "SKY")


def sky_program() -> programs.Program:
    """Return SkyMaker with its version.

    Raises
    ------
    MissingError
        If there is no `sky`.
    ConfigError
        If it is something else, or older than 3.10.
    """
    path = find_sky()
    if path is None:
        raise MissingError(f"SkyMaker (sky) is neither on PATH nor named by $SKY; {INSTALL}")
    program = programs.identify(path, "SkyMaker")
    if program.version < OLDEST:
        raise ConfigError(f"{path} is {program}; 3.10.5 or newer is needed: {INSTALL}")
    return program


def simulate_frame(
    conditions: Conditions,
    stars: pd.DataFrame,
    seed: int,
    *,
    name: str = "frame",
    noise: str = "auto",
    timeout: float = TIME_LIMIT,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Make one frame with SkyMaker.

    Parameters
    ----------
    conditions : Conditions
    stars : DataFrame
        See `skymaker_files.source_list`; sources outside the frame add the light that reaches it.
    seed : int
        Of the noise, where PNet draws it (`noise`).
    name : str
        What error messages call this frame.
    noise : str
        A key of `NOISE`.
    timeout : float
        Seconds after which `sky` is ended.

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
        If the program fails or does not end in time; the message holds its last lines.
    """
    if noise not in NOISE:
        raise ConfigError(f"noise is {noise!r}, it must be one of {', '.join(NOISE)}")
    program = sky_program()
    by_the_second = program.version < (4,)
    if noise == "auto":
        noise = "seeded" if by_the_second else "program"
    settings = configuration(conditions, noise=noise == "program")
    lines = source_list(stars)
    wait = _one_a_second() if noise == "program" and by_the_second else contextlib.nullcontext()
    with wait, tempfile.TemporaryDirectory(prefix="pnet-sky-") as folder:
        adu, painted = _run_sky(program, Path(folder), settings, lines, name, timeout)
    truth = painted_sources(stars, painted, name)
    truth["flux"] = conditions.flux(truth["mag"])
    if noise == "seeded":
        adu = _read_out(adu * conditions.gain, conditions, seed)
    highest = min(conditions.saturation, np.iinfo(np.uint16).max)
    return np.rint(np.clip(adu, 0, highest)).astype(np.uint16), truth[TRUTH_COLUMNS]


def simulate_many(
    jobs: Iterable[Job],
    *,
    total: int | None = None,
    workers: int | None = None,
    noise: str = "auto",
    progress: bool = True,
    timeout: float = TIME_LIMIT,
) -> Iterator[tuple[Job, np.ndarray, pd.DataFrame]]:
    """Make many frames side by side and yield them in the order of `jobs`.

    Parameters
    ----------
    jobs : iterable of Job
        Taken as they are needed.
    total : int, optional
        Number of jobs for the progress bar, where `jobs` has no length.
    workers : int, optional
        Programs at a time; the number of cores unless given.
    noise, timeout
        As for `simulate_frame`.
    progress : bool
        Show a progress bar.

    Yields
    ------
    job, image, truth
        As from `simulate_frame`. The first failure ends the series with its error; frames that wait are dropped.
    """
    workers = workers or os.cpu_count() or 1
    sky_program()  # a missing program is one error before the bar, not one within it
    total = len(jobs) if total is None and hasattr(jobs, "__len__") else total
    remaining, waiting = iter(jobs), deque()
    with ThreadPoolExecutor(workers) as pool, tqdm(total=total, desc="SkyMaker", disable=not progress) as bar:
        try:
            while True:
                # two a worker: nobody idles, and finished frames do not pile up in memory
                for job in itertools.islice(remaining, 2 * workers - len(waiting)):
                    options = {"name": job.name, "noise": noise, "timeout": timeout}
                    waiting.append((job, pool.submit(simulate_frame, job.conditions, job.stars, job.seed, **options)))
                if not waiting:
                    return
                job, future = waiting.popleft()
                image, truth = future.result()
                bar.update()
                yield job, image, truth
        finally:
            for _, future in waiting:
                future.cancel()


def make_frames(
    todo: Iterable[tuple[Path, int]], recipe: Recipe, kind: str, *, workers: int | None = None, progress: bool = True
) -> None:
    """Draw frames from a recipe, make them with SkyMaker and write each one as soon as it is there.

    Parameters
    ----------
    todo : iterable of (path, seed)
        Where each frame goes, and its seed.
    recipe : Recipe
    kind : str
        Kind of field in the recipe. Its galaxies come from Stuff, or from `galaxies` where there is no `stuff`.
    workers, progress
        As for `simulate_many`.

    Raises
    ------
    MissingError
        If there is no `sky`.
    PNetError
        As from `simulate_frame`. Frames already written stay.
    """
    todo = [(Path(path), seed) for path, seed in todo]
    if not todo:
        return
    simulator = str(sky_program())
    jobs = (_job(path, recipe, kind, seed) for path, seed in todo)
    series = simulate_many(jobs, total=len(todo), workers=workers, progress=progress)
    for (path, seed), (job, image, truth) in zip(todo, series, strict=True):
        simulation.write_frame(path, image, truth, job.conditions, simulator=simulator, kind=kind, seed=seed % 2**31)


def _job(path: Path, recipe: Recipe, kind: str, seed: int) -> Job:
    """Draw one frame's conditions and sources."""
    sources = simulation.draw_stars(recipe, kind, seed)
    magnitudes = recipe.fields[kind].galaxies
    if magnitudes and stuff.find_stuff():
        found = stuff.galaxies(seed, size=recipe.size, pixel_scale=recipe.pixel_scale, magnitudes=magnitudes)
        sources = pd.concat([sources, found], ignore_index=True)
    elif magnitudes:
        found = galaxies.draw_galaxies(recipe, magnitudes, seed)
        sources = pd.concat([sources, stuff.as_stuff(found)], ignore_index=True)
    return Job(path.stem, simulation.draw_conditions(recipe, seed), sources, seed)


_noise_lock, _noise_second = threading.Lock(), [0]


@contextlib.contextmanager
def _one_a_second() -> Iterator[None]:
    """Run one frame at a time, each in a later second than the one before: 3.x seeds its noise by the second."""
    with _noise_lock:
        while int(time.time()) <= _noise_second[0]:
            time.sleep(0.02)
        try:
            yield
        finally:
            _noise_second[0] = int(time.time())


def _read_out(light: np.ndarray, conditions: Conditions, seed: int) -> np.ndarray:
    """Return noisy ADU of the expected electrons, with the renderer's model of the camera (which is SkyMaker's)."""
    import torch  # only this path needs it, and `pnet doctor` asks this module for `sky`

    from pnet.sky import render

    generator = torch.Generator().manual_seed(derive(seed, "skymaker", "noise"))
    return render.read_out(
        torch.from_numpy(light)[None],
        gain=torch.tensor([conditions.gain]),
        read_noise=torch.tensor([conditions.read_noise]),
        well_capacity=torch.tensor([conditions.well_capacity or np.inf]),
        saturation=conditions.saturation,
        generator=generator,
    )[0].numpy()


def _run_sky(
    program: programs.Program, folder: Path, settings: dict[str, object], lines: str, name: str, timeout: float
) -> tuple[np.ndarray, list[list[float]]]:
    """Run `sky` in `folder` and return its image in ADU and the numbers of its list."""
    stuff.write_settings(folder / "program.conf", settings)
    (folder / "sources.txt").write_text(lines)  # not frame.list: that is the output, and `sky` refuses to overwrite
    programs.run([program.path, "sources.txt", "-c", "program.conf"], folder, name, timeout)
    adu = read_image(folder / "frame.fits", settings["IMAGE_SIZE"], name)
    return adu, stuff.read_list(folder / "frame.list", name)
