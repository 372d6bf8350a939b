"""Decoding of all formats, refusals of bad files, windows."""

from __future__ import annotations

from pathlib import Path

import av
import librosa
import numpy as np
import pytest
import soundfile

from tonnetz import audio
from tonnetz.errors import UserError

RATES = (8000, 22050, 44100, 48000)


def tones(rate: int, seconds: float = 0.5, channels: int = 1) -> np.ndarray:
    """Sines at 440 Hz, 550 Hz, ... one a channel: (N, channels) float32."""
    time = np.arange(round(rate * seconds)) / rate
    return np.stack([0.5 * np.sin(2 * np.pi * (440 + 110 * c) * time) for c in range(channels)], 1).astype(np.float32)


def write_m4a(path: Path, signal: np.ndarray, rate: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=rate, layout="stereo" if signal.shape[1] == 2 else "mono")
        stream.bit_rate = 192_000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(signal.T), "fltp", stream.layout.name)
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])


def write_any(path: Path, signal: np.ndarray, rate: int) -> None:
    if path.suffix == ".m4a":
        write_m4a(path, signal, rate)
    else:
        soundfile.write(path, signal, rate)


def best_match(decoded: np.ndarray, expected: np.ndarray, shift: int = 2500) -> float:
    """Highest normalised correlation over shifts: lossy formats may add samples at the start."""
    middle = expected[len(expected) // 4 : len(expected) // 2]
    scores = [
        np.corrcoef(decoded[s : s + len(middle)], middle)[0, 1]
        for s in range(len(expected) // 4, len(expected) // 4 + shift)
        if s + len(middle) <= len(decoded)
    ]
    return float(max(scores))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3", "ogg", "m4a", "aiff"])
def test_formats(tmp_path, suffix, channels):
    path = tmp_path / f"tone.{suffix}"
    signal = tones(44100, channels=channels)
    write_any(path, signal, 44100)
    info = audio.probe(path)
    decoded, rate = audio.read(path)
    assert (info.sample_rate, info.channels, rate) == (44100, channels, 44100)
    assert info.duration == pytest.approx(0.5, abs=0.1)
    assert decoded.dtype == np.float32
    assert decoded.ndim == 1
    assert len(decoded) / rate == pytest.approx(0.5, abs=0.1)
    mono = signal.mean(1)
    if suffix in ("wav", "flac", "aiff"):
        np.testing.assert_allclose(decoded, mono, atol=2**-14)
    else:
        assert best_match(decoded, mono) > 0.99


@pytest.mark.parametrize("rate", RATES)
def test_resampling_keeps_pitch_and_level(tmp_path, rate):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tones(rate, 1.0, 3), rate, subtype="FLOAT")
    decoded, got = audio.read(path, 16000)
    assert got == 16000
    assert len(decoded) == pytest.approx(16000, abs=2)
    reference = librosa.resample(tones(rate, 1.0, 3).mean(1), orig_sr=rate, target_sr=16000, res_type="polyphase")
    np.testing.assert_allclose(decoded[500:15500], reference[500:15500], atol=5e-3)


@pytest.mark.parametrize("suffix", ["wav", "flac", "m4a"])
def test_excerpt_is_a_part_of_the_whole(tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    write_any(path, tones(16000, 1.0), 16000)
    whole, _ = audio.read(path)
    part, _ = audio.read(path, offset=0.25, seconds=0.5)
    np.testing.assert_allclose(part, whole[4000:12000], atol=1e-6)
    rest, _ = audio.read(path, offset=0.75)
    np.testing.assert_allclose(rest, whole[12000:], atol=1e-6)


@pytest.mark.parametrize("suffix", ["wav", "m4a"])
def test_excerpt_outside_the_file(tmp_path, suffix):
    path = tmp_path / f"tone.{suffix}"
    write_any(path, tones(16000), 16000)
    with pytest.raises(UserError, match="holds no audio samples"):
        audio.read(path, offset=30.0)


def bad_value(value: float) -> np.ndarray:
    signal = tones(8000)
    signal[100] = value
    return signal


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.wav", b"", "the file is empty (0 bytes)"),
        ("a.mp3", b"", "the file is empty (0 bytes)"),
        ("a.wav", b"these are words, no audio " * 50, "cannot be decoded as audio"),
        ("a.m4a", b"these are words, no audio " * 50, "cannot be decoded as audio"),
        ("a.mp3", bytes(4000), "cannot be decoded as audio"),
        ("a.flac", b"fLaC" + bytes(500), "cannot be decoded as audio"),
        ("a.wav", np.zeros((0, 1)), "holds no audio samples"),
        ("a.wav", bad_value(np.nan), "holds NaN or infinite samples"),
        ("a.wav", bad_value(np.inf), "holds NaN or infinite samples"),
        ("a.wav", None, "no such file"),
    ],
)
def test_bad_file_is_one_line_that_names_it(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        soundfile.write(path, content, 8000, subtype="FLOAT")
    with pytest.raises(UserError) as caught:
        audio.read(path, 16000)
    assert str(caught.value).startswith(f"{path}: {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"words " * 100, None])
def test_probe_refuses(tmp_path, content):
    path = tmp_path / "a.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.wav: "):
        audio.probe(path)


def test_folder_is_no_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        audio.read(tmp_path)


def test_video_without_sound(tmp_path):
    path = tmp_path / "silent.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        stream.pix_fmt = "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8))
        container.mux([*stream.encode(frame), *stream.encode(None)])
    for use in (audio.read, audio.probe):
        with pytest.raises(UserError, match=r"silent\.mp4: cannot be decoded as audio"):
            use(path)


def test_write_and_read_pcm(tmp_path):
    signal = np.linspace(-1.5, 1.5, 1001, dtype=np.float32)
    path = tmp_path / "new" / "x.wav"
    audio.write(path, signal, 8000)
    assert soundfile.info(path).subtype == "PCM_16"
    assert [p.name for p in path.parent.iterdir()] == ["x.wav"]
    np.testing.assert_allclose(audio.read(path)[0], signal.clip(-1, 1), atol=2**-14)
    header = audio.pcm_header(path, 8000)
    np.testing.assert_allclose(audio.read_prepared(path, header, 400, 50), signal[400:450], atol=2**-14)
    np.testing.assert_allclose(audio.read_prepared(path, header, 400, 50, peak=0.5), 2 * signal[400:450], atol=2**-13)
    out = np.zeros(50, "<i2")
    assert audio.read_pcm(path, header, 990, out) == 11
    assert audio.read_pcm(path, header, 5000, out) == 0


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(8000, 1, "PCM_24"), (8000, 2, "PCM_16"), (8000, 1, "FLOAT")]
)
def test_other_wav_files_are_not_read_in_place(tmp_path, rate, channels, subtype):
    soundfile.write(tmp_path / "x.wav", np.zeros((100, channels)), rate, subtype=subtype)
    assert audio.pcm_header(tmp_path / "x.wav", 8000) is None


def test_header_with_extra_chunks(tmp_path):
    signal = np.arange(100, dtype="<i2")
    soundfile.write(tmp_path / "x.wav", signal, 8000, subtype="PCM_16")
    plain = (tmp_path / "x.wav").read_bytes()
    extra = b"LIST" + (5).to_bytes(4, "little") + b"hello\0"  # an odd chunk is padded to an even length
    (tmp_path / "y.wav").write_bytes(plain[:36] + extra + plain[36:])
    header = audio.pcm_header(tmp_path / "y.wav", 8000)
    assert header == 44 + len(extra)
    np.testing.assert_array_equal(audio.read_prepared(tmp_path / "y.wav", header, 0, 100) * 32768, signal)
    assert audio.pcm_header(tmp_path / "y.wav", 16000) is None


@pytest.mark.parametrize(
    ("length", "count", "pad", "expected"),
    [
        (5, 3, "zero", [0, 1, 2]),
        (3, 3, "repeat", [0, 1, 2]),
        (3, 5, "zero", [0, 1, 2, 0, 0]),
        (3, 8, "repeat", [0, 1, 2, 0, 1, 2, 0, 1]),
        (0, 2, "repeat", [0, 0]),
    ],
)
def test_fit_length(length, count, pad, expected):
    fitted = audio.fit_length(np.arange(length, dtype=np.float32), count, pad)
    assert fitted.tolist() == expected
    assert fitted.dtype == np.float32


def test_windows_cover_everything():
    random = np.random.default_rng(0)
    for _ in range(300):
        samples, window = int(random.integers(1, 500)), int(random.integers(1, 120))
        hop = int(random.integers(1, window + 1))
        starts = audio.window_starts(samples, window, hop)
        covered = np.zeros(max(samples, window), bool)
        for start in starts:
            covered[start : start + window] = True
        assert covered.all()
        assert starts[0] == 0
        assert starts[-1] == max(samples - window, 0)  # nothing but a short recording is padded
        assert (np.diff(starts) > 0).all()
        assert (np.diff(starts) <= hop).all()
        assert len(starts) == 1 + -(-max(samples - window, 0) // hop)  # as few as cover it
