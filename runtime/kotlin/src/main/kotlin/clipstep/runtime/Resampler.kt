package clipstep.runtime

import kotlin.math.abs
import kotlin.math.floor

/** Not a half: of twice the rate, every second frame is half a period early, and rounding would decide between two frames each time. */
private const val EARLY = 0.45

/**
 * Resamples a camera's frames to the rate of the training videos, by saying how often each frame is to be used. Python's streams have the same rule.
 *
 * ```
 * camera     0    1    2    3    4    5        30 a second
 * wanted     0         1         2             15 a second
 * copies     1    0    1    0    1    0
 * ```
 * The wanted times are one period of the wanted rate apart. For each, the first frame is used that comes no earlier than [EARLY] periods before it.
 *
 * @param longest a gap of more than so many frames of that rate, or a step back by more, starts another video.
 */
public class Resampler(private val fps: Double, private val longest: Long) {
    private var start = 0L
    private var given = 0L

    /** Whether the last frame started another video. */
    public var restarted: Boolean = false
        private set

    /** Starts again with the next frame. */
    public fun reset() {
        given = 0
        restarted = false
    }

    /**
     * Returns how often the frame of that time is used: 0, 1, or more if the camera is slower. Frames that are not later than those before are left out,
     * until time has caught up.
     */
    public fun copies(timestampNs: Long): Long {
        val copies = floor((timestampNs - start) * 1e-9 * fps + EARLY).toLong() + 1 - given
        restarted = given > 0 && abs(copies) > longest
        if (restarted || given == 0L) {
            start = timestampNs
            given = 1
            return 1
        }
        return maxOf(copies, 0).also { given += it }
    }
}
