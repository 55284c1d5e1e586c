"""Checks of manifests and artifacts before anything uses them; each module checks one kind."""
