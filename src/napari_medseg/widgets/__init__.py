"""The forms in napari. Nothing here imports torch; jobs go to the engine."""
