"""A versioned bundle like those that companies write: each version is a folder, and a file names the current one."""

from __future__ import annotations

from pathlib import Path

from airflow.dag_processing.bundles.base import BaseDagBundle, BundleVersion


class FolderBundle(BaseDagBundle):
    """Versions of DAG files, in one folder each below ``root``."""

    supports_versioning = True

    def __init__(self, *, root: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.root = Path(root)

    def get_current_version(self) -> BundleVersion:
        current = (self.root / "current").read_text()
        return BundleVersion(current, {"folder": str(self.root / current)})

    @property
    def path(self) -> Path:
        return self.root / (self.version or self.get_current_version().version)

    def refresh(self) -> None:
        pass
