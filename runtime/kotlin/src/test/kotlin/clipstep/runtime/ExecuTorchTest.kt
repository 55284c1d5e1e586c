package clipstep.runtime

import java.io.File
import java.nio.Buffer
import java.nio.ByteBuffer
import java.nio.FloatBuffer
import java.util.concurrent.Executors
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import org.junit.After
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.pytorch.executorch.Module
import org.pytorch.executorch.Program

/** The ExecuTorch engine on a stand-in whose outputs, like upstream's, lie in memory that the next call of any thread overwrites. */
class ExecuTorchTest {
    @get:Rule
    val folder = TemporaryFolder()

    @After
    fun end() {
        Module.loader = null
    }

    /** The same numbers as [MeanColour]'s. */
    private val meanColour = Program { (frames, memory) ->
        val (bytes, states) = frames as ByteBuffer to memory as FloatBuffer
        val means = FloatArray(3) { c -> (c until bytes.capacity() step 3).sumOf { bytes.get(it).toInt() and 0xff } / (255f * bytes.capacity() / 3) }
        arrayOf(FloatArray(3) { 4 * means[it] - states.get(it) }, FloatArray(3) { states.get(it) / 2 + means[it] })
    }

    private fun model(program: Program, threads: Int = 1): StepModel {
        Module.loader = java.util.function.Function { program }
        return StepModel(colourSpec(), ExecuTorch.load(File("step.pte"), colourSpec(), threads), "step.pte")
    }

    @Test
    fun `streams on two threads get their own logits, although the engine has one memory for the outputs of both`() {
        val pool = Executors.newFixedThreadPool(2)
        model(meanColour).use { model ->
            val steps = 2000
            fun logits(frame: Frame) = model.stream().use { stream -> List(steps) { (1..4).mapNotNull { stream.push(frame) }.single().logits.toList() } }
            val frames = listOf(plain(255, 0, 0), plain(0, 0, 255))
            val together = frames.map { pool.submit<List<List<Float>>> { logits(it) } }.map { it.get() }
            for ((frame, got) in frames.zip(together)) assertEquals("logits of the other stream", 0, logits(frame).zip(got).count { (alone, other) -> alone != other })
        }
        pool.shutdown()
    }

    @Test
    fun `single steps and streams share a model`() {
        model(meanColour).use { model ->
            val red = ByteArray(colourSpec().input.elements) { if (it % 3 == 0) -1 else 0 }
            val (logits, states) = model.step(red, model.initialStates())
            assertArrayEquals(floatArrayOf(3.75f, -0.25f, -0.25f), logits, 1e-6f)
            model.stream().use { stream -> repeat(4) { stream.push(plain(0, 0, 255)) } }
            assertArrayEquals(floatArrayOf(1.125f, 0.125f, 0.125f), states[0], 1e-6f)
        }
    }

    @Test
    fun `a bundle's golden steps are proven, states, kept outputs and all`() {
        val bundle = folder.copied(Prepared.kept)
        File(bundle, "step.onnx").copyTo(File(bundle, "step.pte"))
        edit(bundle) { values ->
            val artifact = values.getValue("artifacts").jsonArray[0].jsonObject
            val changed = artifact + mapOf("target" to JsonPrimitive("executorch"), "file" to JsonPrimitive("step.pte"))
            values["artifacts"] = JsonArray(listOf(JsonObject(changed)))
        }
        val opened = Bundle.open(bundle)
        Module.loader = java.util.function.Function { path -> onnx(File(path), opened.manifest.interfaceFor("uint8")) }
        StepModel.load(opened, ExecuTorch).use { model ->
            assertEquals("step.pte (lowered, for any) in executorch, 1 thread", model.description)
            assertTrue(checkGolden(model, GoldenSteps.of(opened)).relative <= 1e-4)
        }
    }

    /** What onnxruntime computes from an ONNX file. */
    private fun onnx(file: File, spec: Interface): Program {
        val buffers = OnnxRuntime().load(file, spec, 1).open()
        return Program { inputs ->
            buffers.frames.duplicate().put((inputs[0] as ByteBuffer).duplicate())
            for ((buffer, input) in buffers.states.zip(inputs.drop(1))) buffer.duplicate().put((input as FloatBuffer).duplicate())
            buffers.run()
            (listOf(buffers.logits) + buffers.states + buffers.kept).map { floats(it) }.toTypedArray()
        }
    }

    private fun floats(buffer: FloatBuffer) = FloatArray(buffer.capacity()).also { buffer.duplicate().get(it) }

    @Test
    fun `a step that fails or gives other outputs is explained`() {
        val shapes = Program { _: Array<Buffer> -> arrayOf(FloatArray(3), FloatArray(4)) }
        model(shapes).use { model ->
            val frames = ByteArray(colourSpec().input.elements)
            assertExplains("step.pte: a step gave other outputs than the manifest says; got [3, 4] numbers") { model.step(frames, model.initialStates()) }
        }
        model({ throw IllegalStateException("no kernel for it\nat a place") }).use { model ->
            assertExplains("step 0: step.pte: ExecuTorch failed in a step; got no kernel for it") { model.stream().use { repeat(4) { _ -> it.push(plain(1, 2, 3)) } } }
        }
        Module.loader = null
        assertExplains("step.pte: ExecuTorch cannot load it; got a stand-in") { ExecuTorch.load(File("step.pte"), colourSpec(), 1) }
    }

    @Test
    fun `models that are open at once have the same number of threads`() {
        val one = model(meanColour)
        model(meanColour).close()
        assertExplains("ExecuTorch has one thread pool a process: got 2 threads, but a model that is open uses 1", "close it first") { model(meanColour, 2) }
        one.close()
        model(meanColour, 2).close()
    }
}
