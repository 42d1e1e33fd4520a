"""``python -m napari_medseg.engine``: the compute process, started by `client`."""

from __future__ import annotations

import sys

from napari_medseg._threads import share_processors
from napari_medseg.engine.server import main

if __name__ == "__main__":
    share_processors()
    sys.exit(main())
