"""The only use that exports make of parts of PyTorch, ExecuTorch and Core ML Tools that are not public: one module for each library.

Each module imports within `clipstep.runtime.supported.SupportedRange.internals`, so that importing it refuses, in a sentence, a version that is
not supported or that lacks a name. `clipstep.runtime.executorch_internals` is the same for the runtime. `tests/package/test_internals.py` lists
the public modules of the libraries, and fails when any other file uses something else.
"""
