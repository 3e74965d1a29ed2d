"""The embedded default: a small CLIP, its tasks and its zoo, shipped with the package."""

from clipvet.pocket.tasks import Task, load_task, probe_pool, task_names

__all__ = ["Task", "load_task", "probe_pool", "task_names"]
