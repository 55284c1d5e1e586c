package org.pytorch.executorch;

import java.nio.ByteBuffer;
import java.nio.FloatBuffer;

/** A signature, not the class. */
public abstract class Tensor {
    Tensor() {}

    public static Tensor fromBlobUnsigned(ByteBuffer data, long[] shape) {
        throw new UnsupportedOperationException("a signature only");
    }

    public static Tensor fromBlob(FloatBuffer data, long[] shape) {
        throw new UnsupportedOperationException("a signature only");
    }

    public float[] getDataAsFloatArray() {
        throw new UnsupportedOperationException("a signature only");
    }
}
