"""From nothing to a table, offline: prepare, pretrain, linear evaluation, embed, probe, report."""

from __future__ import annotations

import numpy as np
from safetensors.numpy import load_file

from tonnetz.checkpoint import load_checkpoint

CORPUS = ["data=synthetic", "data.corpus.files=8", "data.corpus.seconds=0.8", "data.corpus.workers=1"]
CORPUS += ["data.corpus.instruments=[flute,harpsichord,snare_drum]", "data.workers=0"]
SOUND = ["frontend=raw", "frontend.sample_rate=16000", "pooling=mean"]
TUNE = ["model=tune_plus", "model.width=2", "model.tail=[4,8,8,8,8,8,8,8,16]"]
SHORT = [
    "task.plan.seconds=0.4101",
    "trainer=cpu",
    "job.figures=false",
    "job.baseline=false",
    "augment=light",
]  # 3 ** 8
PROBE = ["job.protocol.max_steps=64", "job.seeds=1", "job.draws=50"]


def ran(done):
    assert done.status == 0, done.err
    return done


def test_the_chain(cli):
    ran(cli("job=prepare", *CORPUS, *SOUND, run="prepared"))
    steps = ["trainer.max_epochs=2", "task.plan.steps=2", "data.batch_size=8"]
    pretrained = ran(cli("task=contrastive", *CORPUS, *SOUND, *TUNE, *SHORT, *steps, run="pretrained"))
    checkpoint = pretrained.folder / "checkpoints/last.ckpt"
    assert load_checkpoint(checkpoint)["epoch"] == 1
    linear = ran(cli("job=probe", f"ckpt={checkpoint}", "job.preset=linear", *PROBE, run="linear"))
    embedded = ran(cli("job=embed", f"ckpt={checkpoint}", run="embedded"))
    vectors = load_file(embedded.folder / "embeddings.safetensors")
    assert any(value.shape[-1] == 16 and np.isfinite(value).all() for value in vectors.values() if value.ndim == 2)
    probed = ran(cli("job=probe", f"ckpt={checkpoint}", "job.preset=fast", *PROBE, run="probed"))
    for done, name in ((linear, "linear"), (probed, "fast")):
        result = done.json("probe.json")
        assert result["protocol"]["name"] == result["preset"] == name
        assert (result["seed"], result["split"]["seed"]) == (1, 0)
        assert result["split"]["name"] == "synthetic/labels"
        assert len(result["data"]["fingerprint"]) == 16
        assert result["config"]["model"]["width"] == 2
        assert result["pretraining"]["stages"][0]["task"] == "contrastive"
        assert not result["transductive"]
        assert [row["features"] for row in result["rows"]] == ["model", "random", "mfcc", "chroma", "constant"]
    reported = ran(cli("job=report", f"job.runs=[{probed.folder}]", run="reported"))
    report = reported.json("report.json")
    assert list(report["rows"]) == ["probed", "random (probed)", "mfcc", "chroma", "constant"]
    (facts,) = report["facts"].values()
    assert (facts["preset"], facts["split"], facts["seed"]) == ("fast", probed.json("probe.json")["split"], 1)
    assert facts["data"]["fingerprint"] in (reported.folder / "report.md").read_text()
