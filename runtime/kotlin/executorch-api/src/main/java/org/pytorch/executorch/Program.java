package org.pytorch.executorch;

import java.nio.Buffer;

/** The stand-in's own: what the method of a loaded file computes. */
public interface Program {
    /** Returns the outputs of one call, flat, from the inputs: direct buffers, which must not be changed. */
    float[][] run(Buffer[] inputs);
}
