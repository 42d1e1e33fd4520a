"""Layers as plain data, to files and from files: napari's readers and writers.

Neither Qt nor napari is known here. What napari gives a writer and takes from a
reader are arrays and dicts, so that the forms, File > Save and scripts write by the
same lines.
"""
