"""The data module: excerpts are what the files hold, windows cover them, splits and labels are right."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from tonnetz.audio import read
from tonnetz.data import AudioData, Plan
from tonnetz.datasets.folder import Folder
from tonnetz.errors import UserError
from tonnetz.frontend import LogMel
from tonnetz.tracks import DataSpec


def data(root, tmp_path, frontend=None, **options):
    plan = Plan(**{"seconds": 0.5, "steps": 4, **options.pop("plan", {})})
    return AudioData(
        [Folder(root)], frontend or LogMel(), plan, tmp_path / "cache", **{"batch_size": 6, "workers": 0, **options}
    )


def original(module, split, row):
    path = module.split(split)["path"][int(row)]
    sound, _ = soundfile.read(path, dtype="float32")
    return sound / np.abs(sound).max()


def test_excerpts_are_the_files_samples(corpus, tmp_path):
    module = data(corpus, tmp_path)
    for batch in module.train_dataloader():
        assert batch["audio"].shape == (6, 1, 8000)
        for audio, row, start, length in zip(
            batch["audio"], batch["row"], batch["start"], batch["lengths"], strict=True
        ):
            first = round(float(start) * 16000)
            expected = original(module, "train", row)[first : first + 8000]
            assert len(expected) == length
            np.testing.assert_allclose(audio[0, :length], expected, atol=2e-4)
            assert not audio[0, length:].any()


@pytest.mark.parametrize("hop", [None, 0.25])
def test_windows_cover_every_file_to_its_end(corpus, tmp_path, hop):
    module = data(corpus, tmp_path, plan={"hop": hop})
    covered = {}
    for batch in module.test_dataloader():
        for row, start, length in zip(batch["row"].tolist(), batch["start"], batch["lengths"], strict=True):
            first = round(float(start) * 16000)
            covered.setdefault(row, np.zeros(len(original(module, "test", row)), int))[first : first + int(length)] += 1
    assert len(covered) == module.split("test").height
    assert all((count > 0).all() for count in covered.values())


def test_repeat_fills_short_files(corpus, tmp_path):
    module = data(corpus, tmp_path, plan={"seconds": 3.0, "pad": "repeat"})
    batch = next(iter(module.test_dataloader()))
    assert (batch["lengths"] == 48000).all()
    sound = original(module, "test", batch["row"][0])
    np.testing.assert_allclose(batch["audio"][0, 0], np.resize(sound, 48000), atol=2e-4)


def test_stored_features_equal_the_front_end(corpus, tmp_path):
    frontend = LogMel()
    audio, features = data(corpus, tmp_path, frontend), data(corpus, tmp_path, frontend, plan={"source": "features"})
    for one, two in zip(audio.test_dataloader(), features.test_dataloader(), strict=True):
        expected = frontend(one["audio"])  # (B, 1, F, T)
        on_grid = (one["start"] * 16000).round() % frontend.hop == 0  # other crops begin up to a frame earlier
        assert on_grid.any()
        inner = slice(2, 20)  # the edge frames of a crop see its end, those of the stored file do not
        one_part, two_part = expected[on_grid][..., inner], two["features"][on_grid][..., inner]
        torch.testing.assert_close(two_part, one_part, atol=0.0051, rtol=0)  # kept in steps of .01 dB
        assert two["features"].shape == expected.shape


@pytest.mark.parametrize("again", ["folder", "prepared"])
def test_features_of_a_replaced_file_are_made_anew(cli, tmp_path, again):
    """Also of one of equal length and peak that is read where it lies."""
    root, sound = tmp_path / "sounds", np.random.default_rng(0).uniform(-0.5, 0.5, (2, 8000))
    sound[:, 0] = 0.5
    (root / "x").mkdir(parents=True)

    def stored(*words):
        for name, one in zip("ab", sound, strict=True):
            soundfile.write(root / "x" / f"{name}.wav", one, 16000)
        before = set((tmp_path / "data").rglob("features/*/*.npy"))
        done = cli("job=prepare", "job.features=true", "frontend=logmel", *words)
        assert done.status == 0, done.err
        (path,) = {p for p in (tmp_path / "data").rglob("features/*/*.npy") if ".frames" not in p.name} - before
        return np.load(path)

    first = stored("data=folder", f"data.root={root}")
    if again == "prepared":
        (home,) = (tmp_path / "data").glob("folder-*")
        assert "stamp" not in (home / "tracks.jsonl").read_text()
    sound = sound[::-1]
    words = ["data=folder", f"data.root={root}"] if again == "folder" else ["data=prepared", f"data.root={home}"]
    second = stored(*words)
    half = len(first) // 2
    np.testing.assert_array_equal(second, np.concatenate([first[half:], first[:half]]))


def test_decoded_files_have_their_state_in_their_name(tmp_path):
    (tmp_path / "sounds" / "x").mkdir(parents=True)
    tone = 0.5 * np.sin(np.arange(8000))
    soundfile.write(tmp_path / "sounds" / "x" / "plain.wav", tone, 16000)
    soundfile.write(tmp_path / "sounds" / "x" / "coded.flac", tone, 16000)
    module = data(tmp_path / "sounds", tmp_path)
    stamps = dict(module.everything.select("id", "stamp").rows())
    assert stamps["x/coded"] is None
    assert len(stamps["x/plain"]) == 24
    coded, plain = sorted(module.features().keys, key=lambda key: key.count("|"))
    assert coded.count("|") == 4  # so stores that are there stay valid
    assert plain.endswith(f"|{stamps['x/plain']}")


def test_no_file_is_in_two_splits(corpus, tmp_path):
    module = data(corpus, tmp_path)
    names = [set(module.split(split)["path"]) for split in ("train", "valid", "test")]
    assert not names[0] & names[1]
    assert not names[0] & names[2]
    assert not names[1] & names[2]
    assert sum(map(len, names)) == 30
    assert data(corpus, tmp_path, seed=5).split("test")["id"].to_list() == module.split("test")["id"].to_list()


def test_spec_describes_the_training_split(corpus, tmp_path):
    spec = data(corpus, tmp_path).spec
    assert spec.classes == ("buzz", "noise", "sine")
    assert sum(spec.positives) == spec.tracks["train"]
    assert not spec.multilabel
    assert DataSpec.from_dict(spec.to_dict()) == spec


def test_fraction_thins_the_training_split_only(corpus, tmp_path):
    whole, half = data(corpus, tmp_path), data(corpus, tmp_path, fraction=0.5)
    counts = [Counter(one.split("train")["labels"].explode()) for one in (whole, half)]
    assert counts[1] == {name: round(count / 2) for name, count in counts[0].items()}
    assert half.split("test")["id"].to_list() == whole.split("test")["id"].to_list()


def test_missing_split_is_named(corpus, tmp_path):
    with pytest.raises(UserError, match="no tracks in the split 'test'"):
        data(corpus, tmp_path, test=0.0).test_dataloader()


@pytest.mark.parametrize("source", ["audio", "features"])
def test_sound_may_keep_the_level_of_its_file_whatever_the_format(tmp_path, source):
    """Files that are read where they lie, resampled or decoded ones: as loud as `audio.read` has them."""
    rng, root = np.random.default_rng(0), tmp_path / "sounds"
    forms = {"plain": (16000, "PCM_16", "wav"), "float": (16000, "FLOAT", "wav"), "coded": (16000, "VORBIS", "ogg")}
    forms["rate"] = (44100, "PCM_16", "wav")
    for label in "ab":
        (root / label).mkdir(parents=True)
        for name, (rate, subtype, suffix) in forms.items():
            t = np.arange(rate) / rate
            sound = 0.1 * np.sin(2 * np.pi * 440 * t) * (1 + 0.1 * rng.random())
            soundfile.write(root / label / f"{name}.{suffix}", sound, rate, subtype=subtype)
    options = {"normalize": False, "valid": 0.0, "test": 0.5, "plan": {"seconds": 1.0, "source": source}}
    module, seen = data(root, tmp_path, **options), 0
    for batch in module.test_dataloader():
        for i, row in enumerate(batch["row"].tolist()):
            path = module.split("test")["path"][row]
            expected = read(path, 16000)[0]
            assert 0.09 < np.abs(expected).max() < 0.12
            if source == "audio":
                np.testing.assert_allclose(batch["audio"][i, 0], expected[:16000], atol=2e-5)
            else:
                features = LogMel()(torch.from_numpy(expected)[None, None])[0]
                # 16 bits at the file's own level: loud bands are the same
                loud = features > features.max() - 40
                size = batch["features"].shape[-1]
                torch.testing.assert_close(
                    batch["features"][i][loud[..., :size]], features[..., :size][loud[..., :size]], atol=0.05, rtol=0
                )
            seen += 1
    assert seen == module.split("test").height >= 2
    again = data(root, tmp_path, **{**options, "normalize": True, "plan": {"seconds": 1.0}})
    for batch in again.test_dataloader():
        torch.testing.assert_close(batch["audio"].abs().amax((1, 2)), torch.ones(len(batch["row"])), atol=2e-4, rtol=0)
