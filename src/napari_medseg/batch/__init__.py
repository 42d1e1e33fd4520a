"""A folder in, a folder out.

One bad file never stops the others: it is listed with what is wrong. What is there
already is left alone, so that running the same command again goes on where the last
run ended; a provenance file in the output folder says which model and settings made
it, and another model is never mixed in unasked.
"""

from napari_medseg.batch.ledger import LedgerRow
from napari_medseg.batch.run import (
    PROVENANCE,
    BatchReport,
    labels_of,
    plan_work,
    segment_files,
)
from napari_medseg.batch.settings import BatchSettings

__all__ = [
    "PROVENANCE",
    "BatchReport",
    "BatchSettings",
    "LedgerRow",
    "labels_of",
    "plan_work",
    "segment_files",
]
