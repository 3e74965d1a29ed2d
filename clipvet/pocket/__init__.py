"""The embedded default: shipped CLIP backbones, tasks and zoo."""
