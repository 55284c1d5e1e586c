package clipstep.runtime

import ai.onnxruntime.NodeInfo
import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtProvider
import ai.onnxruntime.OrtSession
import ai.onnxruntime.TensorInfo
import ai.onnxruntime.providers.NNAPIFlags
import java.io.File
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.util.EnumSet

/** An artifact in onnxruntime. */
internal class OnnxRuntimeArtifact(private val path: File, private val spec: Interface, threads: Int, engine: OnnxRuntime) : LoadedArtifact {
    private val environment = OrtEnvironment.getEnvironment()
    private val session = loading {
        sessionOptions(threads, engine).use { environment.createSession(path.path, it) }
    }

    init {
        try {
            checkDeclared()
            loading { session.metadata.customMetadata[METADATA] }?.let { checkEmbeddedMetadata(spec, it, path.path) }
        } catch (error: ClipstepException) {
            session.close()
            throw error
        }
    }

    override fun open(): StepBuffers = OnnxRuntimeBuffers(path, environment, session, spec)

    override fun close() = session.close()

    private fun checkDeclared() {
        val states = spec.states.map { Tensor(it.name, OnnxJavaType.FLOAT, it.shape) }
        val frames = Tensor(spec.input.name, if (spec.input.dtype == "uint8") OnnxJavaType.UINT8 else OnnxJavaType.FLOAT, spec.input.shape)
        check("takes other inputs", session.inputInfo, listOf(frames) + states)
        val logits = Tensor("logits", OnnxJavaType.FLOAT, listOf(1, spec.labels.size))
        val kept = spec.keptOutputs.map { Tensor(it.name, OnnxJavaType.FLOAT, it.shape) }
        check("gives other outputs", session.outputInfo, listOf(logits) + states.map { it.copy(name = "${it.name}_out") } + kept)
    }

    private fun check(what: String, declared: Map<String, NodeInfo>, expected: List<Tensor>) {
        val found = loading { declared.map { (name, node) -> (node.info as TensorInfo).run { Tensor(name, type, shape.map(Long::toInt)) } } }
        fun <T> compare(part: (Tensor) -> T) {
            val (got, wanted) = found.map(part) to expected.map(part)
            if (got != wanted) throw ClipstepException("$path: $what than the manifest says", got, wanted, "export it again")
        }
        compare { it.shape }
        compare { it.name }
        compare { it.type }
    }

    private data class Tensor(val name: String, val type: OnnxJavaType, val shape: List<Int>)

    private fun <T> loading(action: () -> T): T = try {
        action()
    } catch (error: ClipstepException) {
        throw error
    } catch (error: Exception) { // Mostly an OrtException.
        throw ClipstepException("$path: onnxruntime cannot load it", got = error.reason(), cause = error)
    }
}

internal fun sessionOptions(threads: Int, engine: OnnxRuntime): OrtSession.SessionOptions = OrtSession.SessionOptions().apply {
    setIntraOpNumThreads(if (Provider.XNNPACK in engine.providers) 1 else threads) // XNNPACK has threads of its own; two pools would be in each other's way.
    setInterOpNumThreads(1)
    addConfigEntry("session.intra_op.allow_spinning", if (engine.spinning) "1" else "0")
    if (Provider.CPU !in engine.providers) addConfigEntry("session.disable_cpu_ep_fallback", "1")
    setMemoryPatternOptimization(false) // A single block for all values of a step needs a quarter more memory.
    for (provider in engine.providers) add(provider, threads)
}

private val IN_ONNXRUNTIME = mapOf(Provider.CPU to OrtProvider.CPU, Provider.XNNPACK to OrtProvider.XNNPACK, Provider.NNAPI to OrtProvider.NNAPI)

private fun OrtSession.SessionOptions.add(provider: Provider, threads: Int) {
    val there = OrtEnvironment.getAvailableProviders()
    if (IN_ONNXRUNTIME.getValue(provider) !in there) {
        val known = Provider.values().filter { IN_ONNXRUNTIME[it] in there }
        val fix = if (provider == Provider.CPU) null else "take the AAR onnxruntime-android, or another provider"
        throw ClipstepException("onnxruntime has no provider $provider here", expected = "one of ${known.joinToString()}", fix = fix)
    }
    when (provider) {
        Provider.CPU -> Unit // It is always there, and last.
        Provider.XNNPACK -> addXnnpack(mapOf("intra_op_num_threads" to "$threads"))
        Provider.NNAPI -> addNnapi(EnumSet.of(NNAPIFlags.CPU_DISABLED))
    }
}

/** Buffers with two sets of states: a step reads one and writes the other, and then they change places. All are bound to tensors only once. */
private class OnnxRuntimeBuffers(private val path: File, environment: OrtEnvironment, private val session: OrtSession, spec: Interface) : StepBuffers {
    override val frames: ByteBuffer = frameBuffer(spec.input)
    override val logits: FloatBuffer = directFloats(spec.labels.size)
    override val kept: List<FloatBuffer> = spec.keptOutputs.map { directFloats(it.elements) }
    private val sets = List(2) { spec.states.map { directFloats(it.elements) } }
    private val tensors = mutableListOf<OnnxTensor>()
    private val inputs: List<Map<String, OnnxTensor>>
    private val outputs: List<Map<String, OnnxTensor>>
    private var turn = 0

    init {
        val shape = longs(spec.input.shape)
        val frames = if (spec.input.dtype == "uint8") OnnxTensor.createTensor(environment, frames, shape, OnnxJavaType.UINT8)
        else OnnxTensor.createTensor(environment, frames.asFloatBuffer(), shape)
        val logits = OnnxTensor.createTensor(environment, logits, longArrayOf(1, spec.labels.size.toLong()))
        val states = sets.map { set -> set.zip(spec.states) { buffer, state -> OnnxTensor.createTensor(environment, buffer, longs(state.shape)) } }
        val kept = kept.zip(spec.keptOutputs) { buffer, output -> OnnxTensor.createTensor(environment, buffer, longs(output.shape)) }
        tensors += listOf(frames, logits) + states.flatten() + kept
        inputs = states.map { session.inputNames.zip(listOf(frames) + it).toMap(LinkedHashMap()) }
        outputs = states.map { session.outputNames.zip(listOf(logits) + it + kept).toMap(LinkedHashMap()) }
    }

    override val states: List<FloatBuffer> get() = sets[turn]

    override fun run() {
        try {
            session.run(inputs[turn], outputs[1 - turn]).close()
        } catch (error: Exception) { // Mostly an OrtException.
            throw EngineException("$path: onnxruntime failed in a step", got = error.reason(), cause = error)
        }
        turn = 1 - turn
    }

    override fun close() = tensors.forEach { it.close() }
}
