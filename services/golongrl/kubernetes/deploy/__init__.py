"""Installing and upgrading a release with Helm, with a diff first."""
