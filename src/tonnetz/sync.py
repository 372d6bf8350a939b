"""Batch normalisation by the statistics of all processes, on processors too: PyTorch's own is for GPUs alone."""

from __future__ import annotations

import torch
import torch.distributed as dist
from lightning.pytorch.plugins import TorchSyncBatchNorm
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm


class ProcessorBatchNorm(_BatchNorm):
    """What a batch normalisation does in a training step of several processes without GPUs.

    All processes hold a batch of the same shape. Gradients are those of one process with all of it, where the loss of
    the processes is averaged, as DDP does.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x (B, C, ...) by the mean and the variance of all processes."""
        if not (self.training and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        self._check_input_dim(x)
        axes, shape = [axis for axis in range(x.ndim) if axis != 1], (-1, *[1] * (x.ndim - 2))
        h = x.to(torch.promote_types(x.dtype, torch.float32))
        mean = all_reduce(h.mean(axes)) / dist.get_world_size()  # (C,)
        centred = h - mean.view(shape)
        variance = all_reduce(centred.square().mean(axes)) / dist.get_world_size()  # (C,)
        self._follow(mean.detach(), variance.detach(), dist.get_world_size() * x.numel() // x.shape[1])
        scale = (variance + self.eps).rsqrt() * (1 if self.weight is None else self.weight)  # (C,)
        normal = centred * scale.view(shape)
        return (normal if self.bias is None else normal + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics towards those of a batch of so many values a channel."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)


class SyncBatchNorm(TorchSyncBatchNorm):
    """Lightning's plugin for ``trainer.sync_batchnorm=true``: layers keep their class, as some do more than normalise.

    The class of each becomes one that is also PyTorch's ``SyncBatchNorm``, or on processors the one above. What the
    layer calls by ``super().forward`` is then found there.
    """

    def apply(self, model: nn.Module) -> nn.Module:
        """Let the layers of the model share their statistics."""
        for layer in _layers(model):
            kind = type(layer)
            common = nn.SyncBatchNorm if _on_gpu(layer) else ProcessorBatchNorm
            layer.__class__ = type(f"Sync{kind.__name__}", (kind, common), {"process_group": None, "own": kind})
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Make them what they were."""
        for layer in _layers(model):
            layer.__class__ = getattr(layer, "own", type(layer))
        return model


def _layers(model: nn.Module) -> list[_BatchNorm]:
    return [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]


def _on_gpu(layer: nn.Module) -> bool:
    return any(tensor.device.type != "cpu" for tensor in (*layer.parameters(), *layer.buffers()))
