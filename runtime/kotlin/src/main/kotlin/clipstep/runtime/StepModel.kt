package clipstep.runtime

import java.io.Closeable
import java.io.File
import java.util.concurrent.locks.ReentrantReadWriteLock
import kotlin.concurrent.read
import kotlin.concurrent.write

/** The outputs of a step: [logits] (classes,), the next [states], flat, in the manifest's order, and by name the outputs that the export [kept], flat. */
public class StepResult @JvmOverloads constructor(public val logits: FloatArray, public val states: List<FloatArray>, public val kept: Map<String, FloatArray> = emptyMap()) {
    public operator fun component1(): FloatArray = logits

    public operator fun component2(): List<FloatArray> = states
}

/**
 * One artifact, loaded into one engine: `step(frames, states) -> (logits, next states)`.
 *
 * It is immutable; any number of streams and threads can share it. [close] waits for steps that are running.
 */
public class StepModel internal constructor(
    public val spec: Interface,
    private val artifact: LoadedArtifact,
    /** The artifact, the processor that it was made for, the engine, its threads, and settings that are not the usual ones. */
    public val description: String,
    /** A bundle that is closed with the model; null if the caller opened it. */
    private val opened: Bundle? = null,
    /** The precision of the artifact, `float32`, `float16` or `int8`, which decides how exact its outputs are; they are float32 in either. */
    public val precision: String = "float32",
) : Closeable {
    private val lock = ReentrantReadWriteLock()
    private var closed = false
    private val lazyBuffers = lazy { artifact.open() }
    private val shared: StepBuffers by lazyBuffers

    public val labels: List<String> get() = spec.labels

    /** Returns the states before a video's first step. */
    public fun initialStates(): List<FloatArray> = spec.states.map { state -> FloatArray(state.elements) { state.initial } }

    /**
     * Runs one step. [frames] are (T, H, W, 3) uint8, of the manifest's shape; [states] are those that the last step returned. Inputs are
     * not changed. Calls from several threads take turns. With onnxruntime streams run in parallel, and allocate nothing.
     *
     * @throws ClipstepException frames or states of another size or number; the model is closed.
     */
    public fun step(frames: ByteArray, states: List<FloatArray>): StepResult {
        if (spec.input.dtype != "uint8" && spec.input.kind == "joints") throw wrongType("bytes")
        return step(frames.size, states) { it.fill(frames, spec.input) }
    }

    /**
     * Runs one step as the other [step] does, on frames of float32: joints (T, V, C), or images of float32.
     *
     * @throws ClipstepException see the other [step]; or the artifact takes uint8.
     */
    public fun step(frames: FloatArray, states: List<FloatArray>): StepResult {
        if (spec.input.dtype != "float32") throw wrongType("floats")
        return step(frames.size, states) { it.fill(frames) }
    }

    private fun wrongType(got: String) = ClipstepException("frames have the wrong type", got = got, expected = spec.input.toString())

    private inline fun step(size: Int, states: List<FloatArray>, fill: (StepBuffers) -> Unit): StepResult = open {
        checkSize("frames", size, spec.input.shape, spec.input.elements)
        if (states.size != spec.states.size) throw ClipstepException("wrong number of states", got = states.size, expected = spec.states.size)
        for ((value, state) in states.zip(spec.states)) checkSize(state.name, value.size, state.shape, state.elements)
        synchronized(shared) {
            fill(shared)
            for ((value, buffer) in states.zip(shared.states)) buffer.duplicate().put(value)
            shared.run()
            StepResult(shared.logits.copy(), shared.states.map { it.copy() }, shared.keptByName(spec))
        }
    }

    /**
     * Returns a new stream, which holds the states and the position of one video source.
     *
     * @param smoothing the weight of the previous prediction's probabilities in those of the next, from 0 (no smoothing) to below 1.
     */
    @JvmOverloads
    public fun stream(smoothing: Float = 0f): Stream = open { Stream(this, artifact.open(), smoothing) }

    /** Runs one step in the caller's own buffers. */
    internal fun run(buffers: StepBuffers) = open { buffers.run() }

    /** Frees the engine's memory. It may be called twice. */
    override fun close(): Unit = lock.write {
        if (!closed) {
            if (lazyBuffers.isInitialized()) shared.close()
            artifact.close()
            opened?.close()
        }
        closed = true
    }

    private inline fun <T> open(action: () -> T): T = lock.read {
        if (closed) throw ClipstepException("the model is closed", fix = "load it again")
        action()
    }

    public companion object {
        /**
         * Opens a bundle, a folder or a pack, and loads its artifact for [engine] on this processor, with [threads] threads. Its other
         * artifacts may be missing. There is no fallback to another engine, setting or thread count.
         *
         * [precision] is the artifact's: `float32`, `float16` or `int8`. By default it is [Bundle.chosenPrecision], the one that
         * `clipstep export --tune` chose for this processor, and float32 in other bundles. If the processor does not compute in float16, the
         * float32 artifact is loaded in place of that one; [StepModel.description] and [StepModel.precision] say which it is.
         *
         * @throws ClipstepException the bundle is damaged, has no artifact of that precision for the engine, or the engine or the thread count
         *   is not available.
         */
        @JvmStatic
        @JvmOverloads
        public fun load(path: File, engine: Engine = OnnxRuntime(), threads: Int = 1, precision: String? = null): StepModel {
            val opened = Bundle.open(path, lazily = true)
            return try {
                load(opened, engine, threads, precision, opened)
            } catch (error: ClipstepException) {
                opened.close()
                throw error
            }
        }

        /** Loads the artifact of an open bundle, as the other [load] does. The bundle stays open, and files already checked are not hashed again. */
        @JvmStatic
        @JvmOverloads
        public fun load(bundle: Bundle, engine: Engine = OnnxRuntime(), threads: Int = 1, precision: String? = null): StepModel =
            load(bundle, engine, threads, precision, null)

        private fun load(bundle: Bundle, engine: Engine, threads: Int, precision: String?, opened: Bundle?): StepModel {
            val (artifact, kind) = runnable(bundle, engine.target, precision, computesFloat16())
            val spec = bundle.manifest.interfaceFor(artifact.inputDtype)
            val loaded = engine.load(bundle.file(artifact), spec, threads)
            val plural = if (threads > 1) "s" else ""
            val description = "${artifact.file} (${artifact.form}, ${kind}for ${artifact.platform}) in ${engine.id}, $threads thread$plural${engine.settings}"
            return StepModel(spec, loaded, description, opened, artifact.precision)
        }
    }
}

/**
 * Returns the artifact of a precision that this processor can run, and what a description says of its precision. Null is the precision that the
 * bundle chose for this processor, and otherwise float32.
 */
internal fun runnable(bundle: Bundle, target: String, precision: String?, computesFloat16: Boolean): Pair<Artifact, String> {
    val wanted = precision ?: bundle.chosenPrecision(target)
    val artifact = bundle.artifact(target, wanted)
    if (artifact.requires?.float16Processor != true || computesFloat16) return artifact to if (wanted == "float32") "" else "$wanted, "
    return bundle.artifact(target) to "float32 in place of $wanted, which this processor does not compute in, "
}

/** Writes (T, H, W, C) uint8 into the input, whatever its type. */
internal fun StepBuffers.fill(values: ByteArray, input: Input) {
    frames.clear()
    if (input.dtype == "uint8") frames.put(values) else for (value in values) frames.putFloat((value.toInt() and 0xff).toFloat())
    frames.clear()
}

/** Writes float32 frames into the input. */
internal fun StepBuffers.fill(values: FloatArray) {
    frames.clear()
    for (value in values) frames.putFloat(value)
    frames.clear()
}

private fun checkSize(name: String, got: Int, shape: List<Int>, expected: Int) {
    if (got != expected) {
        throw ClipstepException("$name has the wrong size", got = "$got numbers", expected = "(${shape.joinToString()}): $expected numbers")
    }
}

/** Copies the outputs that the export kept, by name. */
internal fun StepBuffers.keptByName(spec: Interface): Map<String, FloatArray> =
    if (kept.isEmpty()) emptyMap() else spec.keptOutputs.zip(kept) { output, buffer -> output.name to buffer.copy() }.toMap()

private fun java.nio.FloatBuffer.copy(): FloatArray = FloatArray(capacity()).also { duplicate().get(it) }
