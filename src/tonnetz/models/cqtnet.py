"""CQTNet (Yu et al., 2020) and its wider sister in Discogs-VINet (Araz et al., 2024)."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn import functional

from tonnetz.models.base import Backbone, InputNorm
from tonnetz.models.cnn import keep_frames
from tonnetz.models.parts import BatchNorm, FrequencyPool, clear, initialise

ROWS = 38  # bins that the unpadded convolutions use up, less the padding of the first


class Layer(nn.Module):
    """Convolution without padding along frequency and with same padding along time, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int], rate: int, rows: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, dilation=(1, rate), padding=(rows, rate), bias=False)
        self.norm = BatchNorm(outputs)

    def forward(self, x: Tensor, keep: Tensor | None) -> Tensor:
        """Map (B, C, F, T) to (B, C', F', T); ``keep`` (B, 1, 1, T) clears padding."""
        return clear(self.norm(self.conv(x)).relu(), keep)


class CQTNet(Backbone):
    """Five pairs of convolutions, the second of a pair dilated by 2 in time; frames halved after the first four.

    Kernels of 12 x 3, 13 x 3 and 13 x 3 bins x frames, then 3 x 3; ``width`` to 16 ``width`` channels. The bins that
    are left are joined by ``frequency``: ``max`` (the paper), ``gem`` or ``mean``. Fewer than 38 bins are filled up
    with zeros. Batch statistics of hidden layers include padded frames, as zeros. 4,926,528 parameters and two
    a bin with one channel.
    """

    min_bins = 8
    stride = 16

    def __init__(self, channels: int, bins: int, width: int = 32, frequency: str = "max") -> None:
        super().__init__(channels, bins)
        self.dim = 16 * width
        self.norm = InputNorm(channels, bins)
        sizes = [channels, *(width * factor for factor in (1, 2, 2, 2, 4, 4, 8, 8, 16, 16))]
        kernels = [(12, 3), (13, 3), (13, 3), *[(3, 3)] * 7]
        self.blocks = nn.ModuleList(
            Layer(sizes[index], sizes[index + 1], kernel, 1 + index % 2, 6 if index == 0 else 0)
            for index, kernel in enumerate(kernels)
        )
        self.frequency = FrequencyPool(frequency)
        self.taps = (*(f"block{index + 1}" for index in range(5)), "output")
        initialise(self)

    def stages(self, x: Tensor, mask: Tensor | None) -> Iterator[tuple[str, Tensor, int]]:
        """Yield every pair of convolutions (halved along time) and the output (B, T', D)."""
        h = self.norm(x, mask)  # (B, C, F, T)
        h = functional.pad(h, (0, 0, 0, max(0, ROWS - h.shape[2])))  # (B, C, F, T)
        for index, name in enumerate(self.taps[:-1]):
            keep = keep_frames(mask, 2**index, h)  # (B, 1, 1, T_i)
            h = self.blocks[2 * index + 1](self.blocks[2 * index](h, keep), keep)  # (B, C_i, F_i, T_i)
            if index < 4:  # after the ReLU zeros are neutral to the maximum, so padding stays without effect
                h = functional.max_pool2d(h, (1, 2), ceil_mode=True)  # (B, C_i, F_i, T_i / 2)
            yield name, h, 2 ** min(index + 1, 4)
        yield "output", self.frequency(h), self.stride  # (B, T', D)


class DVINet(CQTNet):
    """CQTNet with 40 to 640 channels, the network of Discogs-VINet; ``width=48`` is that of its MIREX entry.

    7,696,080 parameters and two a bin with one channel.
    """

    def __init__(self, channels: int, bins: int, width: int = 40, frequency: str = "max") -> None:
        super().__init__(channels, bins, width, frequency)
