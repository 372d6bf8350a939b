"""Write down which episodes a command's training steps and tests get, in each of its processes.

As a script it runs a command like src/main.py and records into the folder that TONNETZ_RECORDING names.
"""

import json
import os
import sys
from pathlib import Path

from tonnetz.fewshot.episodes import save_episodes
from tonnetz.fewshot.protocol import Protocol
from tonnetz.tasks.fewshot import FewShot


def record(folder, patch=setattr):
    """From now on FOLDER/train-RANK.jsonl gets a line a step (number, clips), test-RANK.jsonl the test's list."""
    compare, draw = FewShot.compare, Protocol.draw

    def compared(self, z, batch):
        ids = self.data.split("train")["id"].to_list()
        columns = (batch[key].tolist() for key in ("row", "episode", "slot", "support"))
        clips = [[ids[row], *place] for row, *place in zip(*columns, strict=True)]
        with (folder / f"train-{self.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([self.trainer.global_step, clips]) + "\n")
        return compare(self, z, batch)

    def drawn(self, pool, stage, ids=(), **how):
        found = draw(self, pool, stage, ids, **how)
        if stage == "test":
            save_episodes(found, folder / f"test-{os.environ.get('LOCAL_RANK', 0)}.jsonl", ids, pool.names)
        return found

    folder.mkdir(exist_ok=True)
    patch(FewShot, "compare", compared)
    patch(Protocol, "draw", drawn)


def read(folder, rank=0):
    """What each step was trained on, and the bytes of the test's list."""
    lines = [json.loads(line) for line in (folder / f"train-{rank}.jsonl").read_text().splitlines()]
    return dict(lines), (folder / f"test-{rank}.jsonl").read_bytes()


if __name__ == "__main__":
    from tonnetz.cli import main

    record(Path(os.environ["TONNETZ_RECORDING"]))
    sys.exit(main())
