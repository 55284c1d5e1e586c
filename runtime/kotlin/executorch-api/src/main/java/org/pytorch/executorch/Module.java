package org.pytorch.executorch;

import java.io.Closeable;

/** A signature, not the class. */
public class Module implements Closeable {
    public static final int LOAD_MODE_MMAP = 1;

    private Module() {}

    public static Module load(String modelPath, int loadMode, int numThreads) {
        throw new UnsupportedOperationException("a signature only");
    }

    public EValue[] forward(EValue... inputs) {
        throw new UnsupportedOperationException("a signature only");
    }

    @Override
    public void close() {}
}
