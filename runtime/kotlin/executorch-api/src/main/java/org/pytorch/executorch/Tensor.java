package org.pytorch.executorch;

import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.FloatBuffer;

/** A stand-in, never shipped: a tensor over memory that it does not own, as upstream's is. */
public class Tensor {
    final Buffer data;

    Tensor(Buffer data) {
        this.data = data;
    }

    public static Tensor fromBlobUnsigned(ByteBuffer data, long[] shape) {
        return new Tensor(data);
    }

    public static Tensor fromBlob(FloatBuffer data, long[] shape) {
        return new Tensor(data);
    }

    /** Copies the memory as it is now: for an output of {@link Module#forward}, what the latest call wrote. */
    public float[] getDataAsFloatArray() {
        FloatBuffer floats = ((FloatBuffer) data).duplicate();
        floats.rewind();
        float[] values = new float[floats.remaining()];
        for (int i = 0; i < values.length; i++) {
            values[i] = floats.get();
        }
        return values;
    }
}
