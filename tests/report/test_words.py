"""Pages show text from data and models as text."""

from __future__ import annotations

from plimsoll.report.words import safe


def test_markup_in_labels_is_shown_and_not_obeyed() -> None:
    written = safe("<script>alert(1)</script> | [x](javascript:1) `code` *b*\nnew line")
    assert "<script>" not in written
    assert "\n" not in written
    for sign in ("|", "[", "`", "*"):
        assert f"\\{sign}" in written
