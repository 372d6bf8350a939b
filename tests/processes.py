"""A script that meets itself in two processes, whose findings are compared with those of one."""

import subprocess
import sys

import torch

from tests.conftest import ROOT

WORK = """
import sys, torch, torch.distributed as dist, torch.multiprocessing as mp

def work(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(found(rank), f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()

if __name__ == "__main__":
    mp.spawn(work, (sys.argv[1],), nprocs=2)
"""


def found_by_two(code, folder):
    """What ``found(rank)`` of a script gives in each of two processes that can talk to each other."""
    script = folder / "two.py"
    script.write_text(code + WORK)
    env = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "PATH": ""}
    words = [sys.executable, str(script), str(folder)]
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
