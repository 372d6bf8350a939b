"""A second device that is not there: tensors that say they lie on it, and refuse to be mixed with others.

They are computed on the processor, so values are true ones. What is `lazy` here is a device that PyTorch knows by name
and looks for nowhere. As on a GPU, a scalar tensor of the processor may stand beside any, and so may indices.
"""

from __future__ import annotations

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy", 0)
aten = torch.ops.aten
COPY = aten.copy_.default
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index.Tensor}
INDEXED |= {aten._index_put_impl_.default}


class MixedDevices(RuntimeError):
    """An operation with tensors of two devices."""


class Away(torch.Tensor):
    """A tensor on the other device; `inner` has its values."""

    @staticmethod
    def __new__(cls, inner):
        facts = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        facts |= {"layout": inner.layout, "requires_grad": inner.requires_grad}
        return torch.Tensor._make_wrapper_subclass(cls, inner.size(), **facts, device=DEVICE)

    def __init__(self, inner):
        self.inner = inner

    def __repr__(self):
        return f"Away({self.inner})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


def computed(function, args, kwargs):
    """The result of an operation, on the device that its arguments say."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)]
    away = [value for value in tensors if isinstance(value, Away)]
    here = [value for value in tensors if not isinstance(value, Away) and value.dim()]
    mixing = function is COPY or (function in INDEXED and isinstance(args[0], Away))
    if away and here and not mixing:
        raise MixedDevices(f"{function}: {[tuple(x.shape) for x in here]} here, {[tuple(x.shape) for x in away]} away")
    target = kwargs.get("device")
    if target is not None:
        kwargs = {**kwargs, "device": "cpu"}
        going = torch.device(target).type == DEVICE.type
    else:
        going = isinstance(args[0], Away) if function is COPY else bool(away)
    known = {id(value.inner): value for value in away}  # what is changed in place stays the tensor that it is
    args, kwargs = tree_map(lambda value: value.inner if isinstance(value, Away) else value, (args, kwargs))

    def placed(value):
        if not isinstance(value, torch.Tensor) or id(value) in known:
            return known.get(id(value), value)
        return Away(value) if going else value

    return tree_map(placed, function(*args, **kwargs))


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class _Numbers(TorchFunctionMode):
    """What becomes of numbers, and numbers of what, below what the other mode sees."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function in (torch.tensor, torch.as_tensor) and kwargs.get("device") == DEVICE:
            return function(*args, **{**kwargs, "device": None}).to(DEVICE)
        if function is torch.Tensor.tolist and isinstance(args[0], Away):
            return args[0].inner.tolist()
        return function(*args, **kwargs)


class _Autocast(torch.autocast):
    """Which knows no data type of the other device."""

    def __init__(self, device_type, *args, **kwargs):
        super().__init__("cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)


@contextmanager
def second_device():
    """Within, ``.to(DEVICE)`` and ``device=DEVICE`` make tensors that must not be mixed with others."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Numbers(), _Mode(), patch("torch.autocast", _Autocast):
            yield DEVICE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
