"""Audio files and arrays: probe, read, write, resample, cover with windows. soundfile first, PyAV for the rest."""

from __future__ import annotations

import io
import os
import re
import struct
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tonnetz.atomic import replacing
from tonnetz.errors import UserError

EXTENSIONS = frozenset(
    [
        ".wav",
        ".flac",
        ".mp3",
        ".ogg",
        ".opus",
        ".oga",
        ".m4a",
        ".mp4",
        ".aac",
        ".aif",
        ".aiff",
        ".aifc",
        ".au",
        ".caf",
        ".w64",
        ".wma",
        ".wv",
        ".webm",
        ".mka",
    ]
)
SILENCE = 1e-4  # peak below which a file holds nothing to learn from (-80 dBFS)
SHORTEST = 0.01  # seconds in which anything can be heard


@dataclass(frozen=True)
class Info:
    """What a file's header says: sample rate in Hz, channels, duration in seconds (an estimate for some formats)."""

    sample_rate: int
    channels: int
    duration: float


def probe(path: str | Path) -> Info:
    """Read a file's header. Raises UserError for a missing, empty or unreadable file."""
    import soundfile

    _check_file(path)
    try:
        info = soundfile.info(str(path))
        return Info(info.samplerate, info.channels, info.frames / info.samplerate)
    except soundfile.LibsndfileError:
        return _probe_av(path)


def read(
    path: str | Path, sample_rate: int | None = None, offset: float = 0.0, seconds: float | None = None
) -> tuple[np.ndarray, int]:
    """Decode a file to mono float32 (N,) and its rate in Hz, resampled to `sample_rate` when given.

    `offset` and `seconds` choose an excerpt. Channels are averaged. Raises UserError for a file that is missing,
    empty, not audio, or holds NaN or infinite samples.
    """
    import soundfile

    _check_file(path)
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            if offset:
                file.seek(min(round(offset * rate), file.frames))
            count = -1 if seconds is None else round(seconds * rate)
            audio = file.read(count, dtype="float32")  # (N,) or (N, C)
            audio = audio.mean(1) if audio.ndim == 2 else audio  # (N,)
    except soundfile.LibsndfileError:
        audio, rate = _read_av(path)
        begin = round(offset * rate)
        audio = audio[begin : None if seconds is None else begin + round(seconds * rate)]
    if not audio.size:
        raise UserError(f"{path}: holds no audio samples; remove or replace the file")
    if not np.isfinite(audio).all():
        raise UserError(f"{path}: holds NaN or infinite samples; remove or repair the file")
    if sample_rate is not None and sample_rate != rate:
        return resample(audio, rate, sample_rate), sample_rate
    return audio, rate


def read_audible(path: str | Path, sample_rate: int | None = None) -> tuple[np.ndarray, int, float]:
    """Decode a whole file: mono float32 (N,), its rate in Hz, and its peak.

    Raises UserError for what `read` refuses, and for a file that is silent or too short to hear anything.
    """
    audio, rate = read(path, sample_rate)
    if len(audio) < SHORTEST * rate:
        raise UserError(f"{path}: only {1000 * len(audio) / rate:.1f} ms long; remove or replace the file")
    peak = float(np.abs(audio).max())
    if peak < SILENCE:
        raise UserError(f"{path}: silent (peak {peak:.1e}); remove or replace the file")
    return audio, rate, peak


def _check_file(path: str | Path) -> None:
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    if not path.stat().st_size:
        raise UserError(f"{path}: the file is empty (0 bytes); remove or replace it")
    if path.suffix.lower() == ".mp3" and not _has_frames(path):  # libmpg123 would search on, and complain aloud
        raise _not_audio(path, ValueError("no MPEG frame in it"))


def _has_frames(path: Path) -> bool:
    """Whether an MPEG frame begins somewhere in the first 256 kB after the ID3 tag."""
    with path.open("rb") as file:
        head = file.read(10)
        if head[:3] == b"ID3" and len(head) == 10:
            file.seek(10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)))
        else:
            file.seek(0)
        return re.search(rb"\xff[\xe2-\xff]", file.read(1 << 18)) is not None


def _probe_av(path: str | Path) -> Info:
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            seconds = (container.duration or 0) / 1e6
            if stream.duration and stream.time_base:
                seconds = float(stream.duration * stream.time_base)
            return Info(stream.rate, stream.channels, seconds)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise _not_audio(path, error) from None


def _read_av(path: str | Path) -> tuple[np.ndarray, int]:
    """Decode with FFmpeg's libraries: m4a, aac, wma and whatever soundfile does not know."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            resampler = av.AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
            frames = [part for frame in container.decode(stream) for part in resampler.resample(frame)]
            chunks = [part.to_ndarray().mean(0, dtype=np.float32) for part in frames]
            rate = int(stream.rate)
    except (av.FFmpegError, IndexError, ValueError) as error:
        raise _not_audio(path, error) from None
    return (np.concatenate(chunks) if chunks else np.zeros(0, np.float32)), rate


def _not_audio(path: str | Path, error: Exception) -> UserError:
    reason = getattr(error, "strerror", None) or (str(error).splitlines() or [type(error).__name__])[0]
    return UserError(f"{path}: cannot be decoded as audio ({reason}); remove or replace the file")


def resample(audio: np.ndarray, source: int, target: int) -> np.ndarray:
    """Resample (N,) float32 from `source` to `target` Hz (soxr, high quality)."""
    import soxr

    return soxr.resample(audio, source, target, quality="HQ").astype(np.float32, copy=False)


def write(path: str | Path, audio: np.ndarray, sample_rate: int) -> None:
    """Write (N,) float32 in [-1, 1] as a 16-bit PCM wav file, atomically; values outside are clipped."""
    samples = np.rint(np.clip(audio, -1.0, 1.0) * np.float32(32767)).astype("<i2")  # (N,)
    whole = io.BytesIO()
    with wave.open(whole, "wb") as file:
        file.setparams((1, 2, sample_rate, len(samples), "NONE", ""))
        file.writeframesraw(samples.tobytes())
    with replacing(path) as part:
        part.write_bytes(whole.getbuffer())


def pcm_header(path: str | Path, sample_rate: int) -> int | None:
    """Bytes before the samples of a mono 16-bit PCM wav file at `sample_rate` Hz; None for any other file."""
    with open(path, "rb") as file:
        riff, _, kind = struct.unpack("<4sI4s", file.read(12).ljust(12))
        if (riff, kind) != (b"RIFF", b"WAVE"):
            return None
        fmt = None
        while len(head := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", head)
            if name == b"data":
                return file.tell() if fmt == (1, 1, sample_rate, 16) else None
            body = file.read(size + size % 2)
            if name == b"fmt ":
                code, channels, rate, _, _, bits = struct.unpack("<HHIIHH", body[:16])
                fmt = code, channels, rate, bits
    return None


def read_pcm(path: str | Path, header: int, start: int, out: np.ndarray) -> int:
    """Read samples from sample `start` of a 16-bit PCM wav file into `out` (N,) int16; returns how many there were.

    One system call and no decoder: this is what a training step waits for.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.preadv(descriptor, [out.data.cast("B")], header + 2 * start) // 2
    finally:
        os.close(descriptor)


def read_prepared(path: str | Path, header: int, start: int, count: int, peak: float = 1.0) -> np.ndarray:
    """Read `count` samples of prepared audio as float32 (N,), divided by `peak`."""
    pcm = np.zeros(count, "<i2")
    read_pcm(path, header, start, pcm)
    return pcm * np.float32(1 / (32768 * peak))


def fit_length(audio: np.ndarray, count: int, pad: str = "zero") -> np.ndarray:
    """Cut (N,) to `count` samples, or fill it up at the end with zeros or by repeating it (`pad`: zero | repeat)."""
    if len(audio) >= count:
        return audio[:count]
    if pad == "repeat" and len(audio):
        return np.resize(audio, count)
    return np.pad(audio, (0, count - len(audio)))


def window_starts(samples: int, window: int, hop: int) -> np.ndarray:
    """Return the starts (in samples) of windows that cover a recording to its end.

    Windows lie `hop` apart; the last one is aligned to the end, so nothing is left out and nothing but a recording
    shorter than one window needs padding.
    """
    last = max(samples - window, 0)
    starts = np.arange(0, last + 1, hop)
    return starts if starts[-1] == last else np.append(starts, last)
