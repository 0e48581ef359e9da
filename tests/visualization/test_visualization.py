# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""Pictures show the classes' colours where the classes are, and files appear whole or not at all."""

from pathlib import Path

import numpy as np
import pytest
import torch
from anomalib.visualization.image.functional import apply_colormap
from PIL import Image

from anomalib_aoissl.data.describing.class_colours import palette, write_class_index_png
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.files import whole_file
from anomalib_aoissl.data.items import SegmentationBatch, SegmentationItem
from anomalib_aoissl.data.resizing import resize_mask
from anomalib_aoissl.visualization.output_names import OutputNames
from anomalib_aoissl.visualization.overlay import legend, overlay_mask, picture_of
from anomalib_aoissl.visualization.visualizer import SegmentationVisualizer


def test_colours_are_distinct_and_ignore_is_white() -> None:
    colours = palette(40)
    assert len({tuple(colour) for colour in colours[:40].tolist()}) == 40
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[255].tolist() == [255, 255, 255]


def test_two_packed_lights_are_shown_by_the_first_and_colours_as_they_are() -> None:
    first, second = np.full((2, 2), 0.2, np.float32), np.full((2, 2), 0.6, np.float32)
    assert picture_of(np.stack([first, second, (first + second) / 2]))[0, 0].tolist() == [51, 51, 51]
    assert picture_of(np.stack([first, second, first]))[0, 0].tolist() == [51, 153, 51]
    assert picture_of(np.stack([second]))[0, 0].tolist() == [153, 153, 153]


def test_overlay_leaves_the_background_and_mixes_the_classes() -> None:
    picture = np.full((1, 3, 3), 100, dtype=np.uint8)
    result = overlay_mask(picture, np.array([[0, 1, 255]], dtype=np.uint8), 2)
    assert result[0, 0].tolist() == [100, 100, 100]
    assert result[0, 1].tolist() == [round(0.4 * 100 + 0.6 * v) for v in palette(2)[1]]
    assert result[0, 2].tolist() == [193, 193, 193]


def test_the_colours_of_classes_may_be_given() -> None:
    colours = np.array([[10, 20, 30], [250, 0, 0]], dtype=np.uint8)
    picture = np.full((1, 2, 3), 100, dtype=np.uint8)
    result = overlay_mask(picture, np.array([[0, 1]], dtype=np.uint8), 2, colours)
    assert result[0].tolist() == [[100, 100, 100], [190, 40, 40]]
    strip = np.array(legend(["one", "two"], width=300, colours=colours))
    assert {(10, 20, 30), (250, 0, 0)} <= {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}


def test_legend_wraps_and_shows_every_colour() -> None:
    names = [f"class number {index}" for index in range(9)]
    strip = np.array(legend(names, width=300))
    assert strip.shape[1] == 300
    shown = {tuple(pixel) for pixel in strip.reshape(-1, 3).tolist()}
    assert {tuple(colour) for colour in palette(9)[:9].tolist()} <= shown
    assert legend(names[:1], width=300).height < strip.shape[0]


def test_masks_are_resized_without_new_indices_and_written_as_indices(tmp_path: Path) -> None:
    mask = np.array([[0, 4], [255, 1]], dtype=np.uint8)
    large = resize_mask(mask, (6, 4))
    assert large.tolist() == np.kron(mask, np.ones((3, 2), dtype=np.uint8)).tolist()
    write_class_index_png(tmp_path / "deep" / "mask.png", large, 5)
    with Image.open(tmp_path / "deep" / "mask.png") as image:
        assert image.mode == "P"
        np.testing.assert_array_equal(np.array(image), large)
        assert image.getpalette()[12:15] == palette(5)[4].tolist()


def test_a_file_whose_writing_fails_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half() -> None:
        with whole_file(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        write_half()
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def make_item(**fields: object) -> SegmentationItem:
    mask = torch.zeros(16, 32, dtype=torch.uint8)
    mask[:, 16:] = 1
    return SegmentationItem(image=torch.full((3, 16, 32), 0.5), gt_mask=mask, pred_mask=1 - mask, **fields)


def test_panels_stand_side_by_side_with_prediction_and_truth_apart() -> None:
    visualizer = SegmentationVisualizer()
    visualizer.set_dataset(["background", "wire"], FileFormat())
    picture = np.array(visualizer.visualize(make_item(anomaly_map=torch.rand(16, 32))))
    assert picture.shape[1] == 4 * 480
    wire = palette(2)[1].astype(float)

    def is_wire(column: int) -> bool:
        # the tensor without a file is stretched to its own range, here constant: black
        return bool(np.allclose(picture[180, column], 0.6 * wire, atol=1))

    assert [is_wire(column) for column in (120, 360)] == [False, False]  # image
    assert [is_wire(480 + column) for column in (120, 360)] == [False, True]  # ground truth
    assert [is_wire(960 + column) for column in (120, 360)] == [True, False]  # prediction
    assert len(visualizer.visualize(SegmentationBatch.collate([make_item(), make_item()]))) == 2
    with pytest.raises(TypeError, match="Expected a SegmentationItem"):
        visualizer.visualize("picture")


@pytest.mark.parametrize(
    ("usual", "value", "share"),
    [(0.2, 0.2, 1 / 3), (0.2, 0.9, 1.0), (None, 0.2, 1.0), (None, 0.02, 0.2)],
)
def test_usual_novelty_has_the_colour_of_a_third_of_the_scale(usual: float | None, value: float, share: float) -> None:
    visualizer = SegmentationVisualizer()
    visualizer.set_dataset(["background", "wire"], FileFormat())
    visualizer.usual = usual
    picture = np.array(visualizer.visualize(make_item(anomaly_map=torch.full((16, 32), value))))
    expected = np.array(apply_colormap(Image.new("L", (1, 1), round(255 * share))), int)[0, 0]
    np.testing.assert_allclose(picture[180, 3 * 480 + 240], expected, atol=8)  # a grey level less is a step of colour


@pytest.mark.parametrize(("shape", "height"), [((2, 4000), 32), ((4000, 1), 1920)])
def test_a_picture_of_few_rows_or_columns_has_panels_that_can_be_seen(shape: tuple[int, int], height: int) -> None:
    mask = torch.zeros(shape, dtype=torch.uint8)
    visualizer = SegmentationVisualizer()
    visualizer.set_dataset(["background", "wire"], FileFormat())
    panels = visualizer.visualize(SegmentationItem(image=torch.full((3, *shape), 0.5), pred_mask=mask))
    assert panels.width < 2000
    assert height < panels.height < height + 200


def test_output_names_mirror_the_datasets_folders(tmp_path: Path) -> None:
    def names(root: Path | None, *paths: Path | str, channels: tuple[str, ...] = ()) -> list[str]:
        given = [str(path) for path in paths]
        made = OutputNames(root, given, FileFormat(channels), dataset=root == tmp_path)
        return [made(path).as_posix() for path in given]

    assert names(tmp_path, tmp_path / "images/a/1_ch0.png", channels=("_ch0",)) == ["a/1.png"]
    assert names(tmp_path, tmp_path / "test/images/1.jpg") == ["1.png"]
    assert names(tmp_path, tmp_path / "images/test/1.jpg", tmp_path / "images/1.jpg") == ["test/1.png", "1.png"]
    assert names(tmp_path, "/elsewhere/1.tif", "/elsewhere/b/1.tif") == ["1.png", "b/1.png"]
    assert names(None, "/x/a/1.png", "/x/b/1.png") == ["a/1.png", "b/1.png"]
    crossed = names(None, "/x/u.png", "/x/u.jpg", "/x/u.jpg.png", "/x/v.png")
    assert crossed == ["u.png.png", "u.jpg.png", "u.jpg.png.png", "v.png"]


def test_pictures_that_were_not_listed_get_names_that_are_free() -> None:
    made = OutputNames(None, [], FileFormat())
    given = ("/a/1.png", "/b/1.png", "/c/1.png", "/b/1.png")
    assert [made(path).as_posix() for path in given] == ["1.png", "1.png.png", "1.png_2.png", "1.png.png"]
    assert [made(None).as_posix() for _ in range(3)] == ["image.png", "image_2.png", "image_3.png"]


def test_links_do_not_leave_their_dataset(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "store" / "x.png").touch()
    paths = [tmp_path / "set" / "images" / f"{name}.png" for name in "ab"]
    for path in paths:
        path.symlink_to(tmp_path / "store" / "x.png")
    made = OutputNames(tmp_path / "set", map(str, paths), FileFormat(), dataset=True)
    assert [made(str(path)).as_posix() for path in paths] == ["a.png", "b.png"]
