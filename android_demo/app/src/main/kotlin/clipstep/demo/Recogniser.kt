package clipstep.demo

import clipstep.runtime.Frame
import clipstep.runtime.Prediction
import clipstep.runtime.Ranked
import clipstep.runtime.Resampler
import clipstep.runtime.StepModel
import clipstep.runtime.YuvConverter
import clipstep.runtime.YuvImage
import java.io.Closeable

/** Seconds between two frames of a file; a longer pause is cut out, as Python's reader does. */
internal const val LONGEST_PAUSE_S = 1

/** The part of a prediction that the screen shows; [step] is counted from the start of a video. */
class Reading(val top: List<Ranked>, val stepMs: Double, val realTimeFactor: Double, val step: Int)

/** Runs a stream on a source's frames as the user prefers, on the worker thread. [clock] returns nanoseconds. */
class Recogniser(model: StepModel, private val preferences: Preferences = Preferences(), private val clock: () -> Long = System::nanoTime) : Closeable {
    private val input = model.spec.input
    private val stream = model.stream(preferences.smoothing / 100f)
    private val converter = YuvConverter()
    private val file = Resampler(input.fps, Math.round(LONGEST_PAUSE_S * input.fps))
    private val subclipS = input.run { frames * frameStride / fps }
    private var restartsBefore = 0

    /** The frames of a subclip, at the network's rate. */
    val frames: Int = input.frames * input.frameStride

    /** How often a gap of more than [frames] in live frames started the predictions anew since the last [reset]. */
    val gaps: Int get() = stream.restarts - restartsBefore

    /** How many pauses of more than [LONGEST_PAUSE_S] were cut out of a file since the last [reset]. */
    var pauses = 0
        private set

    /** The last upright square that the network was given. */
    var seen: Frame? = null
        private set

    /**
     * Takes a frame, and returns a prediction or null. After a gap in [live] frames a new video starts, and those that the network's rate does not need are not
     * converted; a file is one video, and all of its frames are shown.
     */
    fun accept(image: YuvImage, rotation: Int, timestampNs: Long, live: Boolean): Reading? {
        var begin = 0L
        fun convert(): Frame = converter.convert(image, rotation).also {
            seen = it
            begin = clock()
        }
        val prediction = (if (live) stream.push(timestampNs, ::convert) else pushOfFile(convert(), timestampNs)) ?: return null
        return reading(prediction, begin, prediction.step)
    }

    /** Ends the video, and returns the prediction that a network with a delay still owes, or null. The next frame is the first of a new video. */
    fun finish(): Reading? {
        val begin = clock()
        return stream.flush()?.let { reading(it, begin, it.step + 1) } // It comes after that of the last step.
    }

    private fun reading(prediction: Prediction, begin: Long, step: Int): Reading {
        val stepMs = (clock() - begin) / 1e6
        return Reading(prediction.top(preferences.top), stepMs, subclipS * 1000 / stepMs, step)
    }

    private fun pushOfFile(frame: Frame, timestampNs: Long): Prediction? {
        val copies = file.copies(timestampNs)
        if (file.restarted) pauses++
        var prediction: Prediction? = null
        repeat(copies.toInt()) { prediction = stream.push(frame) ?: prediction }
        return prediction
    }

    /** Starts a new video: the camera was rotated, or another video starts. */
    fun reset() {
        stream.reset()
        file.reset()
        restartsBefore = stream.restarts
        pauses = 0
    }

    override fun close() = stream.close()
}
