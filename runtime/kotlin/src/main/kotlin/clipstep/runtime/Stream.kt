package clipstep.runtime

import java.io.Closeable
import java.nio.ByteBuffer

/**
 * One video source: its states, its position, and the frames that wait for their subclip to fill. It belongs to one thread;
 * the model behind it may be shared. After the first subclip a step allocates nothing but its [Prediction].
 *
 * ```
 * push  push  push  push | push  push  push  push | flush
 * null  null  null  pred | null  null  null  pred | null       (T = 4)
 * ```
 */
class Stream internal constructor(private val model: StepModel, private val buffers: StepBuffers, private val smoothing: Float) : Closeable {
    private val spec = model.spec.input
    private val subclip: ByteBuffer
    private val resizer: Resizer
    private val resampler = Resampler(spec.fps)
    private var smoothed: FloatArray? = null
    private var seen = 0L
    private var waiting = 0
    private var steps = 0
    private var closed = false

    init {
        if (spec.color != "RGB") throw ClipstepException("a stream takes RGB frames", got = "a bundle for ${spec.color}", fix = "call step with subclips of that")
        if (spec.shape[1] != spec.shape[2]) throw ClipstepException("a stream resizes to a square", got = "a bundle for $spec", fix = "call step with subclips of that")
        if (smoothing < 0 || smoothing >= 1) throw ClipstepException("smoothing is out of range", got = smoothing, expected = "0 to below 1")
        subclip = if (spec.dtype == "uint8") buffers.frames.duplicate() else ByteBuffer.allocate(spec.elements)
        resizer = Resizer(spec.shape[1])
        reset()
    }

    /** Forgets everything: the next frame is the first of a new video. */
    fun reset() {
        for ((state, buffer) in model.spec.states.zip(buffers.states)) for (i in 0 until buffer.capacity()) buffer.put(i, state.initial)
        resampler.reset()
        smoothed = null
        seen = 0
        waiting = 0
        steps = 0
    }

    /**
     * Takes the next frame, of any size; gives a prediction once every T frames, as soon as the bundle's delay has passed. The
     * largest centred square is resized to the model's size, as in evaluation.
     *
     * @throws ClipstepException the stream or its model is closed, or the engine fails.
     */
    fun push(frame: Frame): Prediction? {
        if (closed) throw ClipstepException("the stream is closed", fix = "open another with model.stream()")
        val used = seen % spec.frameStride == 0L
        seen++
        if (!used) return null
        subclip.position(waiting * (spec.elements / spec.frames))
        resizer.resize(frame, subclip)
        if (waiting + 1 < spec.frames) {
            waiting++
            return null
        }
        // Should this step fail, the next frame takes the place of the one that led to it.
        return step()
    }

    /**
     * The same for a source of any frame rate: the frame is used as often as the nominal rate asks for, not at all or several
     * times. After a pause longer than a subclip a new video starts.
     *
     * @param timestampNs when the frame was taken, in nanoseconds of a clock that rises.
     * @throws ClipstepException also: the time is not after that of the frame before.
     */
    fun push(frame: Frame, timestampNs: Long): Prediction? {
        var copies = resampler.copies(timestampNs)
        if (copies > spec.frames.toLong() * spec.frameStride) {
            reset()
            copies = resampler.copies(timestampNs)
        }
        var prediction: Prediction? = null
        repeat(copies.toInt()) { prediction = push(frame) ?: prediction }
        return prediction
    }

    /** Ends the video: frames that did not fill a subclip are dropped, as in training, and the stream is reset. */
    fun flush() = reset()

    /** Gives its buffers back; the model stays open. Closing twice is allowed. */
    override fun close() {
        if (!closed) buffers.close()
        closed = true
    }

    private fun step(): Prediction? {
        if (spec.dtype != "uint8") buffers.fill(subclip.array(), spec)
        model.run(buffers)
        waiting = 0
        steps++
        if (steps.toLong() * spec.frames <= model.spec.delayFrames) return null
        val logits = FloatArray(model.labels.size)
        for (i in logits.indices) logits[i] = buffers.logits.get(i)
        return Prediction(steps - 1, seen, logits, smooth(probabilities(logits, model.spec.output)), model.labels)
    }

    private fun smooth(probabilities: FloatArray): FloatArray {
        val before = smoothed
        if (smoothing > 0 && before != null) for (i in before.indices) probabilities[i] += smoothing * (before[i] - probabilities[i])
        if (smoothing > 0) smoothed = probabilities.copyOf() // The prediction's own array is its reader's to change.
        return probabilities
    }
}
