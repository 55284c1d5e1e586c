package clipstep.runtime

/** An RGB frame, (H, W, 3) uint8. The converter that made it reuses its memory: use it before the next frame is made. */
public class Frame(public val height: Int, public val width: Int, public val rgb: ByteArray) {
    init {
        if (height < 1 || width < 1 || rgb.size != height * width * CHANNELS) {
            throw ClipstepException(
                "a frame has the wrong size", got = "${rgb.size} bytes for $height x $width", expected = "uint8 (H, W, 3), RGB: height * width * 3 bytes",
            )
        }
    }

    public companion object {
        internal const val CHANNELS = 3
    }
}

/** A square of a frame: its upper left corner and its side, in pixels. */
public data class Box(val top: Int, val left: Int, val side: Int) {
    public companion object {
        /** The largest centred square, which evaluation and streams use. */
        @JvmStatic
        public fun center(height: Int, width: Int): Box {
            val side = minOf(height, width)
            return Box((height - side) / 2, (width - side) / 2, side)
        }
    }
}
