package org.pytorch.executorch;

/** A signature, not the class. */
public class EValue {
    private EValue() {}

    public static EValue from(Tensor tensor) {
        throw new UnsupportedOperationException("a signature only");
    }

    public Tensor toTensor() {
        throw new UnsupportedOperationException("a signature only");
    }
}
