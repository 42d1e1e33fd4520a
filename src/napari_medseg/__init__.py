"""Tune SAM on a few annotated images and segment the rest."""
