"""Files in and out: images, pairs, normalisation, model files."""
