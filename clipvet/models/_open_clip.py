"""The door to open_clip: importing it from here works where torchvision's compiled part is missing."""

from clipvet.models._torchvision import make_importable

make_importable()
import open_clip  # noqa: E402
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD  # noqa: E402
from open_clip.model import CLIP  # noqa: E402
from open_clip.tokenizer import SimpleTokenizer  # noqa: E402

__all__ = ["CLIP", "OPENAI_DATASET_MEAN", "OPENAI_DATASET_STD", "SimpleTokenizer", "open_clip"]
