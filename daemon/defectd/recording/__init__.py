"""Raw frames of one camera, saved so that a replay shows what the camera saw."""
