"""Runnable scripts, one per table; results as JSON in ``results/`` beside what was reported elsewhere."""
