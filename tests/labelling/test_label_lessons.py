# Copyright (C) 2026 The anomalib-aoissl authors
# SPDX-License-Identifier: Apache-2.0

"""What a lesson says while others are learned, the folder changes, and tabs ask."""

from types import SimpleNamespace
from typing import Any

import pytest

from anomalib_aoissl.labelling.session import Session

pytestmark = pytest.mark.usefixtures("short_fits")


def test_the_state_is_told_while_suggestions_arrive(session: Session) -> None:
    """The worker puts suggestions in, in its own thread, at any moment."""

    class Arriving:
        def __init__(self) -> None:
            self.info: dict[str, float] = {}

        @property
        def lesson(self) -> int:
            stored["unit_9"] = Arriving()
            return 1

    stored: dict[str, Any] = {"unit_0": Arriving(), "unit_1": Arriving()}
    lessons: Any = session.lessons
    lessons._stored, lessons.lesson = stored, SimpleNamespace(number=1)
    assert session.state()["suggested"] == {"unit_0": {}, "unit_1": {}}
