"""One sample of a webdataset or of a folder of files: members of one key, told apart by their extension."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from clipvet.data._reading import UnfitError, clean, json_object, text
from clipvet.data.columns import Wanted, listed
from clipvet.data.pairs import Pair
from clipvet.errors import UsageError

__all__ = ["CAPTIONS", "IMAGES", "Roles", "choose_roles", "to_pair"]

IMAGES = frozenset(["jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm"])
CAPTIONS = frozenset(["txt", "text", "caption"])


@dataclass(frozen=True, kw_only=True)
class Roles:
    """Which members of a sample play which role.

    Attributes:
        images: extensions of the image, in lower case.
        captions: extensions of a caption of its own.
        caption_field: field of the member ``json`` with the caption, where there is no such member.
        uid_field: field of the member ``json`` with a wider identifier.
    """

    images: frozenset[str] = IMAGES
    captions: frozenset[str] = CAPTIONS
    caption_field: str = "caption"
    uid_field: str = "uid"

    def wants(self, extension: str) -> bool:
        """Tell whether a member must be read."""
        return extension in self.images or extension in self.captions or extension == "json"

    def mapping(self, extensions: Iterable[str]) -> dict[str, str]:
        """Return role -> member, for the report, after the extensions of one sample."""
        found = set(extensions)
        image = sorted(self.images & found) or sorted(self.images)
        caption = sorted(self.captions & found) or [f"json: {self.caption_field}"]
        return {
            "image": "|".join(image),
            "caption": "|".join(caption),
            "id": "(name of the member)",
            "uid": f"json: {self.uid_field}",
        }


def choose_roles(wanted: Wanted, extensions: Iterable[str], fields: Iterable[str], where: str) -> Roles:
    """Fit the roles to what a user asked for.

    Args:
        wanted: what the user asked for.
        extensions: of the first sample's members.
        fields: of the first sample's ``json``.
        where: what messages call the source.

    Raises:
        UsageError: the first sample has no such member or field.
    """
    members, fields = {e.lower() for e in extensions}, list(fields)
    roles = Roles()
    if wanted.image is not None:
        _known(wanted.image, sorted(members), where)
        roles = replace(roles, images=frozenset([wanted.image.lower()]))
    if wanted.caption is not None:
        _known(wanted.caption, [*sorted(members), *fields], where)
        is_member = wanted.caption.lower() in members
        own = frozenset([wanted.caption.lower()] if is_member else [])
        roles = replace(roles, captions=own, caption_field="" if is_member else wanted.caption)
    if wanted.id is not None:
        _known(wanted.id, fields, where)
        roles = replace(roles, uid_field=wanted.id)
    return roles


def _known(name: str, names: list[str], where: str) -> None:
    if name not in names and name.lower() not in names:
        raise UsageError(f"expected a member or field {name!r} in {where}, found {listed(names)}: name one of these")


def to_pair(key: str, members: Iterable[tuple[str, bytes | None]], roles: Roles, path: Path | None = None) -> Pair:
    """Make a pair of a sample.

    Args:
        key: the sample's.
        members: extension in lower case, and bytes where :meth:`Roles.wants` says so.
        roles: which member is what.
        path: of the image, where it is a file.

    Raises:
        UnfitError: there is not exactly one image and one caption, or a member occurs twice.
    """
    members = list(members)
    twice = [extension for extension, count in Counter(extension for extension, _ in members).items() if count > 1]
    if twice:
        raise UnfitError("duplicate member", f"it has more than one {listed(twice)}")
    data = {extension: content for extension, content in members if content is not None}
    image = _one(data, roles.images, "image")
    if image is None:
        raise UnfitError("no image", f"its members are {listed(extension for extension, _ in members)}")
    caption = _one(data, roles.captions, "caption")
    record = json_object(data["json"]) if "json" in data else {}
    uid = record.get(roles.uid_field)
    words = text(record.get(roles.caption_field) if caption is None else caption)
    return Pair(key=key, image=image, caption=words, uid="" if uid is None else clean(uid), path=path)


def _one(data: Mapping[str, bytes], extensions: frozenset[str], what: str) -> bytes | None:
    """Return the only member that may play a role: which of two is trained on depends on the reader."""
    found = sorted(extensions & data.keys())
    if len(found) > 1:
        raise UnfitError(f"several {what}s", f"it has {listed(found)}; name one with --{what}-col")
    return data[found[0]] if found else None
