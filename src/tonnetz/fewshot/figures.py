"""Pictures of a few-shot test: confusions at each level, heads over shots, an episode as a map, the tree in colours."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tonnetz.fewshot.judging import Ladder
from tonnetz.fewshot.protocol import Answers
from tonnetz.figures import confusion_matrix
from tonnetz.projection import project
from tonnetz.taxonomy import Taxonomy
from tonnetz.tree_figure import draw_tree

ROLES = ("support", "prototype", "query, right", "query, wrong")
SUPPORT, PROTOTYPE, RIGHT, WRONG = ROLES
MARKS = {SUPPORT: "s", PROTOTYPE: "*", RIGHT: "o", WRONG: "X"}
SIZES = {SUPPORT: 55, PROTOTYPE: 240, RIGHT: 30, WRONG: 45}


def confusions(found: Answers, ladder: Ladder, title: str) -> dict[str, Figure]:
    """Confusion of the classes, and of their ancestors at each higher level that groups any."""
    said, true = (codes[found.asked] for codes in found.codes())
    count = len(ladder.names)
    drawn = {"confusion": confusion_matrix(_counts(true, said, count), ladder.names, f"{title}: classes, all episodes")}
    for level in range(1, ladder.depth):
        nodes, place = np.unique(ladder.levels[:, level].numpy(), return_inverse=True)
        if 1 < len(nodes) < count:
            where = torch.from_numpy(place)
            counts = _counts(where[true], where[said], len(nodes))
            names = [ladder.nodes[node] for node in nodes]
            title_of = f"{title}: level {level}, all episodes"
            drawn[f"confusion_level{level}"] = confusion_matrix(counts, names, title_of)
    return drawn


def _counts(true: Tensor, said: Tensor, count: int) -> np.ndarray:
    return torch.bincount(true * count + said, minlength=count**2).reshape(count, count).numpy()


def head_boxes(answers: Mapping[int, Mapping[str, Answers]], title: str) -> Figure:
    """Accuracy of every head over the episodes, a box for each number of shots."""
    heads = list(next(iter(answers.values())))
    figure = Figure(figsize=(max(6.0, 1.5 + 0.45 * len(heads) * len(answers)), 4.5), layout="constrained")
    axis = figure.subplots()
    colours = matplotlib.colormaps["viridis"](np.linspace(0.15, 0.85, len(answers)))
    width = 0.8 / len(answers)
    for i, (shots, found) in enumerate(answers.items()):
        places = np.arange(len(heads)) + (i - (len(answers) - 1) / 2) * width
        boxes = axis.boxplot(
            [found[name].accuracy.numpy() for name in heads],
            positions=places.tolist(),
            widths=width * 0.85,
            patch_artist=True,
            showfliers=False,
            medianprops={"color": "k"},
        )
        for box in boxes["boxes"]:
            box.set_facecolor(colours[i])
        axis.plot([], [], "s", color=colours[i], label=f"{shots} shot{'s' if shots > 1 else ''}")
    axis.set_xticks(range(len(heads)), heads, rotation=30, ha="right", fontsize=8)
    axis.set(ylabel="accuracy of an episode", title=title, ylim=(0, 1.02))
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def level_weights(weights: Tensor, heights: Sequence[int]) -> Figure:
    """Weight of each level's loss."""
    figure = Figure(figsize=(5, 3), layout="constrained")
    axis = figure.subplots()
    axis.stem(range(len(weights)), weights.detach().float().cpu().numpy())
    axis.set_xticks(range(len(weights)), [f"level {height}" if height else "classes" for height in (0, *heights)])
    axis.set(ylabel="weight", title="weights of the levels in the loss")
    axis.grid(alpha=0.3)
    return figure


def coloured_tree(found: Answers, ladder: Ladder, reference: str, title: str) -> Figure:
    """The reference tree with the accuracy of every class, and of every node: how often its clips stay under it."""
    tree = Taxonomy.load(reference)
    said, true = (codes[found.asked] for codes in found.codes())
    values: dict[str, float] = {}
    for level in range(ladder.depth):
        own, given = ladder.levels[true, level], ladder.levels[said, level]
        for node in own.unique().tolist():
            mine = own == node
            values[ladder.nodes[node]] = float((given[mine] == node).double().mean())
    return draw_tree(tree, [tree.resolve(name) for name in ladder.names], values, title)


@dataclass(frozen=True)
class Space:
    """One episode: points (N, 2) in the plane, deep (N, 3), roles, classes, answers, clips; prototypes have no clip."""

    points: np.ndarray
    deep: np.ndarray
    roles: list[str]
    classes: list[str]
    answers: list[str]
    clips: list[str]


def episode_space(
    z: Tensor,
    support: np.ndarray,
    found: Answers,
    ladder: Ladder,
    clips: Sequence[str],
    method: str = "tsne",
    number: int = 0,
) -> Space:
    """An episode of the answers on embeddings z (N, D), with its support rows (C, S), in the plane.

    Its third dimension is that of principal components, whatever lays out the plane: in closed form, and nothing bent.
    """
    names = [ladder.names[code] if code >= 0 else "" for code in found.classes[number].tolist()]
    parts, roles, classes, said, files = [], [], [], [], []
    for name, line in zip(names, support, strict=True):
        rows = line[line >= 0]
        if len(rows):
            parts += [z[rows], z[rows].mean(0, keepdim=True)]
            roles += [SUPPORT] * len(rows) + [PROTOTYPE]
            classes += [name] * (len(rows) + 1)
            said += [""] * (len(rows) + 1)
            files += [*(clips[row] for row in rows), ""]
    asked = found.asked[number]
    rows_asked = found.row[number][asked]
    answer, target = found.answer[number][asked].tolist(), found.target[number][asked].tolist()
    parts.append(z[rows_asked])
    roles += [RIGHT if a == t else WRONG for a, t in zip(answer, target, strict=True)]
    classes += [names[t] for t in target]
    said += [names[a] for a in answer]
    files += [clips[row] for row in rows_asked.tolist()]
    vectors = torch.cat(parts).double()
    distance = torch.cdist(vectors, vectors).numpy()
    points, deep = (np.asarray(project(distance, *how), float) for how in ((method,), ("pca", 0, 3)))
    return Space(points, deep, roles, classes, said, files)


def space_figure(space: Space, title: str) -> Figure:
    """Classes as colours, roles as marks."""
    names = sorted(set(space.classes))
    shades = matplotlib.colormaps["tab10" if len(names) <= 10 else "tab20"]
    colours = dict(zip(names, shades(np.arange(len(names)) % shades.N), strict=True))
    figure = Figure(figsize=(8, 6.5), layout="constrained")
    axis = figure.subplots()
    for role in ROLES:
        mine = [i for i, other in enumerate(space.roles) if other == role]
        if mine:
            x, y = space.points[mine].T
            axis.scatter(
                x,
                y,
                c=[colours[space.classes[i]] for i in mine],
                marker=MARKS[role],
                s=SIZES[role],
                edgecolors="k",
                linewidths=0.4,
            )
            axis.scatter([], [], c="0.6", marker=MARKS[role], s=50, edgecolors="k", linewidths=0.4, label=role)
    for name in names:
        axis.plot([], [], "o", color=colours[name], label=name.replace("_", " "))
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axis.set(xticks=[], yticks=[], title=title)
    return figure


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:14px sans-serif;margin:1em}}svg{{border:1px solid #ccc;width:100%;max-width:900px}}
path{{stroke:#000;stroke-width:.6;cursor:pointer}}path:hover{{stroke-width:2.5}}#said{{min-height:1.6em}}</style>
<h1>{title}</h1><p>Click a mark to hear its file. <label>Episode <select id="episode"></select></label>
<label>Colour <select id="colour"></select></label>
<label><input type="checkbox" id="deep"> three dimensions (principal components; drag to turn)</label></p>
<div id="said"></div><audio id="player" controls></audio>
<svg viewBox="0 0 900 640" id="map"></svg><div id="key"></div>
<script>
const episodes = {episodes};
const shapes = {{
  "support": "M-6-6H6V6H-6Z",
  "prototype": "M0-12L3-4L11-4L5 2L8 10L0 5L-8 10L-5 2L-11-4L-3-4Z",
  "query, right": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0-10 0",
  "query, wrong": "M-6-3L-3-6L0-3L3-6L6-3L3 0L6 3L3 6L0 3L-3 6L-6 3L-3 0Z"}};
const part = id => document.getElementById(id);
const offer = (id, values) => values.forEach(value => part(id).append(new Option(value, value)));
offer("episode", episodes.map((points, i) => i + 1));
let marks = [], turn = [0.6, 0.4];
offer("colour", ["class", "role", "answer", ...Object.keys(Object.assign({{}}, ...episodes[0].map(p => p.facts)))]);
function draw() {{
  const points = episodes[part("episode").value - 1], key = part("colour").value;
  const value = p => String((key in p ? p[key] : p.facts[key]) ?? "");
  const order = (a, b) => a.localeCompare(b, "en", {{numeric: true}});
  const names = [...new Set(points.map(value))].filter(name => name).sort(order);
  const hue = name => name ? "hsl(" + Math.round(360 * names.indexOf(name) / names.length) + ",70%,55%)" : "#ddd";
  part("map").replaceChildren();
  part("key").replaceChildren();
  marks = points.map(p => {{
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "path");
    mark.setAttribute("d", shapes[p.role]);
    mark.setAttribute("fill", hue(value(p)));
    const mistake = p.answer && p.answer !== p.class ? ", taken for " + p.answer : "";
    const words = `${{p.class}} (${{p.role}}${{mistake}}) ${{p.clip}}`;
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = words;
    mark.append(title);
    mark.addEventListener("click", () => {{
      part("said").textContent = words;
      if (p.url) {{ const player = part("player"); player.src = p.url; player.play(); }}
    }});
    return [mark, p];
  }});
  place();
  for (const name of names) {{
    const word = document.createElement("span");
    word.textContent = "\\u25cf " + name + "  ";
    word.style.color = hue(name);
    part("key").append(word);
  }}
}}
function seen(p) {{  // horizontally, vertically, and how near
  const [a, b] = turn, [x, y, z] = p.deep;
  const u = x * Math.cos(a) + z * Math.sin(a), w = z * Math.cos(a) - x * Math.sin(a);
  return [450 + 290 * u, 320 + 290 * (y * Math.cos(b) - w * Math.sin(b)), w * Math.cos(b) + y * Math.sin(b)];
}}
function place() {{
  const spots = marks.map(([mark, p]) => [mark, ...(part("deep").checked ? seen(p) : [p.x, p.y, 0])]);
  spots.sort((one, other) => one[3] - other[3]);
  for (const [mark, x, y, near] of spots) {{
    mark.setAttribute("transform", `translate(${{x}},${{y}}) scale(${{1 + near / 3}})`);
    part("map").append(mark);
  }}
}}
part("map").addEventListener("pointermove", event => {{
  if (!event.buttons || !part("deep").checked) return;
  turn = [turn[0] + event.movementX / 150, turn[1] + event.movementY / 150];
  place();
}});
part("deep").addEventListener("change", place);
part("episode").addEventListener("change", draw);
part("colour").addEventListener("change", draw);
draw();
</script></html>
"""


def space_page(
    spaces: Sequence[Space], title: str, urls: Mapping[str, str], facts: Mapping[str, Mapping[str, Any]] | None = None
) -> str:
    """Episodes to choose from as a page of its own, where a mark plays its file.

    `urls` are by clip, and so are `facts`: further columns to colour by.
    """
    episodes = [_marks(space, urls, facts or {}) for space in spaces]
    data = json.dumps(episodes, ensure_ascii=False).replace("</", "<\\/")
    return PAGE.format(title=html.escape(title), episodes=data)


def _marks(space: Space, urls: Mapping[str, str], facts: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    low, high = space.points.min(0), space.points.max(0)
    place = 30 + (space.points - low) / np.maximum(high - low, 1e-9) * np.array([840, 580])
    middle = space.deep - space.deep.mean(0)
    deep = (middle / max(float(np.linalg.norm(middle, axis=1).max()), 1e-9)).round(3).tolist()  # in the unit ball
    rows = zip(place.round(1).tolist(), deep, space.roles, space.classes, space.answers, space.clips, strict=True)
    return [
        {"x": x, "y": y, "deep": ball, "role": role, "class": name, "answer": said, "clip": clip}
        | {"url": urls.get(clip, ""), "facts": dict(facts.get(clip, {}))}
        for (x, y), ball, role, name, said, clip in rows
    ]
