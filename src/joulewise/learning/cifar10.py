"""Reading CIFAR-10 from the Hugging Face hub or from a folder of parquet files."""

# As in data.py, only who reads these data pays for the imports.
# ruff: noqa: PLC0415

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from joulewise.errors import DataError
from joulewise.learning.examples import Examples, Labels, balanced

if TYPE_CHECKING:
    import pyarrow as pa

CIFAR10_HUB_NAME = "uoft-cs/cifar10"
CIFAR10_SIDE = 32
# Channel statistics of the 50,000 training images, as nearly all published code uses them.
CIFAR10_MEAN = np.array([0.4914, 0.4822, 0.4465], dtype=np.float32)
CIFAR10_DEVIATION = np.array([0.2470, 0.2435, 0.2616], dtype=np.float32)


def read_part(path: str | None, part: str, examples: int | None) -> Examples:
    """Read the training or the test part, and decode only the examples that are asked for.

    Raises:
        DataError: the files or the hub are not there, or do not hold CIFAR-10.
    """
    table = _hub_table(part) if path is None else _folder_table(Path(path), part)
    return _decode(table, part, f"{part} of data.path = '{path or CIFAR10_HUB_NAME}'", examples)


def _hub_table(part: str) -> "pa.Table":
    import datasets

    try:
        return datasets.load_dataset(CIFAR10_HUB_NAME, split=part).with_format("arrow")[:]
    except (OSError, datasets.exceptions.DatasetsError):
        raise DataError(
            f"data.name = cifar10 without data.path reads {CIFAR10_HUB_NAME} from the Hugging Face hub, "
            "which could not be reached; give a folder of parquet files: --set data.path=FOLDER."
        ) from None


def _folder_table(folder: Path, part: str) -> "pa.Table":
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not folder.is_dir():
        raise DataError(
            f"data.path = '{folder}' is not a folder; name one that holds parquet files, "
            "or leave data.path out to read the Hugging Face hub."
        )
    # A clone of the hub's repository keeps its files one folder down.
    files = sorted(folder.glob(f"{part}*.parquet")) or sorted(folder.glob(f"*/{part}*.parquet"))
    if not files:
        raise DataError(
            f"data.path = '{folder}' holds no {part}*.parquet; put {part}.parquet there, "
            "or name another folder: --set data.path=FOLDER."
        )
    try:
        return pa.concat_tables([pq.read_table(file) for file in files])
    except (pa.ArrowException, OSError) as error:
        raise DataError(
            f"data.path = '{folder}': {part}*.parquet cannot be read "
            f"({str(error).splitlines()[0]}); fetch the files again."
        ) from None


def _decode(table: "pa.Table", part: str, source: str, examples: int | None) -> Examples:
    """Turn encoded images into normalised ones; only the chosen rows are decoded."""
    import pyarrow as pa

    encoded, labels = _columns(table, source)
    chosen = balanced(labels, 10, examples, "examples" if part == "train" else "test_examples")
    pixels = b"".join(
        _pixels(image, f"{source}, row {row}")
        for row, image in zip(chosen.tolist(), encoded.take(pa.array(chosen)).to_pylist(), strict=True)
    )
    rows = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, CIFAR10_SIDE, CIFAR10_SIDE, 3)
    scale = (1 / (255 * CIFAR10_DEVIATION))[:, None, None]
    images = np.multiply(rows.transpose(0, 3, 1, 2), scale, dtype=np.float32, order="C")
    images -= (CIFAR10_MEAN / CIFAR10_DEVIATION)[:, None, None]
    return Examples(images, labels[chosen])


def _columns(table: "pa.Table", source: str) -> tuple["pa.Array", Labels]:
    import pyarrow as pa

    fields = {field.name: field.type for field in table.schema}
    image, label = fields.get("img"), fields.get("label")
    has_bytes = image is not None and pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not has_bytes or label is None or not pa.types.is_integer(label):
        raise DataError(
            f"{source} must have the columns img {{bytes, path}} and label (whole numbers), but has "
            f"{dict(zip(fields, map(str, fields.values()), strict=True))}; name another folder: "
            "--set data.path=FOLDER."
        )
    # A missing label becomes -1, which the check below refuses.
    labels = table.column("label").fill_null(-1).to_numpy().astype(np.int64)
    if labels.size == 0 or labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{source} must label every example from 0 to 9; check that these are CIFAR-10.")
    return table.column("img").combine_chunks().field("bytes"), labels


def _pixels(encoded: bytes | None, where: str) -> bytes:
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(encoded or b""), formats=("PNG", "JPEG"))
        if image.size == (CIFAR10_SIDE, CIFAR10_SIDE):
            return image.tobytes() if image.mode == "RGB" else image.convert("RGB").tobytes()
    except OSError:
        pass
    raise DataError(f"{where} is not a PNG or JPEG image of 32 by 32; check that these are the images of CIFAR-10.")
