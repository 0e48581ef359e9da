# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""The visualizer: image, ground truth, prediction and novelty side by side, and the predicted masks as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from anomalib.visualization import ImageVisualizer
from anomalib.visualization.image.functional import add_text_to_image, apply_colormap, create_image_grid
from lightning.pytorch import LightningModule, Trainer
from PIL import Image

from anomalib_aoissl.data.describing.class_colours import write_class_index_png
from anomalib_aoissl.data.describing.file_format import FileFormat
from anomalib_aoissl.data.files import save_picture
from anomalib_aoissl.data.items import SegmentationBatch, SegmentationItem
from anomalib_aoissl.data.reading import image_size
from anomalib_aoissl.data.resizing import resize_mask
from anomalib_aoissl.evaluation.risk_coverage import write_risk_coverage

from .output_names import OutputNames
from .overlay import hatch, legend, overlay_mask, picture_of

_SMALLEST_SCALE = 0.1  # novelty below this is shown dark even where it is the largest of the picture
_USUAL_SHARE = 3.0  # usual novelty is shown at a third of the scale: red is what labelled pictures hardly have
_TEXT_SIZE = 18
_PANEL = 480  # px, width of a panel; the height follows the image
_LOWEST, _HIGHEST = 32, 1920  # px, of a panel; of an image of one row or one column


class SegmentationVisualizer(ImageVisualizer):
    """Writes a picture and a class-index PNG for each image that is tested or predicted.

    The picture stands below ``images/`` and the mask, at the image's original size, below ``masks/`` of the run's
    folder. After a test ``risk_coverage.png`` shows how well the model's uncertainty finds its errors.

    Args:
        map_title: What the model's map is called: novelty of retrieval, uncertainty of a segmenter.
        output_dir: Folder for ``images/`` and ``masks/``; default: the run's folder.
    """

    def __init__(self, map_title: str = "Novelty", output_dir: str | Path | None = None) -> None:
        super().__init__(output_dir=output_dir)
        self.map_title = map_title
        self.usual: float | None = None
        """Mean novelty of labelled pictures, as far as it is known."""
        self.class_names: tuple[str, ...] = ()
        self.file_format = FileFormat()
        self._names: OutputNames | None = None

    def set_dataset(self, class_names: Sequence[str], file_format: FileFormat) -> None:
        """Take the names for the legend, and how the pictures' files are read."""
        self.class_names = tuple(class_names)
        self.file_format = file_format

    def visualize(self, predictions: object) -> Any:
        """Return the picture of an item, or one for each item of a batch.

        Raises:
            TypeError: If it is neither an item nor a batch of segmentation.
        """
        if isinstance(predictions, SegmentationItem):
            return self._picture(predictions)
        if isinstance(predictions, SegmentationBatch):
            return [self._picture(item) for item in predictions]
        msg = f"Expected a SegmentationItem or a SegmentationBatch, got {type(predictions).__name__}."
        raise TypeError(msg)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin with new names: outputs of this run may replace those of the last one."""
        del trainer, pl_module
        self._names = None

    on_predict_start = on_test_start

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: object,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Write the pictures and masks of a batch."""
        del pl_module, batch, batch_idx, dataloader_idx
        folder = Path(self.output_dir or trainer.default_root_dir)
        if self._names is None:
            self._names = _names_of_run(trainer, self.file_format)
        for item in outputs:
            name = self._names(item.image_path)
            save_picture(folder / "images" / name, self._picture(item))
            mask = resize_mask(item.pred_mask.cpu().numpy(), _original_size(item))
            write_class_index_png(folder / "masks" / name, mask, len(self.class_names))

    on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write risk against coverage of the test images, ``risk_coverage.png`` of the run's folder."""
        curve = getattr(pl_module.evaluator, "curve", None)
        if curve is not None and len(curve.coverage) and trainer.is_global_zero:
            folder = Path(self.output_dir or trainer.default_root_dir)
            write_risk_coverage(folder / "risk_coverage.png", curve, getattr(pl_module.evaluator, "point", None))

    def _picture(self, item: Any) -> Image.Image:
        """Return the panels of one item above the legend."""
        base = self._base_picture(item)
        size = (min(max(round(_PANEL * base.shape[0] / base.shape[1]), _LOWEST), _HIGHEST), _PANEL)
        base = np.array(Image.fromarray(base).resize((size[1], size[0]), Image.Resampling.LANCZOS))
        panels = [("Image", Image.fromarray(base))]
        for title, mask in (("Ground truth", item.gt_mask), ("Prediction", item.pred_mask)):
            if mask is not None:
                shown = overlay_mask(base, resize_mask(mask.cpu().numpy(), size), len(self.class_names))
                if title == "Prediction" and item.abstained is not None:
                    unknown = resize_mask(item.abstained.cpu().numpy().astype(np.uint8), size)
                    shown = hatch(shown, unknown.astype(bool))
                panels.append((title if title != "Prediction" else _prediction_title(item), Image.fromarray(shown)))
        if item.anomaly_map is not None:
            panels.append(_map_panel(item.anomaly_map.cpu().numpy(), size, self.map_title, self.usual))
        titled = [add_text_to_image(panel, title, size=_TEXT_SIZE, position=(8, 6)) for title, panel in panels]
        grid = create_image_grid(titled, nrow=len(titled))
        strip = legend(self.class_names, grid.width, abstains=item.abstained is not None)
        return Image.fromarray(np.vstack([np.asarray(grid), np.asarray(strip)]))

    def _base_picture(self, item: Any) -> np.ndarray:
        """Return the item's picture ``[H, W, 3]`` uint8: from its file, since the tensor is normalised by now."""
        if item.image_path is not None:
            planes = self.file_format.read(item.image_path)
        else:
            planes = item.image.cpu().numpy()
            low, high = planes.min(), planes.max()
            planes = (planes - low) / max(high - low, 1e-6)
        return picture_of(planes)


def _prediction_title(item: Any) -> str:
    """Return the title of the prediction, with what is wrong with the picture, without figures."""
    faults = [fault.partition(" (")[0] for fault in (item.fault or "").split("; ") if fault]
    return "Prediction" + (f" (picture: {', '.join(faults)})" if faults else "")


def _map_panel(values: np.ndarray, size: tuple[int, int], title: str, usual: float | None) -> tuple[str, Image.Image]:
    """Return the title and the panel of the model's map; colours run from 0 to the largest value, or to a usual one."""
    largest = max(float(values.max()), _SMALLEST_SCALE, _USUAL_SHARE * (usual or 0.0))
    grey = Image.fromarray((255 * np.clip(values / largest, 0, 1)).astype(np.uint8))
    panel = apply_colormap(grey.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return f"{title} (0 to {largest:.2f})", panel


def _original_size(item: Any) -> tuple[int, int]:
    """Return (height, width) of the item's file, or of its tensor where it has no file."""
    return image_size(item.image_path) if item.image_path is not None else tuple(item.image.shape[-2:])


def _names_of_run(trainer: Trainer, file_format: FileFormat) -> OutputNames:
    """Return the names of the outputs of all pictures that a test or a prediction will see."""
    loaders = trainer.predict_dataloaders if trainer.predicting else trainer.test_dataloaders
    loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
    datasets: list[Any] = [getattr(loader, "dataset", None) for loader in loaders]
    folder = next((dataset.folder for dataset in datasets if hasattr(dataset, "folder")), None)
    root = getattr(getattr(trainer, "datamodule", None), "root", None)
    paths = [path for dataset in datasets for path in _image_paths(dataset)]
    return OutputNames(folder or root, paths, file_format, dataset=folder is None)


def _image_paths(dataset: object) -> list[str]:
    """Return the pictures of a dataset of ours or of anomalib; none where it does not say."""
    samples = getattr(dataset, "samples", None)
    if samples is not None and "image_path" in samples:
        return [str(path) for path in samples["image_path"]]
    names = getattr(dataset, "image_paths", None) or getattr(dataset, "image_filenames", None) or []
    return [str(path) for path in names]
