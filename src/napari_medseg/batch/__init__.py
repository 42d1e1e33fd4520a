"""A folder in, a folder out.

One bad file never stops the others: it is listed with what is wrong. A ledger in the
output folder knows what became of each image, so that the same command, given again,
does what is missing, changed or failed, and another model is never mixed in unasked.

Importing this loads no torch, so that a form can show settings and ledger.
"""

from napari_medseg._types import finish
from napari_medseg.batch.conduct import BatchReport
from napari_medseg.batch.inputs import Work, plan_work
from napari_medseg.batch.ledger import LEDGER, LedgerRow
from napari_medseg.batch.ledger_file import read_ledger
from napari_medseg.batch.run import segment_batch, segment_files
from napari_medseg.batch.settings import BatchSettings
from napari_medseg.batch.watch import watch_batch
from napari_medseg.io.result_names import PROVENANCE

__all__ = [
    "LEDGER",
    "PROVENANCE",
    "BatchReport",
    "BatchSettings",
    "LedgerRow",
    "Work",
    "finish",
    "plan_work",
    "read_ledger",
    "segment_batch",
    "segment_files",
    "watch_batch",
]
