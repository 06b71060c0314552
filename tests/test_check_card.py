"""What the Hub would not understand as a model card is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from hublatent.errors import HublatentError
from hublatent.publish import check_card


def test_what_is_no_card_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HublatentError, match="holds no README"):
        check_card(tmp_path / "README.md")
    for broken in ("---\nlicense: [\n---\n", "---\nmodel-index: 3\n---\n"):
        (tmp_path / "README.md").write_text(broken)
        with pytest.raises(HublatentError, match="does not parse"):
            check_card(tmp_path / "README.md")
