"""Tables of measurements."""

from __future__ import annotations

import csv
import io
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from napari_medseg._types import InputError
from napari_medseg.io.exports._writing import check_suffix, whole_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

_GROUP_BYTES = 16_000_000
"""Rows of about this many bytes are stored together in a Parquet file."""

_PIECE = 1 << 20
"""Characters that are copied at once."""


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
    if _is_parquet(path):
        with whole_file(path) as temporary:
            table.to_parquet(temporary, engine="pyarrow", index=False)
        return
    with whole_file(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8", lineterminator="\n")


def join_tables(
    path: str | Path, parts: Sequence[Path], kinds: Mapping[str, str]
) -> None:
    """Make one table of many, of which a few at a time are in memory.

    Parts need not have the same columns: what one lacks stays empty.

    Parameters
    ----------
    path : str or Path
        The file, ending ``.csv`` or ``.parquet``.
    parts : sequence of Path
        CSV files of `write_table`, in the order that their rows shall have.
    kinds : mapping of str to str
        What the columns hold, by their names: ``int64`` or ``string``; numbers
        where left out. CSV does not tell.

    Raises
    ------
    InputError
        A part is missing or damaged, the name has another ending, the library for
        Parquet is missing, or the disk refuses.
    """
    path = Path(path)
    join = _join_parquet if _is_parquet(path) else _join_csv
    # Few headers for many parts: each is kept once.
    headers = dict.fromkeys(_header(part) for part in parts)
    columns = _all_columns(_columns(header) for header in headers)
    with whole_file(path) as temporary:
        join(temporary, parts, columns, kinds)


def has_parquet() -> bool:
    """Tell whether Parquet can be written.

    Returns
    -------
    bool
        Whether its library is installed.
    """
    return find_spec("pyarrow") is not None


def _is_parquet(path: Path) -> bool:
    """Tell what to write; refuse what cannot be written."""
    check_suffix(path, ".csv", ".parquet")
    if path.suffix.lower() == ".csv":
        return False
    if not has_parquet():
        raise InputError(
            f"{path} cannot be written: Parquet needs the package pyarrow. Install "
            "it (pip install pyarrow), or choose a name that ends in .csv."
        )
    return True


def _header(part: Path) -> str:
    """Return the first line of a part, with its end."""
    try:
        with part.open(encoding="utf-8", newline="") as file:
            header = file.readline()
    except (OSError, ValueError) as error:
        raise _damaged(part) from error
    if not header.endswith("\n"):
        raise _damaged(part)
    return header


def _damaged(part: Path) -> InputError:
    """Return the error for a part that cannot be used."""
    return InputError(
        f"{part}, which holds the measurements of one image, is missing or damaged. "
        "Segment that image again."
    )


def _columns(header: str) -> list[str]:
    """Return the names in the first line of a CSV file."""
    return next(csv.reader([header]))


def _all_columns(headers: Iterable[Sequence[str]]) -> list[str]:
    """Return every name once, each after the one it follows where it is first met."""
    names: list[str] = []
    for header in headers:
        place = 0
        for name in header:
            if name not in names:
                names.insert(place, name)
            place = names.index(name) + 1
    return names


def _join_csv(
    target: Path, parts: Sequence[Path], columns: Sequence[str], _: Mapping[str, str]
) -> None:
    """Write the rows of all parts below one header."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(columns)
    header = line.getvalue()
    with target.open("w", encoding="utf-8", newline="") as file:
        file.write(header)
        for part in parts:
            with part.open(encoding="utf-8", newline="") as source:
                if source.readline() == header:
                    _copy(source, file)
                    continue
                source.seek(0)
                writer = csv.DictWriter(file, columns, lineterminator="\n")
                writer.writerows(csv.DictReader(source))


def _copy(source: TextIO, target: TextIO) -> None:
    """Copy the rest of a file."""
    while piece := source.read(_PIECE):
        target.write(piece)


def _join_parquet(
    target: Path,
    parts: Sequence[Path],
    columns: Sequence[str],
    kinds: Mapping[str, str],
) -> None:
    """Write the rows of all parts, in groups of a few megabytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [(name, pa.type_for_alias(kinds.get(name, "float64"))) for name in columns]
    )
    with pq.ParquetWriter(target, schema) as writer:
        for group in _groups(parts, schema):
            writer.write_table(group)


def _groups(parts: Sequence[Path], schema: Any) -> Iterator[Any]:
    """Yield the rows of parts as Arrow's tables of a few megabytes."""
    import pyarrow as pa
    from pyarrow import csv as arrow

    options = arrow.ConvertOptions(
        column_types=schema,
        include_columns=schema.names,
        include_missing_columns=True,
        null_values=[""],  # an image may be called NA
        strings_can_be_null=True,
    )
    layout = arrow.ParseOptions(newlines_in_values=True)
    waiting: list[Any] = []
    for part in parts:
        try:
            table = arrow.read_csv(part, parse_options=layout, convert_options=options)
        except pa.ArrowInvalid as error:
            raise _damaged(part) from error
        waiting.append(table)
        if sum(each.nbytes for each in waiting) > _GROUP_BYTES:
            yield pa.concat_tables(waiting)
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting)
