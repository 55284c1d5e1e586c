package clipstep.demo

import clipstep.runtime.Frame
import clipstep.runtime.Ranked
import clipstep.runtime.StepModel
import clipstep.runtime.YuvConverter
import clipstep.runtime.YuvImage
import java.io.Closeable

private const val TOP = 3
private const val SMOOTHING = 0.5f

/** What the screen shows of a prediction. */
class Reading(val top: List<Ranked>, val stepMs: Double, val realTimeFactor: Double, val missed: Long)

/** A source's frames through a stream, on the worker's thread. [clock] gives nanoseconds. */
class Recogniser(model: StepModel, private val clock: () -> Long = System::nanoTime) : Closeable {
    private val stream = model.stream(SMOOTHING)
    private val converter = YuvConverter()
    private val subclipS = model.spec.input.run { frames * frameStride / fps }
    private var last = 0L
    private var period = 0L
    private var missed = 0L

    /** The upright square that the network saw last. */
    var seen: Frame? = null
        private set

    /** A prediction, or null while a subclip fills. [live] says that frames which do not come in time are missed. */
    fun accept(image: YuvImage, rotation: Int, timestampNs: Long, live: Boolean): Reading? {
        val frame = converter.convert(image, rotation)
        seen = frame
        if (live) countMissed(timestampNs)
        val begin = clock()
        val prediction = stream.push(frame, timestampNs) ?: return null
        val stepMs = (clock() - begin) / 1e6
        return Reading(prediction.top(TOP), stepMs, subclipS * 1000 / stepMs, missed)
    }

    /** The camera turned, or another video starts. */
    fun reset() {
        stream.reset()
        last = 0
        period = 0
        missed = 0
    }

    override fun close() = stream.close()

    /** A camera's shortest time between two frames is its period; a longer one hides frames that found no room. */
    private fun countMissed(timestampNs: Long) {
        val passed = timestampNs - last
        if (last in 1 until timestampNs) {
            period = if (period == 0L) passed else minOf(period, passed)
            missed += (passed + period / 2) / period - 1
        }
        last = timestampNs
    }
}
