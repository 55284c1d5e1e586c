package clipstep.runtime

import java.io.Closeable
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/** A loaded artifact. It may be shared by threads; each has its own [StepBuffers]. */
interface Engine : Closeable {
    /** Buffers for one caller's steps. */
    fun open(): StepBuffers

    /** Frees the memory. The engine and its buffers must not be used afterwards. */
    override fun close()
}

/** The inputs and outputs of one caller's steps: direct buffers in native order, allocated once. Only one thread may use them at a time. */
interface StepBuffers : Closeable {
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

/**
 * An engine: the [target] that it runs, the dependency that it needs, whether its threads can spin between steps, the class whose presence
 * tells that it is installed, and its loader.
 */
class EngineInfo internal constructor(
    val target: String,
    val needs: String,
    val spins: Boolean,
    private val probe: String,
    internal val load: (File, Interface, Int, Boolean) -> Engine,
) {
    /** Whether the engine's classes are in this app. */
    val isPresent: Boolean
        get() = try {
            Class.forName(probe, false, javaClass.classLoader) != null
        } catch (_: ClassNotFoundException) {
            false
        }
}

/** The engines by name. */
val ENGINES: Map<String, EngineInfo> = mapOf(
    "onnxruntime" to EngineInfo("onnx", "com.microsoft.onnxruntime:onnxruntime-android", true, "ai.onnxruntime.OrtEnvironment", ::OnnxRuntime),
    "executorch" to EngineInfo("executorch", "org.pytorch:executorch-android", false, "org.pytorch.executorch.Module") { path, spec, threads, _ ->
        ExecuTorch(path, spec, threads)
    },
)

/**
 * Loads the artifact at [path] into the engine of that name; with [spinning] its threads wait busily between steps. There is no fallback.
 *
 * @throws ClipstepException an unknown engine, one that is not in this app or has no such setting, a thread count this machine does not have, or a
 *   file that the engine refuses.
 */
fun loadEngine(name: String, path: File, spec: Interface, threads: Int, spinning: Boolean = false): Engine {
    val info = engineInfo(name)
    checkThreads(threads)
    if (spinning && !info.spins) {
        throw ClipstepException("$name cannot let its threads spin (wait busily)", expected = "spinning with ${ENGINES.filterValues { it.spins }.keys.joinToString()} only")
    }
    if (!info.isPresent) throw ClipstepException("engine $name is not in this app", fix = "add the dependency ${info.needs}")
    return try {
        info.load(path, spec, threads, spinning)
    } catch (error: LinkageError) {
        throw ClipstepException("engine $name does not start here", got = error.reason(), expected = "native libraries for this processor", cause = error)
    }
}

/** Returns the engine of that name, or throws a [ClipstepException] that lists the known ones. */
fun engineInfo(name: String): EngineInfo =
    ENGINES[name] ?: throw ClipstepException("unknown engine", got = name, expected = "one of ${ENGINES.keys.joinToString()}")

/** Checks that this machine has that many cores. */
fun checkThreads(threads: Int) {
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
