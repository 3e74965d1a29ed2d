"""Vet CLIP models and prompts for backdoors before you trust them."""

__version__ = "0.1.0"
