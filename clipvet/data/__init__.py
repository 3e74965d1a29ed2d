"""Pairs and images in and out; probe images."""
