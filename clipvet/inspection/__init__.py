"""Model-level checks, their calibration and the verdict."""
