"""A MedleyDB of six songs with six stems each, from stems to few-shot episodes: windows, partition, training, test."""

import json

import numpy as np
import pytest
import soundfile
import yaml

RATE = 8000
INSTRUMENTS = ["violin", "cello", "flute", "clarinet", "trumpet", "piano"]
LOST = ("Band3_Song", 2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Every song has all instruments; one stem is not there, one song has bleed, one has activations."""
    folder = tmp_path_factory.mktemp("MedleyDB")
    for song in range(6):
        track = f"Band{song}_Song"
        stems = {}
        for number, instrument in enumerate(INSTRUMENTS, 1):
            name = f"{track}_STEM_{number:02d}"
            stems[f"S{number:02d}"] = {"component": "", "filename": f"{name}.wav", "instrument": instrument, "raw": {}}
            path = folder / "Audio" / track / f"{track}_STEMS" / f"{name}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            t = np.arange(2 * RATE) / RATE
            tone = sum(np.sin(2 * np.pi * 110 * number * k * t) / k ** (0.5 + 0.3 * number) for k in range(1, 5))
            sound = np.where(t < 1, 0.0, 0.2 * tone) + 1e-4 * np.random.default_rng([song, number]).standard_normal(
                len(t)
            )
            if (track, number) != LOST:
                soundfile.write(path, sound, RATE)
        facts = {"artist": f"Band{song}", "genre": "Jazz", "has_bleed": "yes" if song == 1 else "no", "stems": stems}
        beside = folder / "Audio" / track / f"{track}_METADATA.yaml"
        beside.write_text(yaml.safe_dump({**facts, "excerpt": "no", "version": 1.2}))
    time = np.arange(43) * 2048 / 44100
    lines = [",".join(["time", *(f"S{n + 1:02d}" for n in range(6))])]
    lines += [f"{t:.4f}," + ",".join([f"{0.9 if t > 1 else 0.01:.4f}"] * 6) for t in time]
    conf = folder / "Annotations/Activation_Confidence/Band0_Song_ACTIVATION_CONF.lab"
    conf.parent.mkdir(parents=True)
    conf.write_text("\n".join(lines) + "\n")
    return folder


SMALL = [
    "data=medleydb",
    "data.windows={seconds: 0.25, hop: 0.25}",
    "data.valid=0.33",
    "data.test=0.34",
    "data.workers=0",
    "task.plan.seconds=0.25",
    "task.plan.ways=2",
    "task.plan.shots=1",
    "task.plan.queries=2",
    "task.plan.steps=2",
    "task.plan.episodes=1",
    "task.evaluation.ways=2",
    "task.evaluation.shots=[1]",
    "task.evaluation.queries=2",
    "task.evaluation.episodes=10",
    "task.evaluation.valid_episodes=5",
    "task.evaluation.rounds=10",
    "model=tiny",
    "trainer=cpu",
    "trainer.max_epochs=1",
    "job.figures=false",
    "job.baseline=false",
]


def test_prepare_partition_and_train(cli, root):
    dealt = cli("job=partition", "task=fewshot", *SMALL[:4], f"data.root={root}", run="parts")
    assert dealt.status == 0, dealt.err
    parts = json.loads((dealt.folder / "partition.json").read_text())
    assert sorted(name for names in parts.values() for name in names) == sorted(INSTRUMENTS)
    done = cli("task=fewshot", *SMALL, f"data.root={root}", "data.corpus.bleed=drop", run="fit")
    assert done.status == 0, done.err
    told = json.loads((done.folder / "manifest.json").read_text())["data"]["coverage"]["medleydb"]
    assert told["missing"] == ["Band3_Song_STEM_02"]
    assert done.out.count("Band3_Song_STEM_02") == 1
    answers = (done.folder / "answers.csv").read_text()
    assert "Band1_Song" not in answers  # bleed
    for line in answers.splitlines()[1:]:
        clip = line.split(",")[1]
        assert float(clip.split("@")[1]) >= 0.75  # the first second of a stem is silent
