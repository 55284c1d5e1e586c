package clipstep.runtime

import kotlin.math.floor

/**
 * Resamples a camera's frames to the rate of the training videos, by saying how often each frame is to be used.
 *
 * ```
 * camera     0    1    2    3    4    5        30 a second
 * wanted     0         1         2             15 a second
 * copies     1    0    1    0    1    0
 * ```
 * The wanted times are one period of the wanted rate apart. For each, the first frame is used that comes no earlier than half a period before it.
 */
class Resampler(private val fps: Double) {
    private var start = 0L
    private var last = 0L
    private var given = 0L

    /** Starts again with the next frame. */
    fun reset() {
        given = 0
    }

    /**
     * Returns how often the frame of that time is used: 0, 1, or more if the camera is slower.
     *
     * @throws ClipstepException the time is not after that of the frame before.
     */
    fun copies(timestampNs: Long): Long {
        if (given == 0L) start = timestampNs
        else if (timestampNs <= last) {
            throw ClipstepException("timestamps must increase", got = "$timestampNs ns after $last ns", fix = "call reset where another video starts")
        }
        last = timestampNs
        val wanted = floor((timestampNs - start) * 1e-9 * fps + 0.5).toLong() + 1
        return (wanted - given).also { given = wanted }
    }
}
