"""Tables of measurements."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from napari_medseg._types import InputError
from napari_medseg.io.exports._writing import check_suffix, whole_file

if TYPE_CHECKING:
    import pandas as pd


def write_table(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as CSV or Parquet, without its index.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.csv`` (UTF-8, commas) or ``.parquet``.
    table : pandas.DataFrame
        The table.

    Raises
    ------
    InputError
        The name has another ending, the library for Parquet is missing, or the disk
        refuses.
    """
    path = Path(path)
    check_suffix(path, ".csv", ".parquet")
    with whole_file(path) as temporary:
        if path.suffix.lower() == ".csv":
            table.to_csv(temporary, index=False, encoding="utf-8")
        else:
            _write_parquet(path, temporary, table)


def _write_parquet(path: Path, temporary: Path, table: pd.DataFrame) -> None:
    """Write Parquet, or say what is missing for it."""
    try:
        table.to_parquet(temporary, engine="pyarrow", index=False)
    except ImportError as error:
        raise InputError(
            f"{path} cannot be written: Parquet needs the package pyarrow. Install "
            "it (pip install pyarrow), or choose a name that ends in .csv."
        ) from error
