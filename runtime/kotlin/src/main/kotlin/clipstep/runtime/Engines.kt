package clipstep.runtime

import java.io.Closeable
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/** The execution providers of onnxruntime that run here; in text they have onnxruntime's names, in lower case. */
public enum class Provider(private val text: String) {
    /** onnxruntime's own kernels, which every build has. */
    CPU("cpu"),

    /** XNNPACK's kernels, in float32. They have a thread pool of their own. */
    XNNPACK("xnnpack"),

    /** Android's neural networks API, which Android 15 deprecated. Its own reference implementation on the CPU is not used. */
    NNAPI("nnapi");

    override fun toString(): String = text

    public companion object {
        /** Returns the provider of that name, or throws a [ClipstepException] that lists the known ones. */
        @JvmStatic
        public fun named(text: String): Provider =
            values().firstOrNull { it.text == text } ?: throw ClipstepException("unknown provider", got = text, expected = "one of ${values().joinToString()}")
    }
}

/** What executes an artifact, with its settings: [OnnxRuntime] or [ExecuTorch]. */
public sealed class Engine(
    /** The name that it has in Python, in commands, in records and in errors. */
    public val id: String,
    /** The target whose artifacts it runs. */
    public val target: String,
    /** The dependency that an Android app needs for it. */
    public val dependency: String,
    private val probe: String,
) {
    /** Whether its classes are in this app. */
    public val isPresent: Boolean
        get() = try {
            Class.forName(probe, false, javaClass.classLoader) != null
        } catch (_: ClassNotFoundException) {
            false
        }

    /** What a description and a record say of settings that are not the usual ones; empty if there are none. */
    internal open val settings: String get() = ""

    internal abstract fun open(path: File, spec: Interface, threads: Int): LoadedArtifact

    /**
     * Loads the artifact at [path]. There is no fallback.
     *
     * @throws ClipstepException it is not in this app, or lacks a setting; a thread count that this machine does not have; a file that it refuses.
     */
    internal fun load(path: File, spec: Interface, threads: Int): LoadedArtifact {
        checkThreads(threads)
        if (!isPresent) throw ClipstepException("engine $id is not in this app", fix = "add the dependency $dependency")
        return try {
            open(path, spec, threads)
        } catch (error: LinkageError) {
            throw ClipstepException("engine $id does not start here", got = error.reason(), expected = "native libraries for this processor", cause = error)
        }
    }

    public companion object {
        /** The engines, with their usual settings. */
        @JvmStatic
        public val all: List<Engine> get() = listOf(OnnxRuntime(), ExecuTorch)

        /** Returns the engine of that name, with its usual settings, or throws a [ClipstepException] that lists the known ones. */
        @JvmStatic
        public fun named(id: String): Engine =
            all.firstOrNull { it.id == id } ?: throw ClipstepException("unknown engine", got = id, expected = "one of ${all.joinToString { it.id }}")
    }
}

/**
 * onnxruntime. Each operator of an artifact runs in the first of the [providers] that has a kernel for it. Without [Provider.CPU] among them an
 * artifact is refused unless the others take all of its operators.
 *
 * With [spinning], onnxruntime's own default, its threads wait busily for the next step. That is a little faster for steps that follow each other
 * at once, and wastes battery between the steps of a live stream.
 *
 * @throws ClipstepException there is no provider, or one twice, or one after the CPU's, which takes all.
 */
public data class OnnxRuntime @JvmOverloads constructor(val providers: List<Provider> = listOf(Provider.CPU), val spinning: Boolean = false) :
    Engine("onnxruntime", "onnx", "com.microsoft.onnxruntime:onnxruntime-android", "ai.onnxruntime.OrtEnvironment") {
    init {
        val usable = providers.isNotEmpty() && providers.distinct() == providers && Provider.CPU !in providers.dropLast(1)
        if (!usable) throw ClipstepException("these providers cannot be used", got = providers, expected = "at least one, each once, and cpu last if at all")
    }

    override val settings: String
        get() = (if (providers == listOf(Provider.CPU)) "" else " on ${providers.joinToString(" and ")}") + if (spinning) ", spinning" else ""

    override fun open(path: File, spec: Interface, threads: Int): LoadedArtifact = OnnxRuntimeArtifact(path, spec, threads, this)

    override fun toString(): String = id + settings
}

/** ExecuTorch with XNNPACK. The whole process has one thread pool: models that are open at once have the same number of threads. */
public data object ExecuTorch : Engine("executorch", "executorch", "org.pytorch:executorch-android", "org.pytorch.executorch.Module") {
    override fun open(path: File, spec: Interface, threads: Int): LoadedArtifact = ExecuTorchArtifact(path, spec, threads)

    override fun toString(): String = id
}

/** An artifact in an engine. It may be shared by threads; each has its own [StepBuffers]. */
internal interface LoadedArtifact : Closeable {
    /** Buffers for one caller's steps. */
    fun open(): StepBuffers

    /** Frees the memory. The artifact and its buffers must not be used afterwards. */
    override fun close()
}

/** The inputs and outputs of one caller's steps: direct buffers in native order, allocated once. Only one thread may use them at a time. */
internal interface StepBuffers : Closeable {
    /** The input, in the artifact's own type: (T, H, W, 3). */
    val frames: ByteBuffer

    /** The states that the next step takes, in the manifest's order. [run] replaces them, maybe by other buffers: read this again after each step. */
    val states: List<FloatBuffer>

    /** The logits of the last step, (classes,). */
    val logits: FloatBuffer

    /** The outputs of the last step that the export kept beside these, in the manifest's order. */
    val kept: List<FloatBuffer> get() = emptyList()

    /** Runs one step; [frames] are not changed. */
    fun run()
}

private fun checkThreads(threads: Int) {
    val cores = Runtime.getRuntime().availableProcessors()
    if (threads !in 1..cores) throw ClipstepException("thread count not available", got = threads, expected = "1 to $cores")
}

internal fun directBytes(size: Int): ByteBuffer = ByteBuffer.allocateDirect(size).order(ByteOrder.nativeOrder())

internal fun directFloats(size: Int): FloatBuffer = directBytes(size * Float.SIZE_BYTES).asFloatBuffer()

internal fun frameBuffer(input: Input): ByteBuffer = directBytes(input.elements * if (input.dtype == "uint8") 1 else Float.SIZE_BYTES)

internal fun longs(shape: List<Int>): LongArray = LongArray(shape.size) { shape[it].toLong() }

/** Copies the outputs of a step into their buffers, after a check of their sizes: an artifact may return something else than it declares. */
internal fun keep(values: List<FloatArray>, buffers: List<FloatBuffer>, file: String) {
    val sizes = values.map { it.size }
    if (sizes != buffers.map { it.capacity() }) throw EngineException("$file: a step gave other outputs than the manifest says", got = "$sizes numbers")
    for ((value, buffer) in values.zip(buffers)) {
        buffer.clear()
        buffer.put(value)
        buffer.clear()
    }
}
