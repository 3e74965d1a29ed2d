"""The door to open_clip: importing it from here works where torchvision's compiled part is missing."""

from clipvet.models._torchvision import make_importable

make_importable()  # before open_clip imports torchvision
import open_clip  # noqa: E402 - after the line above
from open_clip import CLIP, OPENAI_DATASET_MEAN, OPENAI_DATASET_STD, SimpleTokenizer  # noqa: E402 - likewise

__all__ = ["CLIP", "OPENAI_DATASET_MEAN", "OPENAI_DATASET_STD", "SimpleTokenizer", "open_clip"]
