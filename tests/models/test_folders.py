"""What in a folder is taken for a delivery, and what is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from clipvet.errors import UnreadableError
from clipvet.models import folders
from clipvet.models.folders import find_deliveries


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def taken(root: Path, **given: Path) -> list[str]:
    return [str(path.relative_to(root)) for path in find_deliveries(root, **given).deliveries]


def passed(root: Path, **given: Path) -> dict[str, str]:
    return {str(Path(item.what).relative_to(root)): item.why for item in find_deliveries(root, **given).passed_over}


def test_loose_files_and_run_folders_are_taken_in_order_of_their_names(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "b.safetensors",
        "a/prompt_learner/model.pth.tar-10",
        "a/prompt_learner/model.pth.tar-50",
        "a/log.txt",
        "caltech/CoOp/rn50/seed1/prompt_learner/model-best.pth.tar",
        "caltech/CoOp/rn50/seed2/prompt_learner/model-best.pth.tar",
        "zoo/one.pt",
        "zoo/two.pt",
        "README.md",
    )
    found = ["a", "b.safetensors", "caltech/CoOp/rn50/seed1", "caltech/CoOp/rn50/seed2", "zoo/one.pt", "zoo/two.pt"]
    assert taken(tmp_path) == found
    assert passed(tmp_path) == {"README.md": "its name is not that of a checkpoint"}


def test_a_run_folder_is_one_delivery_and_names_what_else_lies_in_it(tmp_path: Path) -> None:
    touch(tmp_path, "model.pth.tar-5", "earlier/model.pth.tar-2", "tensorboard/events")
    assert taken(tmp_path) == ["."]
    assert list(passed(tmp_path)) == ["earlier"]
    assert "name this folder to have it inspected" in passed(tmp_path)["earlier"]


def test_a_loose_file_does_not_hide_the_deliveries_beside_it(tmp_path: Path) -> None:
    touch(tmp_path, "base.pt", "run/prompt_learner/model.pth.tar-5")
    assert taken(tmp_path) == ["base.pt", "run"]
    (tmp_path / "base.pt").unlink()
    touch(tmp_path, "run/notes/only.pt")
    assert taken(tmp_path) == ["run"]


def test_the_folder_of_the_reports_is_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "only.pt", "report/triggers.safetensors")
    assert taken(tmp_path, without=tmp_path / "report") == ["."]
    touch(tmp_path, "second.pt")
    assert taken(tmp_path, without=tmp_path / "report") == ["only.pt", "second.pt"]
    assert passed(tmp_path, without=tmp_path / "report") == {"report": "it is where the reports are written"}


def test_links_that_lead_out_or_round_are_passed_over(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    touch(outside, "model.pt")
    touch(root, "a.pt", "b.pt")
    (root / "link.pt").symlink_to(outside / "model.pt")
    (root / "round").symlink_to(root)
    (root / "away").symlink_to(outside)
    assert taken(root) == ["a.pt", "b.pt"]
    reasons = passed(root)
    assert reasons["round"] == reasons["away"] == "it is a link to a folder"
    assert "leads out of the folder" in reasons["link.pt"]


def test_a_folder_that_is_refused_is_taken_so_that_its_error_is_seen(tmp_path: Path) -> None:
    touch(tmp_path, "good/prompt_learner/model.pth.tar-5", "evil/model.pth.tar-5")
    (tmp_path / "evil" / "checkpoint").write_text("../../secret\n")
    assert taken(tmp_path) == ["evil", "good"]


def test_what_lies_too_deep_is_said(tmp_path: Path) -> None:
    deep = "/".join("abcdefgh")
    touch(tmp_path, f"{deep}/i/one.pt", f"{deep}/i/two.pt", "top/one.pt", "top/two.pt")
    assert taken(tmp_path) == ["top/one.pt", "top/two.pt"]
    assert passed(tmp_path) == {deep: "it lies deeper than 8 folders"}


def test_a_whole_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "_MOST", 2)
    touch(tmp_path, "a.pt", "b.pt", "c.pt")
    with pytest.raises(UnreadableError, match="holds more than 2 entries; name the deliveries"):
        find_deliveries(tmp_path)


def test_an_empty_folder_holds_none(tmp_path: Path) -> None:
    assert find_deliveries(tmp_path).deliveries == ()
