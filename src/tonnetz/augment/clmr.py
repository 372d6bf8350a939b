"""The waveform chain of contrastive pretraining, with its linear effects fused into two filters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tonnetz.augment.base import Augmentation, check_order, uniform
from tonnetz.augment.freeverb import rooms
from tonnetz.augment.grains import margin, transpose
from tonnetz.augment.response import echo, fast_size, low_pass, reach
from tonnetz.errors import UserError

NOISE = 1 << 19  # samples of noise to take excerpts from
ROOM = 4.0  # seconds after which reverberation is cut off
CHUNK = 1 << 21  # samples that a CPU works on at once, so that they stay in its cache
CHANCES = ("polarity", "noise", "gain", "filter", "delay", "pitch", "reverb")
Pair = Sequence[float]


class Clmr(Augmentation):
    """Polarity, noise, gain, high- or low-pass, delay, pitch shift, reverberation (Spijkervet and Burgoyne 2021).

    Every effect has a probability of its own, and every example its own draw. Defaults are CLMR's. In this order:

    - ``polarity``: the sign is changed.
    - ``noise``: white noise with a standard deviation of ``noise_ratio`` times the example's.
    - ``gain``: in dB, the result clipped to -1 ... 1.
    - ``filter``: windowed-sinc high-pass or low-pass, by a coin, at a cut-off in Hz.
    - ``delay``: (x + 0.5 * x delayed) / 2 by one of ``delays`` milliseconds.
    - ``pitch``: whole ``cents`` at the same tempo, see ``grains.transpose``.
    - ``reverb``: one of ``rooms`` of Freeverb with parameters in percent, see ``freeverb.impulse_response``.

    Ranges are uniform. What is linear before the pitch shift is one FFT filter, the reverberation another; only the
    examples that drew an effect are computed. An example keeps its length: no tail goes round, what is late is cut.
    """

    noise_bank: Tensor
    echoes: Tensor
    responses: Tensor

    def __init__(
        self,
        p: float = 1.0,
        polarity: float = 0.8,
        noise: float = 0.01,
        gain: float = 0.3,
        filter: float = 0.8,
        delay: float = 0.3,
        pitch: float = 0.6,
        reverb: float = 0.6,
        noise_ratio: Pair = (1e-4, 1e-2),
        gain_db: Pair = (-20.0, -1.0),
        high_pass: Pair = (200.0, 1200.0),
        low_pass: Pair = (2200.0, 4000.0),
        delays: Sequence[float] = (200, 250, 300, 350, 400, 450),
        cents: Pair = (-700, 700),
        reverberance: Pair = (0, 99),
        damping: Pair = (0, 99),
        room: Pair = (0, 99),
        rooms: int = 128,
        sample_rate: int = 16000,
    ) -> None:
        """Probabilities and ranges; UserError for one outside its bounds."""
        super().__init__(p, sample_rate)
        self.chances = dict(zip(CHANCES, (polarity, noise, gain, filter, delay, pitch, reverb), strict=True))
        self.noise_ratio = self._pair("noise_ratio", noise_ratio)
        self.gain_db = self._pair("gain_db", gain_db)
        self.high_pass, self.low_pass = self._pair("high_pass", high_pass), self._pair("low_pass", low_pass)
        self.delays, self.cents = tuple(delays), self._pair("cents", cents)
        self.reverberance = self._pair("reverberance", reverberance)
        self.damping, self.room, self.rooms = self._pair("damping", damping), self._pair("room", room), rooms
        self._check()
        for name in ("noise_bank", "echoes", "responses"):  # filled when the size of examples is known
            self.register_buffer(name, torch.zeros(0), persistent=False)
        self.sizes = 0, 0  # of the FFTs of either filter
        self.prepared: tuple[int, torch.device] | None = None

    def _pair(self, name: str, values: Pair) -> tuple[float, float]:
        """(low, high); UserError unless there are two in this order."""
        if len(values) != 2:
            raise UserError(f"augment Clmr.{name}: {list(values)} is no range; write [low, high]")
        check_order(self, values[0], values[1], name)
        return values[0], values[1]

    def _check(self) -> None:
        """Raise UserError for what makes no sense."""
        for name, chance in self.chances.items():
            if not 0.0 <= chance <= 1.0:
                raise UserError(f"augment Clmr.{name}: {chance} is no probability; choose 0 to 1")
        if min(*self.high_pass, *self.low_pass) <= 0:
            raise UserError("augment Clmr.high_pass, low_pass: a cut-off must be above 0 Hz")
        if not self.delays or min(self.delays) <= 0:
            raise UserError(f"augment Clmr.delays: {list(self.delays)}; write one or more above 0 ms")
        if self.rooms < 1:
            raise UserError(f"augment Clmr.rooms: {self.rooms}; choose at least 1")

    def draw(self, x: Tensor) -> dict[str, Tensor]:
        """One parameter an effect and example, (B,) each, with the value that changes nothing for those without it.

        sign; noise, the ratio, and where its excerpt starts; gain, a factor, and whether to clip; low and high,
        cut-offs in Hz, 0 = none; delay and room, places in their banks, 0 = none; cents.
        """
        has = {name: torch.rand(len(x), device=x.device) < chance for name, chance in self.chances.items()}
        coin = torch.rand(len(x), device=x.device) < 0.5
        gain = 10 ** (uniform(x, *self.gain_db) / 20)
        cents = torch.randint(int(self.cents[0]), int(self.cents[1]) + 1, (len(x),), device=x.device)
        return {
            "sign": 1.0 - 2.0 * has["polarity"],
            "noise": uniform(x, *self.noise_ratio) * has["noise"],
            "start": torch.randint(NOISE, (len(x),), device=x.device),
            "gain": torch.where(has["gain"], gain, 1.0),
            "clip": has["gain"],
            "low": uniform(x, *self.low_pass) * (has["filter"] & coin),
            "high": uniform(x, *self.high_pass) * (has["filter"] & ~coin),
            "delay": torch.randint(1, len(self.delays) + 1, (len(x),), device=x.device) * has["delay"],
            "cents": cents * has["pitch"],
            "room": torch.randint(1, self.rooms + 1, (len(x),), device=x.device) * has["reverb"],
        }

    def transform(self, x: Tensor, **params: Tensor) -> Tensor:
        """x (B, C, N) and the parameters of ``draw`` -> x with the effects."""
        batch, channels, size = x.shape
        self._prepare(size, x.device)
        y = self._amplitude(x.float(), params).view(-1, size)  # (R, N)
        names = ("low", "high", "delay", "cents", "room")
        low, high, delay, cents, room = (params[name].repeat_interleave(channels) for name in names)  # (R,) each
        for rows in self._chunks((cents == 0) & (low + high + delay > 0), size):
            spectrum = self._filtered(y.index_select(0, rows), low[rows], high[rows], delay[rows])
            y.index_copy_(0, rows, torch.fft.irfft(spectrum, n=self.sizes[0])[:, :size])
        for rows in self._chunks(cents != 0, size):
            spectrum = self._filtered(y.index_select(0, rows), low[rows], high[rows], delay[rows])
            y.index_copy_(0, rows, self._transposed(spectrum, 2 ** (cents[rows] / 1200), size))
        for rows in self._chunks(room > 0, size):
            spectrum = torch.fft.rfft(y.index_select(0, rows), n=self.sizes[1])  # (r, F)
            spectrum.mul_(self.responses.index_select(0, room[rows] - 1))
            y.index_copy_(0, rows, torch.fft.irfft(spectrum, n=self.sizes[1])[:, :size])
        return y.reshape(batch, channels, size)

    def _prepare(self, size: int, device: torch.device) -> None:
        """Fill the buffers for examples of ``size`` samples, unless they are."""
        if self.prepared == (size, device):
            return
        delays = torch.tensor([0, *(round(ms * self.sample_rate / 1000) for ms in self.delays)])
        tail = int(delays.max()) + reach(self._lowest(), self.sample_rate)
        spare = margin(2 ** (self.cents[1] / 1200), self.sample_rate) if self.chances["pitch"] else 0
        room = min(size, int(ROOM * self.sample_rate))
        self.sizes = fast_size(size + max(tail, spare)), fast_size(size + room)
        self.echoes = echo(delays, 0.5, self.sizes[0]).to(device)  # (1 + K, F)
        self.echoes[0] = 1.0
        if self.chances["reverb"]:
            bank = rooms(self.rooms, self.reverberance, self.damping, self.room, self.sample_rate, room)
            self.responses = torch.fft.rfft(bank.to(device), n=self.sizes[1])  # (rooms, F)
        generator = torch.Generator().manual_seed(0)
        self.noise_bank = torch.randn(NOISE, generator=generator).to(device)
        self.prepared = size, device

    def _lowest(self) -> float:
        return min(*self.high_pass, *self.low_pass)

    def _chunks(self, mask: Tensor, size: int) -> tuple[Tensor, ...]:
        """Rows where the mask (R,) is true; on a CPU in parts that fit into its cache."""
        rows = mask.nonzero().squeeze(1)
        if len(rows) == 0:
            return ()
        return rows.split(max(CHUNK // max(size, 1), 1)) if rows.device.type == "cpu" else (rows,)

    def _amplitude(self, x: Tensor, params: dict[str, Tensor]) -> Tensor:
        """Sign, noise, gain and clipping of x (B, C, N)."""
        sign, ratio, gain = (params[name].view(-1, 1, 1) for name in ("sign", "noise", "gain"))
        y = x * (sign * gain)
        rows = params["noise"].nonzero().squeeze(1)  # (r,)
        if len(rows):
            index = params["start"][rows, None] + torch.arange(x[0].numel(), device=x.device)  # (r, C * N)
            noise = self.noise_bank[index % NOISE].view(-1, *x.shape[1:])  # (r, C, N)
            deviation = x[rows].std((1, 2), keepdim=True, correction=0)
            y[rows] += noise * (deviation * ratio[rows] * gain[rows])
        rows = params["clip"].nonzero().squeeze(1)
        return y.index_copy_(0, rows, y.index_select(0, rows).clamp_(-1, 1))

    def _filtered(self, x: Tensor, low: Tensor, high: Tensor, delay: Tensor) -> Tensor:
        """Spectrum of x (r, N), filtered and delayed: (r, F)."""
        spectrum = torch.fft.rfft(x, n=self.sizes[0])  # (r, F)
        cutoff = (low + high).clamp(self._lowest(), 0.49 * self.sample_rate)
        response = low_pass(cutoff, self.sample_rate, spectrum.shape[1], self._lowest())  # (r, F)
        slope = (low > 0).float() - (high > 0).float()  # a high-pass is what the low-pass leaves
        response = response.mul_(slope.unsqueeze(1)).add_((low == 0).float().unsqueeze(1))
        return spectrum.mul_(self.echoes.index_select(0, delay)).mul_(response)

    def _transposed(self, spectrum: Tensor, ratio: Tensor, size: int) -> Tensor:
        """Frequencies times ``ratio`` (r,): spectrum (r, F) -> sound (r, N)."""
        bins = torch.arange(spectrum.shape[1], device=ratio.device)  # (F,)
        keep = bins * ratio.unsqueeze(1) <= self.sizes[0] // 2  # (r, F)
        double = torch.fft.irfft(spectrum.mul_(2.0 * keep), n=2 * self.sizes[0])  # (r, M) at twice the rate
        double[:, 2 * size :] = 0
        return transpose(double, ratio, size, self.sample_rate)
