"""A GPU that there is not: tensors over the CPU's that claim another device, and refuse to meet a plain one.

Two modes do it. One sees torch's functions before they look for a driver and turns ``device="cuda:7"`` into wrapped
tensors; the other sees the operations below them, autograd's included, and lets no plain tensor with dimensions meet a
wrapped one, but where CUDA does so too: as an index, and in a copy.
"""

import contextlib
from unittest import mock

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from pnet.sky import render

DEVICE = torch.device("cuda:7")  # no other test keeps tables for this one
aten = torch.ops.aten
COPIES = (aten.copy_.default, aten._to_copy.default)
INDEXED = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default)


class Generator(torch.Generator):
    """Random numbers for any device, drawn on the CPU."""

    def __new__(cls, device="cpu"):
        return super().__new__(cls)


class WrongDevice(RuntimeError):
    """A plain tensor met one of the device."""


class Emulated(torch.Tensor):
    """A tensor of the emulated device; the numbers lie in `held`, on the CPU."""

    __torch_function__ = torch._C._disabled_torch_function_impl
    device = DEVICE
    is_cuda = True

    @staticmethod
    def __new__(cls, real):
        options = {"strides": real.stride(), "storage_offset": real.storage_offset(), "dtype": real.dtype}
        made = torch.Tensor._make_wrapper_subclass(cls, real.size(), device="meta", **options)
        made.held = real
        return made

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return _dispatch(function, args, kwargs or {})

    def tolist(self):
        return self.held.tolist()

    def numpy(self, **options):
        raise WrongDevice("numpy takes tensors of the CPU only")

    def __repr__(self):
        return f"Emulated({self.held!r})"


def _ours(device) -> bool:
    """Tell whether a device, by whatever name, is the emulated one, or the one that torch below takes it for."""
    return isinstance(device, str | torch.device) and torch.device(device) in (DEVICE, torch.device("meta"))


def _dispatch(function, args, kwargs):
    """Run one operation on the real tensors."""
    flat, _ = tree_flatten((args, kwargs))
    wrapped = [value for value in flat if isinstance(value, Emulated)]
    if wrapped and function not in COPIES:
        checked = tree_flatten((args[0], args[2:]))[0] if function in INDEXED else flat
        for value in checked:
            if isinstance(value, torch.Tensor) and not isinstance(value, Emulated) and value.dim():
                raise WrongDevice(f"{function}: a tensor {tuple(value.shape)} of the CPU among those of {DEVICE}")
    here = bool(wrapped) if kwargs.get("device") is None else _ours(kwargs["device"])
    if function is aten.copy_.default:
        here = isinstance(args[0], Emulated)
    kwargs = {key: torch.device("cpu") if _ours(value) else value for key, value in kwargs.items()}
    known = {id(value.held): value for value in wrapped}
    args, kwargs = tree_map(lambda value: value.held if isinstance(value, Emulated) else value, (args, kwargs))
    result = function(*args, **kwargs)
    if not here:
        return result
    return tree_map(
        lambda v: (known[id(v)] if id(v) in known else Emulated(v)) if isinstance(v, torch.Tensor) else v, result
    )


class _Below(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return _dispatch(function, args, kwargs or {})


class _Above(TorchFunctionMode):
    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if function in (torch.Tensor.__getitem__, torch.Tensor.__setitem__):
            # torch would make an index of a list where it takes the device for: on meta, without its numbers
            chosen = args[1] if isinstance(args[1], tuple) else (args[1],)
            chosen = tuple(torch.tensor(part) if isinstance(part, list | np.ndarray) else part for part in chosen)
            return function(args[0], chosen, *args[2:])
        moved = function is torch.Tensor.to and any(_ours(value) for value in (*args[1:], kwargs.get("device")))
        if not moved and not _ours(kwargs.get("device")):
            return function(*args, **kwargs)
        kwargs["device"] = torch.device("cpu")
        if not moved:
            return Emulated(function(*args, **kwargs))
        if isinstance(args[0], Emulated):
            return function(args[0], **{key: value for key, value in kwargs.items() if key != "device"}, dtype=None)
        return Emulated(function(args[0], *(value for value in args[1:] if not _ours(value)), **kwargs))


def moved(module: torch.nn.Module) -> torch.nn.Module:
    """Move a module to the device, in place."""
    for part in module.modules():
        for name, value in part._parameters.items():
            if value is not None:
                part._parameters[name] = torch.nn.Parameter(Emulated(value.detach()))
        for name, value in part._buffers.items():
            part._buffers[name] = None if value is None else Emulated(value)
    return module


@contextlib.contextmanager
def emulated():
    """Let there be the device."""
    tables = (render.psf_table, render._aureole_transfer)
    try:
        with mock.patch.object(torch, "Generator", Generator), _Above(), _Below():
            yield DEVICE
    finally:
        for table in tables:
            table.cache_clear()
