"""webdataset: tar files in which the members of one sample lie side by side."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from clipvet.data._names import shard_names
from clipvet.data._reading import UnfitError, attempt, identity, json_object
from clipvet.data._tar import END, Member, read_members
from clipvet.data._writing import output
from clipvet.data.columns import Wanted, listed
from clipvet.data.img2dataset import join, lost_notes, progress_notes, records_beside, write_record
from clipvet.data.pairs import Embeddings, Kept, Pair, PairSource, Unread
from clipvet.data.samples import Roles, choose_roles, to_pair
from clipvet.errors import UnreadableError

__all__ = ["TarShard", "open_tars"]

_CHUNK = 1 << 20
_LOOK = 10  # samples that are looked at for the names of members and fields


@dataclass(frozen=True, kw_only=True)
class TarShard:
    """One tar file.

    Attributes:
        name: of the shard.
        path: of the file.
        roles: which member is what.
        record: img2dataset's table of all downloads, beside the file; None where there is none.
    """

    name: str
    path: Path
    roles: Roles
    record: Path | None = None

    @property
    def identity(self) -> str:
        """Names, sizes and times of change."""
        return identity(self.path, self.record)

    def pairs(self) -> Iterator[Pair | Unread]:
        """Yield a pair per sample, and everything that is none.

        Raises:
            UnreadableError: it is not there, or no uncompressed tar file.
        """
        items = (item for _, item in self._samples())
        yield from items if self.record is None else join(items, self.record)

    def embeddings(self) -> Embeddings | None:
        """Return None: it holds images."""
        return None

    def write_kept(self, keep: Container[str], folder: Path) -> Kept:
        """Write the tar file without the other samples; the members' bytes, headers included, stay as they are."""
        kept: set[str] = set()
        dropped = 0
        with output(folder, self.path, self.record) as files:
            with files.part(f"{self.name}.tar").open("wb") as target, self.path.open("rb") as source:
                for run, item in self._samples():
                    if isinstance(item, Pair) and item.key in keep:
                        kept.add(item.key)
                        for member in run:
                            _copy(source, target, member)
                    else:
                        dropped += bool(run)
                target.write(END)
            if self.record is not None:
                write_record(self.record, self.name, kept, files)
        return Kept(files=files.files, kept=len(kept), dropped=dropped)

    def _samples(self) -> Iterator[tuple[list[Member], Pair | Unread]]:
        """Yield runs of members of one key with what they make; no members for what is part of no sample."""
        seen: set[str] = set()
        for run in _runs(read_members(self.path, self.roles.wants)):
            if isinstance(run, Unread):
                yield [], run
                continue
            item = _item(run, self.roles)
            if item.key in seen:
                kind = "duplicate key" if isinstance(item, Pair) else "members not adjacent"
                item = Unread(key=item.key, kind=kind, why=f"the key came before; here are {_extensions(run)}")
            seen.add(item.key)
            yield run, item


def _item(run: list[Member], roles: Roles) -> Pair | Unread:
    members = [(member.extension, member.data) for member in run]
    return attempt(run[0].key, to_pair, run[0].key, members, roles)


def _extensions(run: list[Member]) -> str:
    return listed(member.extension for member in run)


def _runs(members: Iterator[Member | Unread]) -> Iterator[list[Member] | Unread]:
    """Gather neighbours of one key; what is no member does not part them."""
    run: list[Member] = []
    for member in members:
        if isinstance(member, Unread):
            yield member
            continue
        if run and member.key != run[0].key:
            yield run
            run = []
        run.append(member)
    if run:
        yield run


def _copy(source: BinaryIO, target: BinaryIO, member: Member) -> None:
    left = member.stop - member.start
    source.seek(member.start)
    while chunk := source.read(min(left, _CHUNK)):
        target.write(chunk)
        left -= len(chunk)
    target.write(bytes(left))  # the padding of the last member of an archive that was cut off


def open_tars(paths: Sequence[Path], wanted: Wanted) -> PairSource:
    """Open tar files, with img2dataset's tables beside them where they are.

    Raises:
        UsageError: a member or field that was asked for is not in the first samples.
    """
    extensions, fields = _first_samples(paths)
    roles = choose_roles(wanted, extensions, fields, paths[0].name)
    records = records_beside(paths)
    names = shard_names([(path.stem, path.parent.name) for path in paths])
    shards = [TarShard(name=n, path=p, roles=roles, record=r) for n, p, r in zip(names, paths, records, strict=True)]
    return PairSource(
        kind="img2dataset (tar)" if any(records) else "webdataset (tar)",
        shards=tuple(shards),
        mapping=roles.mapping(extensions),
        notes=(*progress_notes(paths, recorded=any(records)), *(lost_notes(paths) if any(records) else ())),
    )


def _first_samples(paths: Sequence[Path]) -> tuple[dict[str, None], dict[str, None]]:
    """Return the extensions and the fields of ``json`` in the first readable file's first samples."""
    extensions: dict[str, None] = {}
    fields: dict[str, None] = {}
    for path in paths:
        try:
            for run in islice(_runs(read_members(path, lambda extension: extension == "json")), _LOOK):
                for member in run if isinstance(run, list) else []:
                    extensions[member.extension] = None
                    fields.update(_fields(member))
        except UnreadableError:  # told when the shard's turn comes
            continue
        if extensions:
            break
    return extensions, fields


def _fields(member: Member) -> dict[str, None]:
    try:
        return dict.fromkeys(json_object(member.data)) if member.data is not None else {}
    except UnfitError:  # told when the sample's turn comes
        return {}
