# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""One drawing in each format of labels, written by hand: a wire, a ball over it, and a pad with a hole."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 60, 80
WIRE = [10, 5, 50, 5, 50, 8, 10, 8]  # x, y
BALL = [40, 4, 46, 4, 46, 10, 40, 10]
PAD = (slice(40, 55), slice(10, 30))
HOLE = (slice(45, 50), slice(15, 20))
PAD_CUT = [10, 40, 30, 40, 30, 55, 10, 55, 10, 40, 15, 45, 15, 50, 20, 50, 20, 45, 15, 45]  # the hole reached by a cut
COLOURS = {"background": (0, 0, 0), "pad": (255, 0, 0), "wire": (0, 255, 0), "ball": (9, 8, 7)}


def drawing() -> np.ndarray:
    """Return the mask, 0 background, 1 pad, 2 wire, 3 ball, by slices alone."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
    mask[PAD], mask[HOLE] = 1, 0
    mask[5:8, 10:50] = 2
    mask[4:10, 40:46] = 3
    return mask


def pad() -> np.ndarray:
    return drawing() == 1


def picture(path: Path) -> None:
    """Write a picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def runs(flat: np.ndarray) -> list[int]:
    """Return run lengths, those outside first, one pixel at a time."""
    counts, value = [0], False
    for here in flat.tolist():
        if here != value:
            counts.append(0)
            value = here
        counts[-1] += 1
    return counts


def coco(root: Path) -> None:
    picture(root / "images" / "u1.png")
    shapes = [(2, [WIRE]), (3, [BALL]), (1, {"counts": runs(pad().ravel(order="F")), "size": [HEIGHT, WIDTH]})]
    content = {
        "images": [{"id": 7, "file_name": "u1.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(("pad", "wire", "ball"), start=1)],
        "annotations": [
            {"id": i, "image_id": 7, "category_id": category, "segmentation": segmentation}
            for i, (category, segmentation) in enumerate(shapes)
        ],
    }
    (root / "annotations").mkdir(exist_ok=True)
    (root / "annotations" / "instances.json").write_text(json.dumps(content))


def cvat(root: Path) -> None:
    picture(root / "images" / "sub" / "u1.png")
    crop = ", ".join(map(str, runs(pad()[PAD].ravel())))
    names = "".join(f"<label><name>{name}</name></label>" for name in ("pad", "wire", "ball"))

    def text(flat: list[int]) -> str:
        return ";".join(f"{x},{y}" for x, y in zip(flat[::2], flat[1::2], strict=True))

    (root / "annotations.xml").write_text(f"""<?xml version="1.0"?>
<annotations><meta><task><labels>{names}</labels></task></meta>
<image id="0" name="sub/u1.png" width="{WIDTH}" height="{HEIGHT}">
  <box label="ball" z_order="1" xtl="40" ytl="4" xbr="46" ybr="10"/>
  <polygon label="wire" z_order="0" points="{text(WIRE)}"/>
  <mask label="pad" z_order="0" left="10" top="40" width="20" height="15" rle="{crop}"/>
</image></annotations>""")


def labelme(root: Path) -> None:
    picture(root / "u1.png")
    buffer = io.BytesIO()
    Image.fromarray(pad()[PAD]).save(buffer, format="PNG")
    mask = base64.b64encode(buffer.getvalue()).decode()
    shapes = [
        {"label": "wire", "points": np.reshape(WIRE, (-1, 2)).tolist(), "shape_type": "polygon"},
        {"label": "ball", "points": [[46, 10], [40, 4]], "shape_type": "rectangle"},
        {"label": "pad", "points": [[10, 40], [29, 54]], "shape_type": "mask", "mask": mask},
    ]
    content = {"shapes": shapes, "imagePath": "u1.png", "imageData": None, "imageHeight": HEIGHT, "imageWidth": WIDTH}
    (root / "u1.json").write_text(json.dumps(content))
    (root / "labels.txt").write_text("__ignore__\n_background_\npad\nwire\nball\n")


def packed(values: np.ndarray) -> list[int]:
    """Return bytes in which a value of 8 bits is repeated by runs of 16 bits, and the last run is of literals."""
    bits = f"{len(values):032b}" + f"{7:05b}" + "".join(f"{n - 1:04b}" for n in (3, 4, 8, 16))
    flat, at = values.tolist(), 0
    while at < len(flat) - 4:
        end = at
        while end < len(flat) - 4 and flat[end] == flat[at]:
            end += 1
        bits += "1" + "11" + f"{end - at - 1:016b}" + f"{flat[at]:08b}"
        at = end
    bits += "0" + "00" + f"{3:03b}" + "".join(f"{value:08b}" for value in flat[-4:])
    bits += "0" * (-len(bits) % 8)
    return [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


def label_studio(root: Path) -> None:
    picture(root / "u1.png")
    size = {"original_width": WIDTH, "original_height": HEIGHT}
    alpha = np.zeros((HEIGHT, WIDTH, 4), dtype=np.uint8)
    alpha[pad()] = 255
    wire = (np.reshape(WIRE, (-1, 2)) / (WIDTH, HEIGHT) * 100).tolist()
    ball = {"x": 50, "y": 100 * 4 / HEIGHT, "width": 7.5, "height": 10, "rotation": 0, "rectanglelabels": ["ball"]}
    brush = {"format": "rle", "rle": packed(alpha.ravel()), "brushlabels": ["pad"]}
    results = [
        {"type": "polygonlabels", "value": {"points": wire, "polygonlabels": ["wire"]}, **size},
        {"type": "rectanglelabels", "value": ball, **size},
        {"type": "brushlabels", "value": brush, **size},
    ]
    cancelled = {"was_cancelled": True, "result": results[:1]}
    task = {"id": 1, "data": {"image": "/data/upload/1/0123abcd-u1.png"}}
    content = [{**task, "annotations": [{"result": results}, cancelled]}]
    (root / "project-1.json").write_text(json.dumps(content))


def datumaro(root: Path) -> None:
    picture(root / "images" / "default" / "u1.png")
    annotations = [
        {"type": "polygon", "label_id": 2, "points": BALL, "z_order": 1},
        {"type": "polygon", "label_id": 1, "points": WIRE, "z_order": 0},
        {"type": "mask", "label_id": 0, "rle": {"counts": runs(pad().ravel(order="F")), "size": [HEIGHT, WIDTH]}},
        {"type": "label", "label_id": 0},
    ]
    labels = [{"name": name, "parent": ""} for name in ("pad", "wire", "ball")]
    item = {"id": "u1", "annotations": annotations, "image": {"path": "u1.png", "size": [HEIGHT, WIDTH]}}
    (root / "annotations").mkdir(exist_ok=True)
    content = {"info": {}, "categories": {"label": {"labels": labels}}, "items": [item]}
    (root / "annotations" / "default.json").write_text(json.dumps(content))


def yolo(root: Path) -> None:
    picture(root / "images" / "train" / "u1.png")
    lines = []
    for index, flat in ((1, WIRE), (2, BALL), (0, PAD_CUT)):
        shares = (np.reshape(flat, (-1, 2)) / (WIDTH, HEIGHT)).ravel()
        lines.append(" ".join([str(index), *(f"{value:.6f}" for value in shares)]))
    (root / "labels" / "train").mkdir(parents=True, exist_ok=True)
    (root / "labels" / "train" / "u1.txt").write_text("\n".join(lines))
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nnames:\n  0: pad\n  1: wire\n  2: ball\n")


def _coloured(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(list(COLOURS.values()), dtype=np.uint8)[drawing()]).save(path)


def pascal_voc(root: Path) -> None:
    picture(root / "JPEGImages" / "u1.png")
    _coloured(root / "SegmentationClass" / "u1.png")
    lines = [f"{name}:{','.join(map(str, colour))}::" for name, colour in COLOURS.items()]
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(lines))


def cityscapes(root: Path) -> None:
    picture(root / "leftImg8bit" / "train" / "u1_leftImg8bit.png")
    _coloured(root / "gtFine" / "train" / "u1_gtFine_color.png")
    (root / "label_colors.txt").write_text("\n".join(f"{r} {g} {b} {name}" for name, (r, g, b) in COLOURS.items()))


def masks(root: Path) -> None:
    picture(root / "images" / "u1.png")
    (root / "masks").mkdir(exist_ok=True)
    Image.fromarray(drawing()).save(root / "masks" / "u1.png")
    (root / "classes.txt").write_text("background\npad\nwire\nball\n")


EXPORTS: dict[str, Callable[[Path], None]] = {
    "COCO": coco,
    "CVAT": cvat,
    "LabelMe": labelme,
    "Label Studio": label_studio,
    "Datumaro": datumaro,
    "YOLO": yolo,
    "Pascal VOC": pascal_voc,
    "Cityscapes": cityscapes,
    "masks": masks,
}


def export(name: str, root: Path) -> Path:
    """Write the export of a format into a folder."""
    root.mkdir(parents=True, exist_ok=True)
    EXPORTS[name](root)
    return root
