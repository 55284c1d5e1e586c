package org.pytorch.executorch;

import java.io.Closeable;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.function.Function;

/**
 * A stand-in, never shipped, with upstream's rules for memory: all calls of a method write their outputs to the same memory, and the tensors
 * that {@link #forward} returns show that memory. They are valid until the next call, whichever thread makes it.
 */
public class Module implements Closeable {
    public static final int LOAD_MODE_MMAP = 1;

    /** The stand-in's own: what the file at a path computes. */
    public static volatile Function<String, Program> loader;

    private final Program program;
    private FloatBuffer[] outputs;
    private boolean closed;

    private Module(Program program) {
        this.program = program;
    }

    public static Module load(String modelPath, int loadMode, int numThreads) {
        if (loader == null) {
            throw new UnsupportedOperationException("a stand-in, for which no program was set");
        }
        return new Module(loader.apply(modelPath));
    }

    public synchronized EValue[] forward(EValue... inputs) {
        if (closed) {
            throw new IllegalStateException("Cannot use a destroyed Module");
        }
        Buffer[] given = new Buffer[inputs.length];
        for (int i = 0; i < inputs.length; i++) {
            given[i] = inputs[i].toTensor().data;
        }
        float[][] values = program.run(given);
        if (outputs == null) {
            outputs = memory(values);
        }
        EValue[] results = new EValue[values.length];
        for (int i = 0; i < values.length; i++) {
            FloatBuffer output = outputs[i].duplicate();
            output.put(values[i]);
            results[i] = EValue.from(new Tensor(outputs[i]));
        }
        return results;
    }

    private static FloatBuffer[] memory(float[][] values) {
        FloatBuffer[] buffers = new FloatBuffer[values.length];
        for (int i = 0; i < values.length; i++) {
            buffers[i] = ByteBuffer.allocateDirect(values[i].length * Float.BYTES).order(ByteOrder.nativeOrder()).asFloatBuffer();
        }
        return buffers;
    }

    @Override
    public synchronized void close() {
        closed = true;
    }
}
