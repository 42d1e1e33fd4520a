"""Which way to segment suits the user's images: several are tried on them.

Each recipe that learns is trained in folds, so that every annotated image is segmented
once by a training that did not see it; what needs no training segments them as it is.
All are then measured alike, and a sentence says which to take. Nobody has to know the
methods to choose one.
"""
