"""Speed of the detection net itself: ways to run its forward pass, whole frames against patches, steps of training."""

import copy
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pnet.detection.losses import detection_loss
from pnet.detection.network import CONFIGS, STRIDE, PhotometryDetectionNet, network_input
from pnet.simulation import recipe as simulation
from pnet.simulation.recipe import Recipe
from pnet.sky import background, patches
from pnet.stars import weights
from pnet.training.fields import RenderedFields

BATCHES = (1, 4)  # patches at once
REPEATS = 5  # the median of so many calls is given
CONFIDENT = 0.3  # cells from which on a change of position matters
WHOLE = (1489, 2048)  # px; an SDSS frame
TRAINING = (("compact", 8, 256), ("paper", 8, 256))  # configuration, fields in a batch, px
# Dense bf16 peak in FLOP/s by the name that CUDA gives a device, from NVIDIA's data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
PRODUCT = {"cuda": 8192, "cpu": 2048}  # side of the matrices whose product tells what a device can do in practice


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _seconds(call: Callable[[], Any], device: torch.device, repeats: int = REPEATS) -> float:
    """Return the median seconds of a call, after one that does not count."""
    call()
    times = []
    for _ in range(repeats):
        _wait(device)
        start = time.perf_counter()
        call()
        _wait(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def _evaluating(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """No gradients, and autocast to `dtype` where one is given."""
    # no_grad and not inference_mode: compiled code must not see inference tensors made outside of it
    with torch.no_grad(), torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        yield


def forward(file: str, threads: int) -> list[dict[str, Any]]:
    """Time the released detection net's forward pass on a frame, in several ways.

    The ways are: as it is (single precision, rows of channels), channels-last memory, bfloat16 autocast, and
    torch.compile of the last two. A whole SDSS frame is then run as one image and as the patches that detection uses.

    Parameters
    ----------
    file : str
        A simulated frame of 512×512 px.
    threads : int
        Of torch.

    Returns
    -------
    list of dict
        way, threads, device, shape, batch, seconds_per_patch (for 512×512 px), patches_per_second, speed_up (against
        the first way with the same batch), confidence_change (largest change of a cell's confidence) and
        position_change (px, root mean square over cells above 0.3); ``reason`` instead where a way does not work here.
    """
    torch.set_num_threads(threads)
    device = _device()
    model, _ = weights.load("detection", "released", device.type)
    model.eval()
    image, rms = background.subtracted(simulation.read_frame(file)[0])
    one = network_input(torch.from_numpy(image)[None], torch.tensor([rms]), model.config.inputs).to(device)
    plain = copy.deepcopy(model).to(memory_format=torch.contiguous_format)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    ways: list[tuple[str, nn.Module, torch.memory_format, torch.dtype | None]] = [
        ("plain", plain, torch.contiguous_format, None),
        ("channels last", last, torch.channels_last, None),
        ("channels last, bf16", last, torch.channels_last, torch.bfloat16),
    ]
    missing = _cannot_compile(device)
    if missing is None:
        compiled = torch.compile(copy.deepcopy(last))
        ways += [
            ("channels last, compiled", compiled, torch.channels_last, None),
            ("channels last, bf16, compiled", compiled, torch.channels_last, torch.bfloat16),
        ]
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        inputs = one.expand(batch, -1, -1, -1)
        with _evaluating(device, None):
            reference = plain(inputs.contiguous())[-1]
        basis = None
        for way, network, layout, dtype in ways:
            given = inputs.contiguous(memory_format=layout)
            row = {"way": way, "threads": threads, "device": device.type, "shape": _shape(one), "batch": batch}
            try:
                with _evaluating(device, dtype):
                    seconds = _seconds(lambda: network(given), device) / batch  # noqa: B023
                    change = _change(network(given)[-1], reference)
            except Exception as error:  # the compiler raises whatever it meets; its other ways still count
                if "compiled" not in way:
                    raise
                rows.append(row | {"reason": f"not available: {type(error).__name__}"})
                continue
            basis = basis or seconds
            timing = {"seconds_per_patch": seconds, "patches_per_second": 1 / seconds, "speed_up": basis / seconds}
            rows.append(row | timing | change)
        if missing is not None:
            row = {"way": "channels last, compiled", "threads": threads, "device": device.type, "batch": batch}
            rows.append(row | {"shape": _shape(one), "reason": f"not available: {missing}"})
    return rows + _whole_frame(last, threads, device)


def _shape(inputs: Tensor) -> str:
    return "×".join(map(str, inputs.shape[-2:]))


def _cannot_compile(device: torch.device) -> str | None:
    """Return why torch.compile cannot work here, or None."""
    if device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        return "no C++ compiler"
    return None


def _change(output: dict[str, Tensor], reference: dict[str, Tensor]) -> dict[str, float | None]:
    """Return how far an output is from the reference: in confidence, and in px where there is a star."""
    confidence, expected = (torch.sigmoid(each["heatmap"].float()) for each in (output, reference))
    stars = expected[:, 0] > CONFIDENT
    shift = STRIDE * (output["offset"].float() - reference["offset"].float()).movedim(1, -1)[stars]
    return {
        "confidence_change": float((confidence - expected).abs().max()),
        "position_change": float(shift.square().mean().sqrt()) if stars.any() else None,
    }


def _whole_frame(model: PhotometryDetectionNet, threads: int, device: torch.device) -> list[dict[str, Any]]:
    """Time a frame as large as SDSS's as one image, and as overlapping patches."""
    generator = torch.Generator().manual_seed(0)
    # empty sky: the time of a convolution does not depend on what it sees
    pixels = torch.randn(1, *WHOLE, generator=generator)
    height, width = (-(-side // model.multiple) * model.multiple for side in WHOLE)
    padded = nn.functional.pad(pixels, (0, width - WHOLE[1], 0, height - WHOLE[0]))
    whole = network_input(padded, torch.ones(1), model.config.inputs).to(device)
    tiles = [torch.from_numpy(tile.cut(pixels[0].numpy())) for tile in patches.split(WHOLE)]
    pieces = network_input(torch.stack(tiles), torch.ones(len(tiles)), model.config.inputs).to(device)
    frames = WHOLE[0] * WHOLE[1] / patches.SIZE**2
    rows = []
    for dtype, word in ((None, ""), (torch.bfloat16, ", bf16")):
        calls = {
            "SDSS frame in patches": (pieces, 4),
            "SDSS frame at once": (whole, 1),
        }
        basis = None
        for way, (inputs, batch) in calls.items():
            chunks = [chunk.contiguous(memory_format=torch.channels_last) for chunk in inputs.split(batch)]
            with _evaluating(device, dtype):
                seconds = _seconds(lambda: [model(chunk) for chunk in chunks], device, 2) / frames  # noqa: B023
            basis = basis or seconds
            rows.append(
                {
                    "way": way + word,
                    "threads": threads,
                    "device": device.type,
                    "shape": f"{len(chunks)} × {batch} × {_shape(inputs)}" if batch > 1 else _shape(inputs),
                    "batch": batch,
                    "seconds_per_patch": seconds,
                    "patches_per_second": 1 / seconds,
                    "speed_up": basis / seconds,
                }
            )
    return rows


def training(threads: int, seed: int, *, steps: int = 3) -> list[dict[str, Any]]:
    """Time training steps (forward, loss, backward, Adam) of the configurations on the device at hand, in bfloat16.

    Parameters
    ----------
    threads : int
        Of torch.
    seed : int
        Of the rendered batch, the same for every step: data is timed apart.
    steps : int
        The median of so many steps is given.

    Returns
    -------
    list of dict
        config, device, precision, batch, size (px), steps, seconds_per_step, images_per_second,
        seconds_per_batch_rendered,
        tflop_per_step (counted by torch), tflops_per_second, share_of_product (against the rate of a large bf16 matrix
        product on the same device) and, for devices of `PEAK`, share_of_peak; peak_gib on CUDA.
    """
    torch.set_num_threads(threads)
    device = _device()
    product = product_rate(device)
    return [_training_row(*each, device, product, seed, steps) for each in TRAINING]


def _training_row(
    config: str, batch: int, size: int, device: torch.device, product: float, seed: int, steps: int
) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = PhotometryDetectionNet(CONFIGS[config]).to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    fields = RenderedFields(Recipe.load(), batch, size)
    start = time.perf_counter()
    data = fields.batch(seed, device)
    _wait(device)
    rendering = time.perf_counter() - start

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = detection_loss(model, data)["loss"]
        loss.backward()
        optimizer.step()

    with FlopCounterMode(display=False) as counter:
        step()
    flop = counter.get_total_flops()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = _seconds(step, device, steps)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    peak = next((value for key, value in PEAK.items() if key in name.replace("-", " ").split()), None)
    row = {
        "config": config,
        "device": name,
        "threads": torch.get_num_threads(),
        "precision": "bf16",
        "batch": batch,
        "size": size,
        "steps": steps,
        "seconds_per_step": seconds,
        "images_per_second": batch / seconds,
        "seconds_per_batch_rendered": rendering,
        "tflop_per_step": flop / 1e12,
        "tflops_per_second": flop / seconds / 1e12,
        "share_of_product": flop / seconds / product,
        "share_of_peak": flop / seconds / peak if peak else None,
    }
    if device.type == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
    return row


def product_rate(device: torch.device) -> float:
    """Return the FLOP/s of a large bf16 matrix product: what the device reaches in practice."""
    side = PRODUCT[device.type]
    generator = torch.Generator(device=device).manual_seed(0)
    left, right = (torch.randn(side, side, device=device, generator=generator).bfloat16() for _ in range(2))
    with torch.no_grad():
        return 2 * side**3 / _seconds(lambda: left @ right, device)
