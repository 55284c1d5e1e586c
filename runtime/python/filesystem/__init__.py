"""Files and folders: atomic writes, the lock of a path that is being written, and checks of paths before any work."""
