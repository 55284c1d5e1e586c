package clipstep.runtime

import java.io.File
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

/**
 * ExecuTorch with XNNPACK, through `org.pytorch:executorch-android`. The whole process has one thread pool.
 *
 * A module's outputs lie in memory of its own, which the next call overwrites. So a step and the copy of its outputs are under one lock: streams that
 * share a model take turns. The Java binding returns copies as new arrays. So, unlike with onnxruntime, each step leaves garbage of the size of the states.
 */
internal class ExecuTorchArtifact(private val path: File, private val spec: Interface, threads: Int) : LoadedArtifact {
    private val module: Module

    init {
        claim(threads)
        module = try {
            Module.load(path.path, Module.LOAD_MODE_MMAP, threads)
        } catch (error: RuntimeException) {
            release()
            throw ClipstepException("$path: ExecuTorch cannot load it", got = error.reason(), cause = error)
        } catch (error: LinkageError) {
            release()
            throw error
        }
    }

    override fun open(): StepBuffers = ExecuTorchBuffers(path, module, spec)

    override fun close() {
        module.close()
        release()
    }

    private companion object {
        var open = 0
        var poolThreads = 0

        @Synchronized
        fun claim(threads: Int) {
            if (open > 0 && poolThreads != threads) {
                throw ClipstepException(
                    "ExecuTorch has one thread pool a process: got $threads threads, but a model that is open uses $poolThreads",
                    fix = "close it first, or ask for the same number",
                )
            }
            poolThreads = threads
            open++
        }

        @Synchronized
        fun release() {
            open--
        }
    }
}

private class ExecuTorchBuffers(private val path: File, private val module: Module, spec: Interface) : StepBuffers {
    override val frames: ByteBuffer = frameBuffer(spec.input)
    override val states: List<FloatBuffer> = spec.states.map { directFloats(it.elements) }
    override val logits: FloatBuffer = directFloats(spec.labels.size)
    override val kept: List<FloatBuffer> = spec.keptOutputs.map { directFloats(it.elements) }
    private val outputs = listOf(logits) + states + kept
    private val inputs: Array<EValue>

    init {
        val shape = longs(spec.input.shape)
        val frames = if (spec.input.dtype == "uint8") Tensor.fromBlobUnsigned(frames, shape) else Tensor.fromBlob(frames.asFloatBuffer(), shape)
        val tensors = listOf(frames) + states.zip(spec.states) { buffer, state -> Tensor.fromBlob(buffer, longs(state.shape)) }
        inputs = tensors.map(EValue::from).toTypedArray()
    }

    override fun run() {
        val results = try {
            synchronized(module) { module.forward(*inputs).map { it.toTensor().dataAsFloatArray } }
        } catch (error: RuntimeException) {
            throw EngineException("$path: ExecuTorch failed in a step", got = error.reason(), cause = error)
        }
        keep(results, outputs, path.path)
    }

    override fun close() = Unit
}
