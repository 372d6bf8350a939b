"""The key-equivariant network: transposing the music turns its output, and untrained it is a chroma."""

import pytest
import torch

from tests.models.test_contract import make
from tonnetz.models import KeyEquivariant, length_mask

SILENCE = -100.0
OCTAVES, FRAMES = 7, 30


@pytest.fixture(scope="module")
def network():
    """A network with non-trivial statistics, weights and octaves."""
    torch.manual_seed(1)
    made = KeyEquivariant(1, 12 * OCTAVES, width=8, depth=3, planes=2, residual=1.0).eval()
    for key, value in made.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_(0, 0.1)
        elif key.endswith(("running_var", "octave_weight")):
            value.uniform_(0.5, 1.5)
    return made


def music(lowest, highest, seed=0):
    """Random levels (1, 1, F, T) in dB in the pitch classes lowest <= c < highest of all octaves, else silence."""
    level = -40 * torch.rand(1, 1, OCTAVES, 12, FRAMES, generator=torch.Generator().manual_seed(seed))
    level[:, :, :, :lowest] = level[:, :, :, highest:] = SILENCE
    return level.flatten(2, 3)


def moved(x, bins):
    """The same music some bins higher; silence enters from below."""
    return torch.cat([torch.full_like(x[:, :, :bins], SILENCE), x[:, :, : x.shape[2] - bins]], 2)


def turned(h, semitones):
    return h.unflatten(-1, (-1, 12)).roll(semitones, -1).flatten(-2)


@pytest.mark.parametrize("semitones", range(12))
def test_a_transposition_within_octaves_turns_the_output(network, semitones):
    x = music(0, 12 - semitones, seed=semitones)
    with torch.no_grad():
        h, other = network(x), network(moved(x, semitones))
    torch.testing.assert_close(other, turned(h, semitones), atol=1e-5, rtol=0)
    if semitones:
        assert (other - h).abs().max() > 0.1


@pytest.mark.parametrize("semitones", range(1, 12))
def test_across_octaves_the_output_nearly_turns(semitones):
    torch.manual_seed(2)
    network = KeyEquivariant(1, 12 * OCTAVES).eval()
    x = music(0, 12, seed=semitones)
    x[:, :, :24] = x[:, :, -36:] = SILENCE  # octaves that weigh alike on either side
    x -= x.amax()
    with torch.no_grad():
        h, other = network(x), network(moved(x, semitones))
    assert torch.cosine_similarity(turned(h, semitones), other, dim=-1).mean() > 0.7
    network.output.weight.data.zero_()  # the chroma itself sums over octaves
    with torch.no_grad():
        h, other = network(x), network(moved(x, semitones))
    torch.testing.assert_close(other, turned(h, semitones), atol=1e-5, rtol=0)


def test_fine_bins_of_a_pitch_class_are_averaged():
    torch.manual_seed(3)
    network = KeyEquivariant(1, 36 * 3, bins_per_octave=36).eval()
    plain = KeyEquivariant(1, 12 * 3).eval()
    plain.load_state_dict(network.state_dict())
    x = -50 * torch.rand(1, 1, 36, FRAMES)
    x[0, 0, 0] = 0.0
    with torch.no_grad():
        fine = x.repeat_interleave(3, 2)  # a pitch is its bin and one on either side
        fine = torch.cat([fine[:, :, 1:], fine[:, :, -1:]], 2)
        torch.testing.assert_close(network(fine), plain(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("octaves", [3, 7])
def test_without_a_residual_it_is_a_chroma(octaves):
    network = KeyEquivariant(1, 12 * octaves, residual=0.0).eval()
    x = -80 * torch.rand(2, 1, 12 * octaves, 11)
    with torch.no_grad():
        h = network(x)
    weights = [0, 0, *[1] * (octaves - 3), 0] if octaves > 4 else [1] * octaves
    for example in range(2):
        top = float(x[example].max())
        for frame in range(3):
            chroma = torch.zeros(12)
            for t in range(4 * frame, min(4 * frame + 4, 11)):
                for octave, weight in enumerate(weights):
                    for pitch in range(12):
                        level = min(1.0, max(0.0, (float(x[example, 0, 12 * octave + pitch, t]) - top) / 60 + 1))
                        chroma[pitch] += weight * level**2
            chroma -= chroma.mean()
            torch.testing.assert_close(h[example, frame], chroma / chroma.norm(), atol=1e-5, rtol=0)


@pytest.mark.parametrize("valid", [1, 2, 3, 5, 30, 37, 38, 39])
@pytest.mark.parametrize("size", [39, 40, 41, 45])
def test_padding_is_silence_in_every_tap(valid, size):
    network = make("key_equivariant").eval()
    x = torch.randn(1, 1, 64, size)
    with torch.no_grad():
        alone, padded = network.layers(x[..., :valid]), network.layers(x, length_mask(torch.tensor([valid]), size))
    for tap, value in alone.items():
        torch.testing.assert_close(padded[tap][:, : value.shape[1]], value, rtol=1e-4, atol=1e-5)
        assert not padded[tap][:, value.shape[1] :].any()


def test_frames_are_units_and_silence_is_zero(network):
    with torch.no_grad():
        torch.testing.assert_close(network(music(0, 12)).norm(dim=-1), torch.ones(1, 8))
    chroma = KeyEquivariant(1, 24, residual=0.0).eval()
    with torch.no_grad():
        assert not chroma(torch.full((1, 1, 24, 8), SILENCE)).any()  # a flat spectrum has no chroma


def test_parameter_count():
    width, depth, kernel, planes, octaves = 32, 4, 3, 2, 7
    block = width * width * 12 * kernel + width * width + 4 * width + 1
    stem = octaves * width * 12 * 5 + 2 * octaves
    output = 2 * width + planes * width
    made = KeyEquivariant(1, 84, width, depth, kernel, planes)
    assert sum(p.numel() for p in made.parameters()) == octaves + stem + depth * block + output
