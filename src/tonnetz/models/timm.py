"""Any image network of the timm library on spectrograms."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tonnetz.errors import UserError, suggest
from tonnetz.models.base import Backbone, InputNorm


class Timm(Backbone):
    """An image network of https://github.com/huggingface/pytorch-image-models without its classifier.

    The spectrogram is an image of F rows and T columns, padded with zeros to a multiple of the network's
    stride and to at least ``min_size`` in both directions; the last feature map is averaged over frequency
    and cut to ceil(T / stride) frames. Padding is zeroed on entry, but its amount still has an effect.

    ``pretrained``: False, True (timm weights, downloaded once), or the path of a .safetensors or tensor-only
    .pt file with timm's parameter names. Parameters that the features do not depend on are frozen, so that
    distributed training finds a gradient for all others. Raises UserError for unknown names, unfit networks
    and unfit files.
    """

    min_bins = 8
    exact_padding = False

    def __init__(
        self,
        channels: int,
        bins: int,
        name: str = "resnet18",
        pretrained: bool | str = False,
        min_size: int = 32,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(channels, bins)
        self.name, self.min_size = name, min_size
        self.norm = InputNorm(channels, bins)
        self.network = _create(name, channels, pretrained)
        self.dim = int(self.network.num_features)
        self.dropout = nn.Dropout(dropout)
        self.stride = self._measure_stride()
        self.taps = self._probe()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embed x (B, C, F, T) with prefix mask (B, T) into frames (B, T', D)."""
        image = self._image(x, mask)  # (B, C, H, W)
        maps = self._grid(self.network.forward_features(image), image)  # (B, H', W', D)
        return self.dropout(maps.mean(1)[:, : self._count(x)])  # (B, T', D)

    def layers(self, x: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        """Return timm's intermediate maps and the output, averaged over frequency, as (B, T', D_i)."""
        if self.taps == ("output",):
            return {"output": self.forward(x, mask)}
        image = self._image(x, mask)  # (B, C, H, W)
        last, maps = self.network.forward_intermediates(image)  # maps: (B, D_i, H_i, W_i)
        columns, count = image.shape[-1] // self.stride, self._count(x)
        values = [functional.adaptive_avg_pool1d(h.mean(2), columns).transpose(1, 2)[:, :count] for h in maps]
        output = self.dropout(self._grid(last, image).mean(1)[:, :count])  # (B, T', D)
        return dict(zip(self.taps, [*values, output], strict=True))

    def _count(self, x: Tensor) -> int:
        """Return the output frames T' of x (B, C, F, T)."""
        return -(-x.shape[-1] // self.stride)

    def _image(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Normalise x (B, C, F, T) and pad it with zeros to an image (B, C, H, W) that the network takes."""
        rows, columns = (self._padded(size) for size in x.shape[2:])
        return functional.pad(self.norm(x, mask), (0, columns - x.shape[3], 0, rows - x.shape[2]))  # (B, C, H, W)

    def _padded(self, size: int) -> int:
        """Return the smallest multiple of the stride that is at least ``size`` and ``min_size``."""
        return -(-max(size, self.min_size) // self.stride) * self.stride

    def _grid(self, features: Tensor, image: Tensor) -> Tensor:
        """Bring (B, D, H', W'), (B, H', W', D) or (B, prefix + H' W', D) into the form (B, H', W', D)."""
        if features.ndim == 3:
            tokens = features[:, getattr(self.network, "num_prefix_tokens", 0) :]  # (B, H' * W', D)
            return tokens.unflatten(1, (image.shape[2] // self.stride, image.shape[3] // self.stride))
        return features.permute(0, 2, 3, 1) if features.shape[1] == self.dim else features  # (B, H', W', D)

    def _measure_stride(self) -> int:
        """Return the pixels of one output cell, measured on a square image of the network's own size."""
        size = int((self.network.pretrained_cfg.get("input_size") or (3, 224, 224))[-1])
        features = self._run(torch.zeros(1, self.channels, size, size))
        if features.ndim == 3:
            prefix = getattr(self.network, "num_prefix_tokens", 0)
            return size // max(1, math.isqrt(features.shape[1] - prefix))
        # the second of three axes is spatial in both layouts
        return max(1, round(size / features.shape[2]))

    def _probe(self) -> tuple[str, ...]:
        """Run the network on a small image of this many bins, freeze unused parameters, return the taps."""
        rows, columns = self._padded(self.bins), self._padded(3 * self.stride)
        image = torch.zeros(1, self.channels, rows, columns)
        with torch.enable_grad():
            features = self._run(image)
            grid = self._grid(features, image) if features.ndim in (3, 4) else features
            if grid.shape[1:] != (rows // self.stride, columns // self.stride, self.dim):
                raise UserError(
                    f"model.name: features of '{self.name}' have the shape {tuple(features.shape)}, "
                    f"which is no map over frequency and time; choose another network, for example resnet18"
                )
            used = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(features.sum(), used, allow_unused=True)
        for parameter, gradient in zip(used, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)
        return (*(f"block{index + 1}" for index in range(self._intermediates(image))), "output")

    def _intermediates(self, image: Tensor) -> int:
        """Return the number of intermediate maps that timm gives for this network; 0 when it gives none."""
        if not hasattr(self.network, "forward_intermediates"):
            return 0
        self.network.eval()
        with torch.no_grad():
            maps = self.network.forward_intermediates(image, intermediates_only=True)
        self.network.train()
        return len(maps) if all(h.ndim == 4 for h in maps) else 0

    def _run(self, image: Tensor) -> Tensor:
        """Return the features of an image in eval mode; UserError when the network does not take its size."""
        self.network.eval()
        try:
            return self.network.forward_features(image)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"model.name: '{self.name}' does not take images of {image.shape[2]} x {image.shape[3]} "
                f"({_first_line(error)}); choose a network without a fixed image size, "
                f"for example resnet18, convnext_tiny or vit_tiny_patch16_224, or raise model.min_size"
            ) from error
        finally:
            self.network.train()


def _create(name: str, channels: int, pretrained: bool | str) -> Any:
    """Build timm's network ``name`` without a classifier, for any image size where it allows that."""
    import timm  # here, because importing timm takes seconds

    if not timm.is_model(name):
        raise UserError(f"model.name: timm has no network '{name}'{suggest(name, timm.list_models())}")
    keywords: dict[str, Any] = {"in_chans": channels, "num_classes": 0, "pretrained": bool(pretrained)}
    if isinstance(pretrained, str):
        state = _read_state(pretrained)
        _check_names(name, pretrained, state)
        keywords["pretrained_cfg_overlay"] = {"state_dict": state, "custom_load": False}
    try:
        return _for_any_size(name, keywords)
    except Exception as error:
        if not pretrained:
            raise
        source = f"the file '{pretrained}'" if isinstance(pretrained, str) else "timm's weights"
        raise UserError(
            f"model.pretrained: cannot load {source} into '{name}' ({_first_line(error)}); "
            f"use pretrained=false or the path of a fitting .safetensors or .pt file"
        ) from error


def _for_any_size(name: str, keywords: dict[str, Any]) -> Any:
    """Create the network with ``dynamic_img_size`` where its class knows that keyword."""
    import timm

    try:
        return timm.create_model(name, dynamic_img_size=True, **keywords)
    except TypeError as error:
        if "dynamic_img_size" not in str(error):
            raise
        return timm.create_model(name, **keywords)


def _first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its class name when it has none."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__


def _read_state(path: str) -> dict[str, Tensor]:
    """Read tensors by name from a .safetensors or tensor-only .pt file; code in a pickle is refused."""
    from timm.models import load_state_dict

    if not Path(path).is_file():
        raise UserError(f"model.pretrained: there is no file '{path}'; give the path of a .safetensors or .pt file")
    try:
        state = dict(load_state_dict(path, weights_only=True))
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        OSError,
    ) as error:
        raise UserError(
            f"model.pretrained: '{path}' is not a file of plain tensors ({_first_line(error)}); "
            f"save the state dict as .safetensors or with torch.save"
        ) from error
    except Exception as error:
        if not type(error).__module__.startswith("safetensors"):
            raise
        raise UserError(f"model.pretrained: '{path}' is not a readable .safetensors file ({error})") from error
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"model.pretrained: '{path}' holds no dictionary of tensors; save the network's state dict")
    return state


def _check_names(name: str, path: str, state: dict[str, Tensor]) -> None:
    """Raise UserError unless the file holds every parameter of the network (its classifier aside)."""
    import timm

    with torch.device("meta"):
        expected = [key for key, _ in timm.create_model(name, num_classes=0).named_parameters()]
    missing = [key for key in expected if key not in state]
    if missing:
        raise UserError(
            f"model.pretrained: '{path}' lacks {len(missing)} of {len(expected)} parameters of '{name}', "
            f"first '{missing[0]}'; give weights of this very network with timm's parameter names"
        )
