"""What clipstep uses of PyTorch, ExecuTorch and Core ML Tools that is not public: one module for each, and no use of it elsewhere.

Each module imports inside of `clipstep.runtime.supported.SupportedRange.internals`, so that a version which is not supported, or lacks
a name, is refused in a sentence when the module is imported. `tests/package/test_internals.py` lists the public modules, and finds uses of
any other outside this package and `clipstep.runtime.executorch_internals`, which serves the runtime.
"""
