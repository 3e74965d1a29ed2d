"""Attacks: plant a backdoor in a prompt and return the delivery with its ground truth; one file per paper."""
