"""``python -m napari_medseg``: the command line."""

from napari_medseg.cli import main

if __name__ == "__main__":
    main()
