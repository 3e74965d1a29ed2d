"""Triggers, one file each, shared by attacks, inspection and tests."""
