"""Quality without labels: how good results are where nobody drew the truth.

`napari_medseg.quality.estimating` puts together what the other modules do: an image
is described by a frozen SAM (`looks`), a light classifier learns the predicted mask
and draws annotated references (`reverse`), its score there is turned into a
prediction by a straight line (`line`) that was fitted on masks of known quality
(`degrading`, or earlier states of the training). `choosing` says what to annotate
next.
"""
