"""Tables: CSV and its relatives, Parquet, frames."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from s3ray.data.importing.fields import Field, check_memory
from s3ray.data.names import listed
from s3ray.errors import UserError

TEXTS = ("CSV", "TSV", "text")  # what `foreign` calls them

_MISSING = ["", "NA", "N/A", "#N/A", "nan", "NaN", "NAN", "-nan", "null", "NULL", "?"]
_HEAD = 1 << 20  # characters that tell how a text file is written
_CSV_EXPANSION = 4  # memory of a parsed table per byte of its text


def read_text_table(path: Path, notes: list[str]) -> pd.DataFrame:
    """A table in text: the separator, the decimal sign and whether there is a header are seen from its first lines.

    Raises:
        UserError: it is empty, not UTF-8, or has rows of different lengths.
    """
    check_memory(path, _CSV_EXPANSION * path.stat().st_size, "the table")
    with path.open("rb") as file:
        encoding = "utf-16" if file.read(2) in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        with path.open(encoding=encoding, newline="") as text:
            head = text.read(_HEAD)
    except UnicodeError as error:
        raise _not_utf8(path) from error
    if not head.strip():
        raise UserError(f"{path}: is empty; give a file with rows")
    skipped = _comments(head)
    head = "".join(head.splitlines(keepends=True)[skipped:])
    separator = "\t" if path.suffix.lower() == ".tsv" else _separator(head)
    rows = _first_rows(head, separator)
    if not rows:
        raise UserError(f"{path}: is empty; give a file with rows")
    decimal = "," if separator != "," and _has_decimal_commas(rows) else "."
    has_header = _is_header(rows[0], decimal)
    if has_header:
        twice = [name for name, count in Counter(name.strip() for name in rows[0]).items() if count > 1 and name]
        if twice:
            notes.append(
                f"{path.name}: column {listed(twice, shown=3)} stands more than once; later ones end in .1, .2"
            )
    else:
        notes.append(f"{path.name}: has no line of names; columns are called 0 to {len(rows[0]) - 1}")
    _check_widths(path, encoding, separator, skipped, len(rows[0]))
    if decimal == ",":
        notes.append(f"{path.name}: read with decimal commas")
    try:
        with warnings.catch_warnings(action="error", category=pd.errors.ParserWarning):
            frame = pd.read_csv(
                path,
                sep=r"\s+" if separator == " " else separator,
                decimal=decimal,
                header=0 if has_header else None,
                skiprows=skipped,
                encoding=encoding,
                na_values=_MISSING,
                keep_default_na=False,
                skipinitialspace=True,
                index_col=False,
                low_memory=False,
            )
    except UnicodeError as error:
        raise _not_utf8(path) from error
    except (ValueError, pd.errors.ParserError, pd.errors.ParserWarning, csv.Error) as error:
        said = str(error).replace("Error tokenizing data. C error: ", "").strip()
        raise UserError(f"{path}: rows differ in length ({said}); correct or quote them") from error
    frame.columns = pd.Index([str(name).strip() for name in frame.columns])
    return frame


def _check_widths(path: Path, encoding: str, separator: str, skipped: int, width: int) -> None:
    """UserError for a row that has not `width` fields: pandas fills short ones, and shifts or cuts long ones.

    Rows that are all longer by one than their header, as R writes them, have names of rows without a name.
    """
    try:
        with path.open(encoding=encoding, newline="") as text:
            for _ in range(skipped):
                next(text)
            reader: Iterable[list[str]] = (
                (line.split() for line in text)
                if separator == " "
                else csv.reader(text, delimiter=separator, skipinitialspace=True)
            )
            for number, row in enumerate(reader, start=1):
                if len(row) != width and (len(row) > 1 or "".join(row).strip()):
                    raise UserError(
                        f"{path}: rows differ in length (row {number} has {len(row)} fields, the first {width}); "
                        f"correct or quote them, and name every column"
                    )
    except UnicodeError as error:
        raise _not_utf8(path) from error
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); write it again") from error


def _comments(head: str) -> int:
    """How many lines at the start of a text begin with #."""
    lines = head.splitlines()
    return next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))


def _not_utf8(path: Path) -> UserError:
    return UserError(f"{path}: is not UTF-8; convert it: iconv -f latin1 -t utf8 {path.name} > utf8_{path.name}")


def _first_rows(head: str, separator: str) -> list[list[str]]:
    if separator == " ":
        return [line.split() for line in head.splitlines() if line.strip()][:20]
    rows = []
    try:
        for row in csv.reader(io.StringIO(head), delimiter=separator):
            if "".join(row).strip():
                rows.append(row)
            if len(rows) == 20:
                break
    except csv.Error:
        pass
    return rows


def _separator(head: str) -> str:
    """Of tab, semicolon, comma and blanks the first that makes columns, as many in the second row as in the first.

    The semicolon comes before the comma, which may be a decimal sign beside it.
    """
    for separator in ("\t", ";", ",", " "):
        rows = _first_rows(head, separator)[:2]
        more = len(rows[-1]) - len(rows[0])
        if len(rows[0]) > 1 and (more == 0 if separator != " " else more in (0, 1) and _all_numbers(rows[-1][more:])):
            return separator
    return "," if "," in head.split("\n", 1)[0] else "\t" if "\t" in head.split("\n", 1)[0] else ","


def _all_numbers(cells: list[str]) -> bool:
    return all(_is_number(cell, ".") for cell in cells)


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    cells = [cell.strip() for row in rows for cell in row]
    return any(re.fullmatch(r"[+-]?\d+,\d+", c) for c in cells) and not any(
        re.fullmatch(r"[+-]?\d+\.\d+", c) for c in cells
    )


def _is_header(cells: list[str], decimal: str) -> bool:
    """Whether a row has names: words, or whole numbers that count up, as columns without a name are called."""
    numbers = [cell.strip() for cell in cells if _is_number(cell, decimal)]
    if not all(number.isdecimal() for number in numbers):
        return False
    counts = [int(number) for number in numbers]
    return not counts or counts == list(range(counts[0], counts[0] + len(counts)))


def _is_number(cell: str, decimal: str) -> bool:
    try:
        float(cell.strip().replace(decimal, "."))
    except ValueError:
        return False
    return True


def read_parquet(path: Path) -> pd.DataFrame:
    """A Parquet table; columns of lists stay so."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        meta = pq.ParquetFile(path).metadata
        needed = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        check_memory(path, 3 * needed, "the table")
        table: Any = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged Parquet ({str(error).splitlines()[0]}); write it again") from error
    twice = [name for name, count in Counter(table.column_names).items() if count > 1]
    if twice:
        raise UserError(f"{path}: column {twice[0]} stands more than once; rename one")
    frame: pd.DataFrame = table.to_pandas()
    if frame.index.names != [None]:
        frame = frame.reset_index()
    frame.columns = pd.Index([str(name) for name in frame.columns])
    return frame


def table_field(name: str, file: Path, frame: pd.DataFrame) -> Field:
    """A table as a field.

    Raises:
        UserError: it has no rows or no columns.
    """
    if not frame.shape[1] or not frame.shape[0]:
        raise UserError(f"{file}: has no {'columns' if not frame.shape[1] else 'rows'}; give a table with both")
    columns = tuple(map(str, frame.columns))
    return Field(name, file, frame.shape, lambda: frame, "table", columns)


def as_numbers(values: pd.Series[Any]) -> np.ndarray[Any, Any] | list[np.ndarray[Any, Any]] | None:
    """A column's numbers: (n,); (n, features) or an array per sample of a column of lists; None if it holds others."""
    if pd.api.types.is_bool_dtype(values.dtype) and not values.isna().any():
        return values.to_numpy(dtype=np.uint8)
    if pd.api.types.is_numeric_dtype(values.dtype):
        if pd.api.types.is_extension_array_dtype(values.dtype):
            return values.to_numpy(dtype=np.float64, na_value=np.nan)
        return values.to_numpy()
    first = next((value for value in values if value is not None), None)
    if not isinstance(first, list | np.ndarray):
        return None
    try:
        rows = [_list_of_numbers(value) for value in values]
    except (TypeError, ValueError):
        return None
    if all(row.ndim == 1 for row in rows) and len({len(row) for row in rows}) == 1:
        return np.stack(rows)
    return [row[:, None] if row.ndim == 1 else row for row in rows]


def has_lists(values: pd.Series[Any]) -> bool:
    """Whether a column holds lists or other things that cannot be told apart as one value can."""
    return values.dtype == object and any(isinstance(value, list | dict | set | np.ndarray) for value in values)


def _list_of_numbers(value: Any) -> np.ndarray[Any, Any]:
    inner = [np.asarray(one) for one in value]
    array = np.stack(inner)
    if array.dtype.kind not in "fiub":
        raise TypeError(array.dtype)
    return array
