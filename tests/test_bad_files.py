"""A folder with every kind of bad file: each gets its sentence, good ones are done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bad_files import UNSEEN, kinds, make_all
from bright import Bright, segment
from folders import command

from napari_medseg.batch import read_ledger
from napari_medseg.batch.inputs import readable
from napari_medseg.io.images import read_annotation

if TYPE_CHECKING:
    from napari_medseg._types import FloatArray, Prediction

pytest.importorskip("bioio")

ACTION = re.compile(
    r"(Save|Copy|Export|Give|Connect|Check|Put|Install|Remove|Rename|save it)\b"
)

DOCS = Path(__file__).parents[1] / "docs" / "bad_files.md"


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_file_is_done_or_gets_a_sentence(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "out"
    make_all(images)
    assert len(kinds()) >= 30
    result = command("segment", images, "--model", "otsu", "--out", out)
    assert result.exit_code == 1
    with read_ledger(out) as ledger:
        rows = {Path(row.source).name: row for row in ledger.rows()}
    assert rows["good.tif"].state == "done"
    assert read_annotation(out / "good.tif").labels.any()
    told = " ".join((result.stdout + result.stderr).split())
    for kind, (name, _, usable) in kinds().items():
        if name in UNSEEN:
            assert name not in rows, kind
            continue
        row = rows[readable(name)]
        assert (row.state == "done") is usable, (kind, row.error)
        if not usable:
            assert row.error.endswith(".") and "\n" not in row.error, kind
            assert ACTION.search(row.error), (kind, row.error)
            assert "report this" not in row.error, (kind, row.error)
            assert readable(name) in row.error, kind
            assert name.split(".")[0] in told, kind
    # those that failed are tried again, and nothing else
    again = command("segment", images, "--model", "otsu", "--out", out, "--json")
    assert again.exit_code == 1 and '"done": []' in again.stdout


def test_the_page_lists_every_kind() -> None:
    listed = DOCS.read_text(encoding="utf-8")
    for kind in set(kinds()) - {"no right to read"}:
        assert f"| {kind} |" in listed, "python tests/bad_files.py > docs/bad_files.md"


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    image = np.full((20, 20), 150, np.uint8)
    np.save(images / "a.npy", image)

    class Meddler(Bright):
        def predict(self, image: FloatArray) -> Prediction:
            with open(images / "a.npy", "ab") as file:
                file.write(b"more")
            return super().predict(image)

    report = segment(images, tmp_path / "out", Meddler())
    assert "changed while it was read" in next(iter(report.failed.values()))
    np.save(images / "a.npy", image)
    assert len(segment(images, tmp_path / "out", Bright()).done) == 1
