package clipstep.demo

import clipstep.runtime.Frame
import clipstep.runtime.Ranked
import clipstep.runtime.StepModel
import clipstep.runtime.YuvConverter
import clipstep.runtime.YuvImage
import java.io.Closeable

private const val TOP = 3
private const val SMOOTHING = 0.5f

/** The part of a prediction that the screen shows. */
class Reading(val top: List<Ranked>, val stepMs: Double, val realTimeFactor: Double, val missed: Long)

/** Runs a stream on a source's frames, on the worker thread. [clock] returns nanoseconds. */
class Recogniser(model: StepModel, private val clock: () -> Long = System::nanoTime) : Closeable {
    private val stream = model.stream(SMOOTHING)
    private val converter = YuvConverter()
    private val subclipS = model.spec.input.run { frames * frameStride / fps }
    private var last = 0L
    private var period = 0L
    private var missed = 0L

    /** The last upright square that the network was given. */
    var seen: Frame? = null
        private set

    /** Takes a frame, and returns a prediction or null. [live] says whether frames that are not taken in time are lost; these are counted. */
    fun accept(image: YuvImage, rotation: Int, timestampNs: Long, live: Boolean): Reading? {
        val frame = converter.convert(image, rotation)
        seen = frame
        if (live) countMissed(timestampNs)
        val begin = clock()
        val prediction = stream.push(frame, timestampNs) ?: return null
        val stepMs = (clock() - begin) / 1e6
        return Reading(prediction.top(TOP), stepMs, subclipS * 1000 / stepMs, missed)
    }

    /** Starts a new video: the camera was rotated, or another video starts. */
    fun reset() {
        stream.reset()
        last = 0
        period = 0
        missed = 0
    }

    override fun close() = stream.close()

    /** Counts lost frames. The shortest time between frames counts as the camera's period; each further period in a longer gap is a lost frame. */
    private fun countMissed(timestampNs: Long) {
        val passed = timestampNs - last
        if (last in 1 until timestampNs) {
            period = if (period == 0L) passed else minOf(period, passed)
            missed += (passed + period / 2) / period - 1
        }
        last = timestampNs
    }
}
