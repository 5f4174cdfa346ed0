"""The project in which the small study stands."""

from __future__ import annotations

from pathlib import Path

import pytest
from study_examples import EXAMPLE, ROOT, STUDY

from rllib_cikd.experiments.variants import VARIANTS_FILE


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a tuned example, the paper's variants and a study."""
    (tmp_path / "tuned_examples").mkdir()
    (tmp_path / "tuned_examples" / "small.yaml").write_text(EXAMPLE)
    (tmp_path / "studies").mkdir()
    (tmp_path / VARIANTS_FILE).write_text((ROOT / VARIANTS_FILE).read_text())
    (tmp_path / "studies" / "small.yaml").write_text(STUDY)
    return tmp_path
