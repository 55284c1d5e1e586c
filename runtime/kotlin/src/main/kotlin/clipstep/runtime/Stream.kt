package clipstep.runtime

import java.io.Closeable
import java.nio.ByteBuffer
import java.util.concurrent.atomic.AtomicBoolean

private const val SHOWN_LOGITS = 4

/**
 * The stream of one video source: push frames, get predictions. It holds the states, the position, and the frames of the next subclip. Only
 * one thread may use it at a time; its model may be shared. After the first subclip a step allocates nothing but its [Prediction].
 *
 * What [push] and [flush] return:
 *
 * ```
 * push  push  push  push | push  push  push  push | flush
 * null  null  null  pred | null  null  null  pred | null       (T = 4)
 * null  null  null  null | null  null  null  pred | pred       (T = 4, and a delay of 4 frames)
 * ```
 */
public class Stream internal constructor(private val model: StepModel, private val buffers: StepBuffers, private val smoothing: Float) : Closeable {
    private val spec = model.spec.input
    private val frameBytes = spec.elements / spec.frames // A field, because computing it allocates an iterator for each frame.
    private val subclip: ByteBuffer
    private val resizer: Resizer
    private val resampler = Resampler(spec.fps, spec.frames.toLong() * spec.frameStride)
    private var smoothed: FloatArray? = null
    private var seen = 0L
    private var waiting = 0
    private var steps = 0
    private var closed = false

    /** How often a gap or a jump of the timestamps started another video. */
    public var restarts: Int = 0
        private set
    private val inUse = AtomicBoolean(false)

    init {
        if (spec.color != "RGB") throw ClipstepException("a stream takes RGB frames", got = "a bundle for ${spec.content}", fix = "call step with subclips of that")
        if (spec.shape[1] != spec.shape[2]) throw ClipstepException("a stream resizes to a square", got = "a bundle for $spec", fix = "call step with subclips of that")
        if (smoothing < 0 || smoothing >= 1) throw ClipstepException("smoothing is out of range", got = smoothing, expected = "0 to below 1")
        subclip = if (spec.dtype == "uint8") buffers.frames.duplicate() else ByteBuffer.allocate(spec.elements)
        resizer = Resizer(spec.shape[1])
        restart()
    }

    /** Starts a new video with the next frame. */
    public fun reset(): Unit = alone { restart() }

    private fun restart() {
        for ((state, buffer) in model.spec.states.zip(buffers.states)) for (i in 0 until buffer.capacity()) buffer.put(i, state.initial)
        resampler.reset()
        smoothed = null
        seen = 0
        waiting = 0
        steps = 0
    }

    /**
     * Takes the next frame, of any size, and returns a prediction once every T frames, after the network's delay has passed. The largest
     * centred square is resized to the model's size, as in evaluation.
     *
     * @throws ClipstepException the stream or its model is closed, another thread is using the stream, or the engine fails. The stream is
     *   then as it was before the frame.
     */
    public fun push(frame: Frame): Prediction? = alone { take { frame } }

    private inline fun take(frame: () -> Frame): Prediction? {
        if (closed) throw ClipstepException("the stream is closed", fix = "open another with model.stream()")
        if (seen % spec.frameStride != 0L) {
            seen++
            return null
        }
        val used = frame()
        subclip.position(waiting * frameBytes)
        resizer.resize(used, subclip)
        if (waiting + 1 < spec.frames) {
            waiting++
            seen++
            return null
        }
        return step() // If this step fails, the next frame replaces the one that was just added.
    }

    /**
     * Takes the next frame as the other [push] does, but from a source of any frame rate: frames are dropped or repeated so as to keep the
     * nominal rate. After a gap, or a step back, of more than a subclip a new video starts; [restarts] counts that.
     *
     * @param timestampNs when the frame was taken, in nanoseconds of a monotonic clock.
     * @throws ClipstepException see the other [push].
     */
    public fun push(frame: Frame, timestampNs: Long): Prediction? = pushAt(timestampNs) { frame }

    /**
     * Takes the next frame as the other [push] with a timestamp does, but asks for it only if it is used, and then once: [frame] may convert a camera's
     * image, and those that the rate does not need are not converted.
     *
     * @throws ClipstepException see the other [push].
     */
    public fun push(timestampNs: Long, frame: () -> Frame): Prediction? = pushAt(timestampNs, frame)

    private inline fun pushAt(timestampNs: Long, frame: () -> Frame): Prediction? = alone {
        var copies = resampler.copies(timestampNs)
        if (resampler.restarted) {
            restart()
            restarts++
            copies = resampler.copies(timestampNs)
        }
        var prediction: Prediction? = null
        var given: Frame? = null
        repeat(copies.toInt()) { prediction = take { given ?: frame().also { given = it } } ?: prediction }
        prediction
    }

    /**
     * Ends the video. Frames that do not fill a subclip are dropped, as in training, and the next frame starts a new video.
     *
     * Returns the prediction for the whole video, with its end padded as in training, if the network has a delay. Null if [push] has returned
     * it already, if the bundle has no flush, or if the video is too short.
     *
     * @throws ClipstepException the stream or its model is closed, another thread is using the stream, or the engine fails; the next
     *   frame is then the first of a new video.
     */
    public fun flush(): Prediction? = alone {
        try {
            model.spec.flush?.takeIf { steps.toLong() * spec.frames >= it.minFrames }?.let(::end)
        } finally {
            restart()
        }
    }

    private fun end(flush: Flush): Prediction {
        if (closed) throw ClipstepException("the stream is closed", fix = "open another with model.stream()")
        val state = buffers.states[model.spec.states.indexOfFirst { it.name == flush.state }]
        for (i in 0 until state.capacity()) state.put(i, 1f)
        for (i in 0 until buffers.frames.capacity()) buffers.frames.put(i, 0)
        repeat(flush.steps) { model.run(buffers) }
        return predict()
    }

    /** Frees the buffers; the model stays open. It may be called twice. */
    override fun close() {
        if (!closed) buffers.close()
        closed = true
    }

    private fun step(): Prediction? {
        if (spec.dtype != "uint8") buffers.fill(subclip.array(), spec)
        try {
            model.run(buffers)
        } catch (error: EngineException) {
            throw EngineException("step $steps: ${error.message}", cause = error)
        }
        waiting = 0
        seen++
        steps++
        return if (steps.toLong() * spec.frames > model.spec.delayFrames) predict() else null
    }

    /**
     * Returns the prediction of the last step. If its logits are not finite, the file is damaged or its precision too low for the frames. The stream
     * cannot go on from the states of such a step, so the next frame starts a new video.
     */
    private fun predict(): Prediction {
        val logits = FloatArray(model.labels.size)
        for (i in logits.indices) logits[i] = buffers.logits.get(i)
        if (logits.any { !it.isFinite() }) {
            val step = steps - 1
            restart()
            throw EngineException("step $step: ${model.description}: gave logits that are not finite", got = logits.take(SHOWN_LOGITS).joinToString())
        }
        val probabilities = smooth(probabilities(logits, model.spec.outputKind))
        return Prediction(steps - 1, seen, logits, probabilities, model.labels, buffers.keptByName(model.spec))
    }

    private inline fun <T> alone(action: () -> T): T {
        if (!inUse.compareAndSet(false, true)) {
            throw ClipstepException("the stream is in use by another thread", fix = "give each thread a stream of its own: model.stream()")
        }
        try {
            return action()
        } finally {
            inUse.set(false)
        }
    }

    private fun smooth(probabilities: FloatArray): FloatArray {
        val before = smoothed
        if (smoothing > 0 && before != null) for (i in before.indices) probabilities[i] += smoothing * (before[i] - probabilities[i])
        if (smoothing > 0) smoothed = probabilities.copyOf() // A copy, because the reader of the prediction may change its array.
        return probabilities
    }
}
