"""Labels and chances of recordings, written for programs and spreadsheets, and printed."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tonnetz.atomic import replacing


def write_predictions(folder: Path, found: list[dict[str, Any]], classes: Sequence[str], timeline: bool) -> None:
    """JSON Lines with everything, CSV with one row a file, CSV with one row a window."""
    with (
        replacing(folder / "predictions.jsonl") as one,
        replacing(folder / "predictions.csv") as two,
        one.open("w") as lines,
        two.open("w", newline="") as file,
    ):
        table = csv.writer(file)
        place = ["id", "path"] if any("id" in item for item in found) else ["path"]
        table.writerow([*place, "labels", *classes])
        for item in found:
            line = {key: item[key] for key in (*place, "labels", "probabilities")}
            if timeline:
                rows = zip(item["start"], item["end"], item["windows"].tolist(), strict=True)
                line["timeline"] = [
                    {
                        "start": round(s, 3),
                        "end": round(e, 3),
                        **{c: round(p, 4) for c, p in zip(classes, w, strict=True)},
                    }
                    for s, e, w in rows
                ]
            lines.write(json.dumps(line, ensure_ascii=False) + "\n")
            cells = [*(item[key] for key in place), ";".join(item["labels"])]
            table.writerow([*cells, *(item["probabilities"][c] for c in classes)])
    if timeline:
        with replacing(folder / "timeline.csv") as part, part.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "start", "end", *classes])
            for item in found:
                for start, end, window in zip(item["start"], item["end"], item["windows"].tolist(), strict=True):
                    table.writerow(
                        [
                            item["path"],
                            f"{start:.3f}",
                            f"{end:.3f}",
                            *(f"{p:.6f}" for p in window),
                        ]
                    )


def show(found: list[dict[str, Any]], most: int = 30) -> None:
    """Print labels and the three most likely classes of the first files."""
    for item in found[:most]:
        top = ", ".join(f"{name} {p:.2f}" for name, p in list(item["probabilities"].items())[:3])
        print(f"{item['path']}: {', '.join(item['labels']) or '(none)'}  [{top}]")
    if len(found) > most:
        print(f"... and {len(found) - most} more")
