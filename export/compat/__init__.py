"""The only modules of the export that use private parts of PyTorch, ExecuTorch and Core ML Tools, one for each library.

Each does its imports inside `clipstep.runtime.supported.SupportedRange.internals`. If the installed version is not supported, or lacks a name, the
import then fails with one sentence that says so. `clipstep.runtime.executorch_internals` does the same for the runtime.
`tests/package/test_internals.py` lists the public modules of the libraries, and fails when any other file uses something else.
"""
