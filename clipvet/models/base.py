"""The model wrapper: an open_clip CLIP that takes pixels in [0, 1] and gives normalised features.

Normalisation, precision and the handling of prompts inside the towers live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from clipvet.errors import UsageError

__all__ = ["ClipModel", "TextInput", "needed_length"]

Tokenizer = Callable[[list[str]], Tensor]

LARGEST_MIXED = 256  # width of a ViT; on a CPU, casting the weights of ViT-B/32 costs more than bfloat16 gains


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """Texts as token embeddings, before positions are added.

    Attributes:
        embeddings: ``(n, length, width)``.
        eot: ``(n,)``, the position of each end-of-text token, from which the feature is read.
        deep: block index -> ``(k, width)`` or ``(n, k, width)``: replaces positions 1..k before that block (MaPLe, IVLP, TCP).
    """

    embeddings: Tensor
    eot: Tensor
    deep: Mapping[int, Tensor] | None = None


def needed_length(eot: Tensor, deep: Mapping[int, Tensor] | None = None) -> int:
    """Return how many positions can change the features: up to the last end-of-text token and the last replaced token."""
    replaced = max((prompt.shape[-2] for prompt in (deep or {}).values()), default=0)
    return max(int(eot.max()), replaced) + 1


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether passing a tower in bfloat16 takes less time than in float32: on a GPU, and on a CPU with instructions for it."""
    if device.type != "cpu":
        return device.type == "cuda"
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())  # PyTorch has no public name for it


class ClipModel:
    """A frozen CLIP in evaluation mode.

    Args:
        clip: an ``open_clip.model.CLIP`` (image tower: VisionTransformer or ModifiedResNet; text tower built in).
        tokenizer: maps a list of strings to ``long (n, context_length)``; the end-of-text token has the highest id.
        name: what reports call it.
        mean: channel means of the training pixels, three numbers.
        std: channel standard deviations, three numbers.
        sha256: digest of the weights' file, empty where there is none.

    Raises:
        UsageError: when the model is not of the layout above.
    """

    def __init__(
        self,
        clip: nn.Module,
        tokenizer: Tokenizer,
        *,
        name: str,
        mean: Sequence[float],
        std: Sequence[float],
        sha256: str = "",
    ) -> None:
        if not hasattr(clip, "token_embedding") or not hasattr(clip, "visual"):
            raise UsageError(f"expected an open_clip CLIP with a built-in text tower, got {type(clip).__name__}: use another base")
        self.clip: Any = clip.float().eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.mean, self.std = tuple(mean), tuple(std)
        self.sha256 = sha256
        self._shift = torch.tensor(self.mean).view(1, 3, 1, 1)
        self._scale = torch.tensor(self.std).view(1, 3, 1, 1)
        self._mixed = False

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        size = self.clip.visual.image_size
        return int(size[0] if isinstance(size, tuple | list) else size)

    @property
    def context_length(self) -> int:
        """Number of text positions."""
        return int(self.clip.positional_embedding.shape[0])

    @property
    def text_width(self) -> int:
        """Width of the text tower, which is the width of a context vector."""
        return int(self.clip.token_embedding.weight.shape[1])

    @property
    def embed_dim(self) -> int:
        """Width of the shared feature space."""
        return int(self.clip.text_projection.shape[1])

    @property
    def is_vit(self) -> bool:
        """Whether the image tower is a vision transformer read at its class token (prompts inside it need one)."""
        visual = self.clip.visual
        plain = getattr(visual, "pool_type", "") == "tok" and getattr(visual, "attn_pool", None) is None
        return plain and hasattr(visual, "transformer") and not visual.final_ln_after_pool

    @property
    def vision_width(self) -> int:
        """Width of the image tower's tokens; 0 for a ResNet."""
        return int(self.clip.visual.class_embedding.shape[0]) if self.is_vit else 0

    @property
    def vision_layers(self) -> int:
        """Number of blocks in the image tower; 0 for a ResNet."""
        return len(self.clip.visual.transformer.resblocks) if self.is_vit else 0

    @property
    def text_layers(self) -> int:
        """Number of blocks in the text tower."""
        return len(self.clip.transformer.resblocks)

    @property
    def quick_gelu(self) -> bool:
        """Whether the text tower uses QuickGELU, as OpenAI's weights need."""
        return any(type(m).__name__ == "QuickGELU" for m in self.clip.transformer.modules())

    @property
    def logit_scale(self) -> Tensor:
        """The factor on cosine similarities, already exponentiated; a scalar."""
        scale: Tensor = self.clip.logit_scale.exp()
        return scale

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.clip.positional_embedding.device
        return device

    def to(self, device: torch.device | str) -> ClipModel:
        """Move the weights in place and return the model."""
        self.clip.to(device)
        self._shift, self._scale = self._shift.to(device), self._scale.to(device)
        return self

    @contextmanager
    def mixed_precision(self, *, wanted: bool = True) -> Iterator[None]:
        """Pass the towers in bfloat16 within this block, where that is faster; features stay float32."""
        small = 0 < self.vision_width <= LARGEST_MIXED or self.device.type != "cpu"
        before, self._mixed = self._mixed, wanted and small and bfloat16_is_fast(self.device)
        try:
            yield
        finally:
            self._mixed = before

    @contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """Precision and attention of one pass: on a CPU, plain matrix products are far faster than fused attention in bfloat16."""
        plain = sdpa_kernel(SDPBackend.MATH) if self._mixed and self.device.type == "cpu" else nullcontext()
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self._mixed), plain:
            yield

    def encode_image(self, images: Tensor, prompts: Sequence[Tensor] = ()) -> Tensor:
        """Encode images, differentiable with respect to pixels and prompts.

        Args:
            images: ``(n, 3, image_size, image_size)`` in [0, 1].
            prompts: learned tokens of ``(k, vision_width)``: the first joins the sequence before the tower's first
                normalisation, prompt i > 0 replaces the last k tokens before block i (VPT, IVLP, MaPLe).

        Returns:
            ``(n, embed_dim)``, unit length.

        Raises:
            UsageError: when the size does not fit or a ResNet is given prompts.
        """
        size = self.image_size
        if images.shape[1:] != (3, size, size):
            raise UsageError(f"expected images of shape (n, 3, {size}, {size}), got {tuple(images.shape)}: resize them first")
        if prompts and not self.is_vit:
            raise UsageError(f"expected a vision transformer for visual prompts, got {type(self.clip.visual).__name__}")
        pixels = (images - self._shift) / self._scale
        with self._arithmetic():
            features = self._encode_prompted(pixels, prompts) if prompts else self.clip.visual(pixels)
        return F.normalize(features.float(), dim=-1)

    def _encode_prompted(self, pixels: Tensor, prompts: Sequence[Tensor]) -> Tensor:
        visual = self.clip.visual
        x = visual.conv1(pixels).flatten(2).transpose(1, 2)  # (n, patches, width)
        first = visual.class_embedding.expand(len(x), 1, -1)
        x = torch.cat([first, x], dim=1) + visual.positional_embedding
        x = visual.ln_pre(torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1))
        for index, block in enumerate(visual.transformer.resblocks):
            if 0 < index < len(prompts):
                prompt = prompts[index]
                x = torch.cat([x[:, : -len(prompt)], prompt.expand(len(x), -1, -1)], dim=1)
            x = block(x)
        features: Tensor = visual.ln_post(x[:, 0]) @ visual.proj
        return features

    def tokenize(self, texts: list[str]) -> Tensor:
        """Turn strings into ``long (n, context_length)`` on the model's device."""
        return self.tokenizer(texts).to(self.device)

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up token embeddings: ``(n, length) -> (n, length, text_width)``, without positions."""
        embeddings: Tensor = self.clip.token_embedding(tokens)
        return embeddings

    def encode_text(self, texts: list[str], *, chunk: int = 512) -> Tensor:
        """Encode strings to ``(n, embed_dim)`` of unit length, in chunks that bound memory."""
        tokens = self.tokenize(texts)
        parts = [TextInput(embeddings=self.embed(part), eot=part.argmax(1)) for part in tokens.split(chunk)]
        return torch.cat([self.encode_embeddings(part) for part in parts])

    def encode_embeddings(self, text: TextInput, *, cut: bool = True) -> Tensor:
        """Encode texts given as token embeddings, differentiable with respect to them.

        Attention is causal and a feature is read at the end-of-text token, so positions behind the last of those cannot
        change it: they are cut off, which is exact and several times faster.

        Returns:
            ``(n, embed_dim)``, unit length.
        """
        length = needed_length(text.eot, text.deep) if cut else text.embeddings.shape[1]
        with self._arithmetic():
            features = self._encode_text(text, length)
        return F.normalize(features.float(), dim=-1)

    def _encode_text(self, text: TextInput, length: int) -> Tensor:
        x = text.embeddings[:, :length] + self.clip.positional_embedding[:length]
        mask = self.clip.attn_mask[:length, :length]
        for index, block in enumerate(self.clip.transformer.resblocks):
            if text.deep and index in text.deep:
                prompt = text.deep[index]
                prompt = prompt.expand(len(x), -1, -1) if prompt.ndim == 2 else prompt
                x = torch.cat([x[:, :1], prompt, x[:, 1 + prompt.shape[1] :]], dim=1)
            x = block(x, attn_mask=mask)
        x = self.clip.ln_final(x)
        picked: Tensor = x[torch.arange(len(x), device=x.device), text.eot] @ self.clip.text_projection
        return picked
