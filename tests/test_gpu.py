"""What only a GPU can show: that the views of pretraining, and a sweep of probes, are not what one waits for."""

import pytest
import torch

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, which this machine has not")


def test_views_take_less_than_a_quarter_of_a_step(cli, corpus):
    words = ["job=bench", "task=contrastive", "model=tune_plus", "augment=clmr", "data=folder", f"data.root={corpus}"]
    done = cli(*words, "data.batch_size=96", "trainer=gpu", "job.batches=20")
    assert done.status == 0, done.err
    seconds = done.json("bench.json")["seconds_per_batch"]
    assert seconds["wave augment"] < 0.25 * sum(seconds.values())
    views = done.json("bench.json")["batch_size"]  # two of each of 96 tracks
    assert views / sum(seconds.values()) > 10 * 182  # a second; the reference has about 182


def test_all_probes_take_less_than_ten_minutes(cli):
    done = cli("job=probe", "job.bench=1", "trainer=gpu")
    assert done.status == 0, done.err
    assert done.json("bench.json")["seconds"] < 600
