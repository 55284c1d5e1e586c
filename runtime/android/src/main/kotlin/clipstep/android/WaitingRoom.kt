package clipstep.android

import java.util.concurrent.atomic.AtomicInteger

/** How many frames may wait during a step: those of 0.2 s, of a camera with 30 frames a second. */
public const val WAITING_FRAMES: Int = 6

/**
 * Counts the frames that wait for the thread that runs the steps. There is room for [room] of them; a frame that finds none is to be dropped, and counts as
 * missed. So a step may take longer than a frame lasts without a loss, and frames do not pile up if steps are too slow.
 *
 * One thread may enter while another leaves.
 */
public class WaitingRoom @JvmOverloads constructor(private val room: Int = WAITING_FRAMES) {
    private val waiting = AtomicInteger()

    /** How many frames found no room. */
    @Volatile
    public var missed: Long = 0
        private set

    /** Returns whether there was room for a frame. Called by one thread. */
    public fun enter(): Boolean {
        val entered = waiting.get() < room
        if (entered) waiting.incrementAndGet() else missed++
        return entered
    }

    /** A frame that had entered is being used, and waits no longer. */
    public fun leave() {
        waiting.decrementAndGet()
    }
}
