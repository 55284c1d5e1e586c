"""Importing this module imports what runs a `.pte` file, so that a process can do so before it loads one."""

import contextlib

from clipstep.runtime.errors import ClipstepError
from clipstep.runtime.executorch_internals import binding

with contextlib.suppress(ClipstepError):  # Loading a file raises it.
    binding()
