"""Speed of the detection net itself: ways to run its forward pass, whole frames against patches, steps of training."""

import copy
import shutil
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pnet.detection.losses import detection_loss
from pnet.detection.network import CONFIGS, STRIDE, PhotometryDetectionNet, network_input
from pnet.simulation.frame_file import read_frame
from pnet.simulation.recipe import Recipe
from pnet.sky import background, patches
from pnet.stars import weights
from pnet.training.fields import RenderedFields

BATCHES = (1, 4)  # patches at once
REPEATS = 5  # the median of so many calls is given
CONFIDENT = 0.3  # cells from which on a change of position matters
WHOLE = (1489, 2048)  # px; an SDSS frame
WAYS = {  # layout in memory, autocast to, compiled; the first is what the others are compared with
    "plain": (torch.contiguous_format, None, False),
    "channels last": (torch.channels_last, None, False),
    "channels last, bf16": (torch.channels_last, torch.bfloat16, False),
    "channels last, compiled": (torch.channels_last, None, True),
    "channels last, bf16, compiled": (torch.channels_last, torch.bfloat16, True),
}
TRAINING = (("compact", 8, 256), ("paper", 8, 256))  # configuration, fields in a batch, px
# Dense bf16 peak in FLOP/s by the name that CUDA gives a device, from NVIDIA's data sheets.
PEAK = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12, "T4": 65e12}
PRODUCT = {"cuda": 8192, "cpu": 2048}  # side of the matrices whose product tells what a device can do in practice


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _seconds(call: Callable[[], Any], device: torch.device, repeats: int | None = None) -> float:
    """Return the median seconds of a call, after one that does not count."""

    def complete() -> float:
        start = time.perf_counter()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - start

    complete()
    return statistics.median(complete() for _ in range(repeats or REPEATS))


def _evaluated(network: nn.Module, chunks: list[Tensor], dtype: torch.dtype | None) -> list[dict[str, Tensor]]:
    """Return the last stack's output for each chunk, without gradients, under autocast to `dtype` if one is given."""
    # no_grad and not inference_mode: compiled code must not see inference tensors made outside of it
    with torch.no_grad(), torch.autocast(chunks[0].device.type, dtype=dtype, enabled=dtype is not None):
        return [network(chunk)[-1] for chunk in chunks]


def forward(file: str, threads: int) -> list[dict[str, Any]]:
    """Time the released detection net's forward pass on a frame in several `WAYS`, and on a frame as large as SDSS's.

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
    image, rms = background.subtracted(read_frame(file)[0])
    one = network_input(torch.from_numpy(image)[None], torch.tensor([rms]), model.config.inputs).to(device)
    no_compiler = device.type == "cpu" and not any(map(shutil.which, ("g++", "clang++", "c++")))
    networks = {}
    for way, (layout, _, compiled) in WAYS.items():
        networks[way] = copy.deepcopy(model).to(memory_format=layout)
        if compiled and not no_compiler:
            networks[way] = torch.compile(networks[way])
    rows: list[dict[str, Any]] = []
    for batch in BATCHES:
        inputs = one.expand(batch, -1, -1, -1)
        first: dict[str, Any] = {}
        for way, (layout, dtype, compiled) in WAYS.items():
            row = {"way": way, "threads": threads, "device": device.type, "shape": _shape(one), "batch": batch}
            chunks = [inputs.contiguous(memory_format=layout)]
            try:
                if compiled and no_compiler:
                    raise FileNotFoundError("no C++ compiler")
                (output,) = _evaluated(networks[way], chunks, dtype)
                seconds = _seconds(lambda: _evaluated(networks[way], chunks, dtype), device) / batch  # noqa: B023
            except Exception as error:  # the compiler raises whatever it meets; its other ways still count
                if not compiled:
                    raise
                why = error if isinstance(error, FileNotFoundError) else type(error).__name__
                rows.append(row | {"reason": f"not available: {why}"})
                continue
            first = first or {"output": output, "seconds": seconds}
            rows.append(row | _speed(seconds, first["seconds"]) | _change(output, first["output"]))
    return rows + _whole_frame(networks["channels last"], threads, device)


def _shape(inputs: Tensor) -> str:
    return "×".join(map(str, inputs.shape[-2:]))


def _speed(seconds: float, first: float) -> dict[str, float]:
    return {"seconds_per_patch": seconds, "patches_per_second": 1 / seconds, "speed_up": first / seconds}


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
    # empty sky: the time of a convolution does not depend on what it sees
    pixels = torch.randn(1, *WHOLE, generator=torch.Generator().manual_seed(0))
    height, width = (-(-side // model.multiple) * model.multiple for side in WHOLE)
    padded = nn.functional.pad(pixels, (0, width - WHOLE[1], 0, height - WHOLE[0]))
    tiles = torch.stack([torch.from_numpy(tile.cut(pixels[0].numpy())) for tile in patches.split(WHOLE)])
    frames = WHOLE[0] * WHOLE[1] / patches.SIZE**2
    rows = []
    for dtype, word in ((None, ""), (torch.bfloat16, ", bf16")):
        first = None
        for way, images, batch in (("SDSS frame in patches", tiles, 4), ("SDSS frame at once", padded, 1)):
            inputs = network_input(images, torch.ones(len(images)), model.config.inputs).to(device)
            chunks = [chunk.contiguous(memory_format=torch.channels_last) for chunk in inputs.split(batch)]
            seconds = _seconds(lambda: _evaluated(model, chunks, dtype), device, 2) / frames  # noqa: B023
            first = first or seconds
            shape = f"{len(chunks)} × {batch} × {_shape(inputs)}" if batch > 1 else _shape(inputs)
            row = {"way": way + word, "threads": threads, "device": device.type, "shape": shape, "batch": batch}
            rows.append(row | _speed(seconds, first))
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
        config, device, threads, precision, batch, size (px), steps, seconds_per_step, images_per_second,
        seconds_per_batch_rendered, tflop_per_step (counted by torch), tflops_per_second, share_of_product (against the
        rate of a large bf16 matrix product on the same device) and, for devices of `PEAK`, share_of_peak; peak_gib on
        CUDA.
    """
    torch.set_num_threads(threads)
    device = _device()
    cuda = device.type == "cuda"
    name = torch.cuda.get_device_name(device) if cuda else "cpu"
    peak = next((value for key, value in PEAK.items() if key in name.replace("-", " ").split()), None)
    side = PRODUCT[device.type]
    generator = torch.Generator(device=device).manual_seed(0)
    left, right = (torch.randn(side, side, device=device, generator=generator).bfloat16() for _ in range(2))
    product = 2 * side**3 / _seconds(lambda: left @ right, device)
    rows = []
    for config, batch, size in TRAINING:
        torch.manual_seed(seed)
        model = PhotometryDetectionNet(CONFIGS[config]).to(device, memory_format=torch.channels_last).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        fields = RenderedFields(Recipe.load(), batch, size)
        data = fields.batch(seed, device)

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)  # noqa: B023
            with torch.autocast(device.type, dtype=torch.bfloat16):
                loss = detection_loss(model, data)["loss"]  # noqa: B023
            loss.backward()
            optimizer.step()  # noqa: B023

        with FlopCounterMode(display=False) as counter:
            step()
        flop = counter.get_total_flops()
        if cuda:
            torch.cuda.reset_peak_memory_stats(device)
        seconds = _seconds(step, device, steps)
        row = {
            "config": config,
            "device": name,
            "threads": threads,
            "precision": "bf16",
            "batch": batch,
            "size": size,
            "steps": steps,
            "seconds_per_step": seconds,
            "images_per_second": batch / seconds,
            "seconds_per_batch_rendered": _seconds(lambda: fields.batch(seed, device), device, 1),  # noqa: B023
            "tflop_per_step": flop / 1e12,
            "tflops_per_second": flop / seconds / 1e12,
            "share_of_product": flop / seconds / product,
            "share_of_peak": flop / seconds / peak if peak else None,
        }
        rows.append(row | ({"peak_gib": torch.cuda.max_memory_allocated(device) / 2**30} if cuda else {}))
    return rows
