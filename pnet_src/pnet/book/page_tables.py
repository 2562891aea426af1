"""The tables that prose pages of the book include: computed when the site is put together, written as Markdown."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pnet.common import paths, timings
from pnet.common.files import read_json

MAGNITUDES = (13, 14, 15, 16, 17, 18, 19, 20)
SEEING = 1.4  # arcsec, the middle of the recipe's range


def run_times(output: Path) -> str:
    """Return the table of what each step of this build took."""
    records = timings.read(output)
    if not records:
        return "No step of this build has left a record of its time.\n"
    machines = list(dict.fromkeys(_machine(record) for record in records))
    lines = ["| step | wall clock | processor time | largest process |", "|---|---:|---:|---:|"]
    if len(machines) > 1:
        lines = [f"{lines[0]} machine |", f"{lines[1]}---|"]
    for record in records:
        row = f"| `{record['step']}` | {duration(record['seconds'])} | {duration(record.get('cpu_seconds', 0.0))} "
        row += f"| {record.get('memory_mb', 0) / 1024:.1f} GiB |"
        lines.append(row + (f" {_machine(record)} |" if len(machines) > 1 else ""))
    total = sum(record["seconds"] for record in records)
    lines.append(f"| **all, one after the other** | {duration(total)} | | |" + (" |" if len(machines) > 1 else ""))
    if len(machines) == 1:
        lines += ["", f"Machine: {machines[0]}."]
    return "\n".join(lines) + "\n"


def _machine(record: dict[str, Any]) -> str:
    """Return what a step ran on, in words."""
    machine = record.get("machine", {})
    return f"{record.get('device') or machine.get('cpu', 'unknown')}, {machine.get('cores', '?')} cores"


def released(output: Path) -> str:
    """Return the table of the released weights and measurements: when, where and with which commands they were made."""
    lines = ["| file | time | device | date | commit |", "|---|---:|---|---|---|"]
    commands = []
    cards = sorted(paths.WEIGHTS.glob("*.json")) + sorted((paths.RESULTS / "measurements").glob("*.json"))
    for path in cards:
        card = read_json(path)
        seconds = card.get("seconds")
        seconds = seconds.get("total") if isinstance(seconds, dict) else seconds
        spent = duration(float(seconds)) if isinstance(seconds, int | float) else ""
        name = path.relative_to(paths.ROOT).with_suffix("").as_posix()
        lines.append(
            f"| `{name}` | {spent} | {card.get('device', '')} | {str(card.get('date', ''))[:10]} "
            f"| `{str(card.get('commit', ''))[:10]}` |"
        )
        if card.get("command"):
            commands.append(f"# {name}\n{card['command']}")
    if not cards:
        return "Nothing is released with this copy of the project.\n"
    return "\n".join(lines) + "\n\n```bash\n" + "\n\n".join(commands) + "\n```\n"


def duration(seconds: float) -> str:
    """Return a time as a person would say it: ``42 s``, ``3.5 min``, ``2.1 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def limit(output: Path) -> str:
    """Return the table of the Cramér-Rao bound by magnitude: the recipe's mean sky, the third camera column's gain."""
    from pnet.simulation.recipe import Conditions, Recipe
    from pnet.sky import limits, psf

    recipe = Recipe.load()
    conditions = Conditions(
        seeing=SEEING, sky_mag=recipe.sky_mag[0], gain=recipe.gain[2], read_noise=float(np.mean(recipe.read_noise))
    )
    light = limits.EffectivePSF.from_function(lambda x, y, size: psf.pixel_psf(SEEING, recipe.pixel_scale, x, y, size))
    # averaged over where in a pixel the star lies
    phase = (np.arange(4) + 0.5) / 4
    x, y = (grid.ravel() for grid in np.meshgrid(phase, phase))
    lines = [
        "| magnitude (g) | electrons | magnitude error (mag) | position error (px) | position error (mas) |",
        "|---:|---:|---:|---:|---:|",
    ]
    for magnitude in MAGNITUDES:
        flux = np.full(x.shape, float(conditions.flux(magnitude)))
        bound = limits.bound(light, x, y, flux, conditions.sky, conditions.read_noise)
        mag, position = (float(np.sqrt(np.mean(bound[name] ** 2))) for name in ("limit_mag", "limit_x"))
        arcsec = position * recipe.pixel_scale
        lines.append(f"| {magnitude} | {flux[0]:,.0f} | {mag:.4f} | {position:.4f} | {1000 * arcsec:.1f} |")
    return (
        "\n".join(lines)
        + f"\n\nSeeing {SEEING} arcsec, sky {conditions.sky:.0f} e⁻ a pixel, gain {conditions.gain} e⁻/ADU, read noise "
        f"{conditions.read_noise:g} e⁻, PSF and its width known, saturation left out.\n"
    )


TABLES: dict[str, Callable[[Path], str]] = {"run_times": run_times, "released": released, "limit": limit}
