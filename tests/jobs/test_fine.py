"""Coarse to fine: train, align, go on with aligned crops; an alignment of another model is refused."""

import torch

from tests.jobs.test_crossval import WORKS


def test_coarse_align_fine(cli):
    coarse = cli(*WORKS, run="coarse")
    assert coarse.status == 0, coarse.err
    ckpt = coarse.folder / "checkpoints/best.ckpt"
    aligned = cli("job=align", f"ckpt={ckpt}", "job.window=1", "job.hop=0.5", run="aligned")
    assert aligned.status == 0, aligned.err
    file = aligned.folder / "alignment.jsonl"
    words = [*WORKS, "experiment=csi_fine", "task.plan.seconds=[2.0,1.5]", f"task.plan.alignment={file}"]
    fine = cli(*words, f"init={ckpt}", run="fine")
    assert fine.status == 0, fine.err
    before, after = (
        torch.load(done.folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for done in (coarse, fine)
    )
    assert any(not torch.equal(before[name], after[name]) for name in before)
    other = cli(*words, f"init={fine.folder / 'checkpoints/best.ckpt'}", run="other")
    assert other.status == 2
    assert "run job=align again" in other.err
    assert len(other.err.strip().splitlines()) == 1
    missing = cli(*WORKS, "task.plan.alignment=nowhere.jsonl", run="missing")
    assert missing.status == 2
    assert "nowhere.jsonl" in missing.err
    relay = cli(*words, f"init={ckpt}", "job=crossval", "job.folds=2", run="relay")  # later folds start elsewhere
    assert relay.status == 0, relay.err


def test_a_sweep_of_reductions_tests_a_checkpoint_on_validation(cli):
    done = cli(*WORKS, run="trained")
    ckpt = done.folder / "checkpoints/best.ckpt"
    words = ["-m", "sweep=csi_reductions", f"ckpt={ckpt}", "task.reduction=min,best-2", "trainer=cpu"]
    swept = cli(*words, run="swept")
    assert swept.status == 0, swept.err
    text = (swept.folder / "sweep.md").read_text()
    assert "task.reduction=min" in text
    assert (swept.folder / "0/manifest.json").exists()
    scores = [line.split("|")[3].strip() for line in text.splitlines() if line.startswith("| task.reduction=")]
    assert all(0 < float(score) <= 1 for score in scores)
