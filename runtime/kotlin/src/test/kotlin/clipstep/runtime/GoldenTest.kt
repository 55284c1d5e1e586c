package clipstep.runtime

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.math.abs
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class GoldenTest {
    @get:Rule
    val folder = TemporaryFolder()

    @Test
    fun `golden steps of a real bundle, and the same after a reset`() {
        val errors = StepModel.load(Prepared.bundle).use { checkGolden(it, GoldenSteps.of(Bundle.open(Prepared.bundle))) }
        println("golden steps: $errors")
        assertEquals(16, errors.steps)
        assertTrue("$errors", errors.relative <= 1e-4)
    }

    @Test
    fun `frames of float32 are converted`() {
        val bundle = Bundle.open(Prepared.small)
        assertEquals("float32", bundle.artifact("onnx").inputDtype)
        assertTrue(StepModel.load(bundle).use { checkGolden(it, GoldenSteps.of(bundle)) }.relative <= 1e-4)
    }

    @Test
    fun `sixteen steps and a reset are within a ten-thousandth of Python's, logits and states`() {
        val golden = GoldenSteps.of(Bundle.open(Prepared.bundle))
        val names = listOf("logits", "slow_buffer", "fast_buffer")
        var largest = 0f
        StepModel.load(Prepared.bundle).use { model ->
            var states = model.initialStates()
            for (step in 0..golden.steps) {
                if (step == golden.steps) states = model.initialStates()
                val result = model.step(golden.subclip(if (step == golden.steps) 0 else step), states)
                for ((name, value) in names.zip(listOf(result.logits) + result.states)) {
                    largest = maxOf(largest, difference(Prepared.python.getValue("steps.$name").floats(step), value))
                }
                states = result.states
            }
        }
        println("largest difference from Python over ${golden.steps} steps and a reset: $largest")
        assertTrue("$largest", largest <= 1e-4)
    }

    @Test
    fun `outputs that the export kept are returned by steps and streams, and compared`() {
        val bundle = Bundle.open(Prepared.kept)
        val golden = GoldenSteps.of(bundle)
        assertEquals(listOf("logits", "memory_out", "embedding", "map"), bundle.manifest.outputs)
        assertEquals(listOf(listOf(1, 8), listOf(1, 8, 8, 8)), bundle.manifest.keptOutputs.map { it.shape })
        StepModel.load(bundle).use { model ->
            assertTrue(checkGolden(model, golden).relative <= 1e-4)
            val result = model.step(golden.subclip(0), model.initialStates())
            val (_, embedding, map) = golden.besideLogits(0)!!
            assertTrue(difference(embedding, result.kept.getValue("embedding")) <= 1e-5)
            assertTrue(difference(map, result.kept.getValue("map")) <= 1e-5)
            model.stream().use { stream ->
                val frames = golden.subclip(0).toList().chunked(16 * 16 * 3).map { Frame(16, 16, it.toByteArray()) }
                val prediction = frames.mapNotNull { stream.push(it) }.single()
                assertEquals(setOf("embedding", "map"), prediction.kept.keys)
                assertTrue(difference(embedding, prediction.kept.getValue("embedding")) <= 1e-5)
            }
            val off = broken(model, 3) { it.kept.getValue("map")[5] += 1f }
            assertExplains("map is off at step 3") { checkGolden(off, golden) }
        }
        val other = rewritten(Prepared.kept) { it - "outputs.map" }
        assertExplains("no outputs.map") { GoldenSteps.of(other) }
    }

    @Test
    fun `states may be recorded for the last steps alone`() {
        val bundle = shortened(4)
        val golden = GoldenSteps.of(bundle)
        assertEquals(listOf(null, null, 2, 2), listOf(0, 11, 12, 15).map { golden.besideLogits(it)?.size })
        StepModel.load(bundle).use { checkGolden(it, golden) }
    }

    @Test
    fun `a wrong number and a number that is none are found`() {
        val bundle = Bundle.open(Prepared.bundle)
        val golden = GoldenSteps.of(bundle)
        StepModel.load(bundle).use { model ->
            assertExplains("slow_buffer is off at step 3", "at most") { checkGolden(broken(model, 3) { it.states[0][7] += 1f }, golden) }
            assertExplains("logits is not finite at step 5") { checkGolden(broken(model, 5) { it.logits[0] = Float.NaN }, golden) }
            assertExplains("after a reset") { checkGolden(broken(model, golden.steps) { it.states[1][0] += 1e-6f }, golden) }
        }
    }

    @Test
    fun `the bound is a share of each output's own range, as in Python`() {
        val golden = GoldenSteps.of(Bundle.open(Prepared.bundle))
        val python = Prepared.python.getValue("golden.scales").floats(0)
        assertEquals(python.size, golden.scales.size)
        for ((one, other) in python.zip(golden.scales)) assertEquals(one.toDouble(), other, 1e-6 * other)
        StepModel.load(Prepared.bundle).use { model ->
            checkGolden(broken(model, 5) { it.logits[0] += (0.8e-4 * golden.scales[0]).toFloat() }, golden)
            assertExplains("logits is off at step 5") { checkGolden(broken(model, 5) { it.logits[0] += (1.3e-4 * golden.scales[0]).toFloat() }, golden) }
            assertExplains("logits is off at step 0") { checkGolden(broken(model, 0) { for (i in it.logits.indices) it.logits[i] *= 1.5f }, golden) }
        }
    }

    @Test
    fun `an artifact that is wrong only where a video ends is found`() {
        val bundle = Bundle.open(Prepared.delayed)
        val golden = GoldenSteps.of(bundle)
        assertEquals(listOf(1L, 5L, 16L), golden.flushedAfter)
        StepModel.load(bundle).use { model ->
            checkGolden(model, golden)
            val ended = model.spec.states.indexOfFirst { it.name == "ended" }
            assertExplains("logits are off where a video of 1 step is flushed; got an error of", "expected at most") {
                checkGolden(broken(model, -1, ignored = ended), golden)
            }
            val flushes = model.spec.flush!!.steps // Those after the first step come first.
            assertExplains("logits of the flushed video are not finite at step 1") { checkGolden(broken(model, flushes) { it.logits[0] = Float.NaN }, golden) }
        }
        val without = rewritten(Prepared.delayed) { it - "flushed" - "flushed_after" } // As an earlier clipstep wrote it.
        assertEquals(emptyList<Long>(), GoldenSteps.of(without).flushedAfter)
        StepModel.load(without).use { checkGolden(it, GoldenSteps.of(without)) }
    }

    @Test
    fun `flushed videos that are none of these steps are refused`() {
        val after = { steps: Long -> StoredTensor("I64", listOf(1), ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putLong(0, steps)) }
        val logits = StoredTensor("F32", listOf(1, 2), ByteBuffer.allocate(8))
        fun refused(text: String, bundle: File = Prepared.delayed, change: (Map<String, StoredTensor>) -> Map<String, StoredTensor>) {
            assertExplains(text) { GoldenSteps.of(rewritten(bundle, change)) }
        }
        refused("got no flushed_after") { it - "flushed_after" }
        refused("got no flushed") { it - "flushed" }
        refused("flushed F32 (1, 2) and flushed_after I64 (3)") { it + ("flushed" to logits) }
        refused("flushes after 17 steps; expected after 1 to 16") { it + ("flushed" to logits) + ("flushed_after" to after(17)) }
        refused("flushes after 0 steps") { it + ("flushed" to logits) + ("flushed_after" to after(0)) }
        refused("flushed_after F32 (1, 2)") { it + ("flushed" to logits) + ("flushed_after" to logits) }
        refused("the manifest has no flush", Prepared.small) { it + ("flushed" to logits) + ("flushed_after" to after(1)) }
        refused("a value in flushed that is not finite") {
            it + ("flushed" to StoredTensor("F32", listOf(1, 2), ByteBuffer.allocate(8).order(ByteOrder.LITTLE_ENDIAN).putFloat(0, Float.NaN))) + ("flushed_after" to after(1))
        }
    }

    /** A bundle whose golden steps hold the states of the last [kept] steps only. */
    private fun shortened(kept: Int): Bundle =
        rewritten(Prepared.bundle) { it.mapValues { (name, tensor) -> if (name.startsWith("states.")) tensor.last(kept) else tensor } }

    /** A copy of [from] with other golden tensors, and hashes that fit. */
    private fun rewritten(from: File, change: (Map<String, StoredTensor>) -> Map<String, StoredTensor>): Bundle {
        File(folder.root, "copy.clipstep").deleteRecursively()
        val bundle = folder.copied(from)
        val file = File(bundle, "golden.safetensors")
        writeSafetensors(file, change(readSafetensors(file)))
        edit(bundle) { it["golden"] = kotlinx.serialization.json.Json.encodeToJsonElement(Golden.serializer(), Golden(file.name, treeSize(file), treeSha256(file))) }
        return Bundle.open(bundle)
    }

    /** The model with an error in the results of step [step], counted from 0 as they are called; it is never told of the state [ignored]. */
    private fun broken(model: StepModel, step: Int, ignored: Int = -1, change: (StepResult) -> Unit = {}): StepModel {
        var count = 0
        val engine = object : LoadedArtifact {
            override fun open() = object : StepBuffers {
                override val frames = frameBuffer(model.spec.input)
                override val states = model.spec.states.map { directFloats(it.elements) }
                override val logits = directFloats(model.labels.size)
                override val kept = model.spec.keptOutputs.map { directFloats(it.elements) }

                override fun run() {
                    val inputs = states.mapIndexed { index, state -> FloatArray(state.capacity()).also { if (index != ignored) state.duplicate().get(it) } }
                    val result = model.step(ByteArray(frames.capacity()).also { frames.duplicate().get(it) }, inputs)
                    if (count++ == step) change(result)
                    val values = listOf(result.logits) + result.states + result.kept.values
                    for ((value, buffer) in values.zip(listOf(logits) + states + kept)) buffer.duplicate().put(value)
                }

                override fun close() = Unit
            }

            override fun close() = Unit
        }
        return StepModel(model.spec, engine, "broken")
    }
}

internal fun difference(one: FloatArray, other: FloatArray): Float {
    assertEquals(one.size, other.size)
    return one.indices.maxOf { abs(one[it] - other[it]) }
}

private fun StoredTensor.last(count: Int): StoredTensor {
    val kept = data.duplicate().apply { position(capacity() / shape[0] * (shape[0] - count)) }
    return StoredTensor(dtype, listOf(count) + shape.drop(1), kept.slice())
}
