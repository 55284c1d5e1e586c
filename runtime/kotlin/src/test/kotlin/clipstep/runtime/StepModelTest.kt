package clipstep.runtime

import java.io.File
import java.lang.management.ManagementFactory
import java.util.concurrent.Executors
import java.util.concurrent.Future
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

class StepModelTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val golden = GoldenSteps.of(Bundle.open(Prepared.bundle))

    @Test
    fun `it says what runs`() {
        StepModel.load(Prepared.bundle, threads = 2).use { assertEquals("step.onnx (lowered, for any) in onnxruntime, 2 threads", it.description) }
    }

    @Test
    fun `a step is pure`() {
        StepModel.load(Prepared.bundle).use { model ->
            val (frames, states) = golden.subclip(0) to model.initialStates()
            val first = model.step(frames, states)
            model.step(golden.subclip(1), first.states)
            assertArrayEquals(golden.subclip(0), frames)
            assertTrue(states.all { state -> state.all { it == 0f } })
            assertArrayEquals(first.logits, model.step(frames, states).logits, 0f)
        }
    }

    @Test
    fun `wrong sizes and use after close are explained`() {
        val model = StepModel.load(Prepared.bundle)
        val stream = model.stream()
        assertExplains("frames has the wrong size; got 5 numbers; expected (16, 112, 112, 3)") { model.step(ByteArray(5), model.initialStates()) }
        assertExplains("wrong number of states; got 1; expected 2") { model.step(golden.subclip(0), model.initialStates().take(1)) }
        assertExplains("fast_buffer has the wrong size") { model.step(golden.subclip(0), listOf(model.initialStates()[0], FloatArray(3))) }
        model.close()
        model.close()
        assertExplains("the model is closed; load it again") { model.step(golden.subclip(0), model.initialStates()) }
        assertExplains("the model is closed") { model.stream() }
        assertExplains("the model is closed") { repeat(16) { stream.push(plain(1, 2, 3)) } }
        stream.close()
    }

    @Test
    fun `an engine or thread count that is not there is an error that lists what is`() {
        assertExplains("unknown engine; got tensorrt; expected one of onnxruntime, executorch") { Engine.named("tensorrt") }
        assertExplains("thread count not available; got 999; expected 1 to") { StepModel.load(Prepared.bundle, threads = 999) }
        assertExplains("has no float32 executorch artifact", "got onnx for any") { StepModel.load(Prepared.bundle, ExecuTorch) }
        assertExplains("executorch is not in this app; add the dependency org.pytorch:executorch-android") {
            ExecuTorch.load(Prepared.bundle, colourSpec(), 1)
        }
    }

    @Test
    fun `threads do not spin between steps unless asked to`() {
        val setting = { spinning: Boolean -> sessionOptions(2, OnnxRuntime(spinning = spinning)).use { it.configEntries["session.intra_op.allow_spinning"] } }
        assertEquals(listOf("0", "1"), listOf(setting(false), setting(true)))
        StepModel.load(Prepared.bundle, OnnxRuntime(spinning = true)).use { model ->
            assertEquals("step.onnx (lowered, for any) in onnxruntime, 1 thread, spinning", model.description)
            val plain = StepModel.load(Prepared.bundle).use { it.step(golden.subclip(0), it.initialStates()).logits }
            assertArrayEquals(plain, model.step(golden.subclip(0), model.initialStates()).logits, 0f)
        }
    }

    @Test
    fun `a provider that this build of onnxruntime lacks is refused by name, and nothing takes its place`() {
        for (provider in listOf(Provider.XNNPACK, Provider.NNAPI)) {
            assertExplains("onnxruntime has no provider $provider here; expected one of cpu; take the AAR onnxruntime-android") {
                StepModel.load(Prepared.bundle, OnnxRuntime(listOf(provider, Provider.CPU)))
            }
        }
        val fallback = { engine: OnnxRuntime -> sessionOptions(2, engine).use { it.configEntries["session.disable_cpu_ep_fallback"] } }
        assertEquals(null, fallback(OnnxRuntime()))
        val twice = listOf(Provider.CPU, Provider.CPU)
        assertExplains("these providers cannot be used; got [cpu, cpu]; expected at least one, each once, and cpu last") { OnnxRuntime(twice) }
        assertExplains("these providers cannot be used; got []") { OnnxRuntime(emptyList()) }
        assertEquals("onnxruntime on xnnpack and cpu, spinning", "${OnnxRuntime(listOf(Provider.XNNPACK, Provider.CPU), spinning = true)}")
    }

    @Test
    fun `a step that fails names the step of the stream`() {
        val engine = MeanColour(colourSpec())
        val stream = StepModel(colourSpec(), engine, "colour").stream()
        repeat(8) { stream.push(plain(1, 2, 3)) }
        engine.fail = true
        assertExplains("step 2: the engine failed") { repeat(4) { stream.push(plain(1, 2, 3)) } }
    }

    @Test
    fun `an artifact that is no network, or another one than the manifest says, is refused`() {
        val text = folder.newFile("step.onnx").apply { writeText("no network") }
        assertExplains("step.onnx: onnxruntime cannot load it; got") { OnnxRuntime().load(text, colourSpec(), 1) }
        val bundle = folder.copied()
        edit(bundle) { values ->
            val input = values.getValue("input").jsonObject
            values["input"] = JsonObject(input + ("shape" to JsonArray(listOf(8, 112, 112, 3).map(::JsonPrimitive))))
        }
        assertExplains("takes other inputs than the manifest says; got [[16, 112", "expected [[8, 112") { StepModel.load(bundle) }
    }

    @Test
    fun `a manifest that says something else than the artifact is refused at load`() {
        fun refused(text: String, from: File = Prepared.bundle, change: (MutableMap<String, JsonElement>) -> Unit) {
            File(folder.root, "copy.clipstep").deleteRecursively()
            val bundle = folder.copied(from).also { edit(it, change) }
            assertExplains("step.onnx: the manifest's $text", "get the bundle again, or export it again") { StepModel.load(bundle) }
        }
        fun input(key: String, value: JsonElement) = { values: MutableMap<String, JsonElement> ->
            values["input"] = JsonObject(values.getValue("input").jsonObject + (key to value))
        }
        fun array(vararg values: Number) = JsonArray(values.map(::JsonPrimitive))
        refused("""labels is not the artifact's own; got ["NoFight","Fight"]; expected ["Fight","NoFight"]""") { values ->
            values["labels"] = JsonArray(values.getValue("labels").jsonArray.reversed())
        }
        refused("input.fps is not the artifact's own; got 15.0; expected 29.97", change = input("fps", JsonPrimitive(15)))
        refused("input.frame_stride is not the artifact's own; got 2; expected 1", change = input("frame_stride", JsonPrimitive(2)))
        refused("input.mean is not the artifact's own; got [0.0,0.0,0.0]; expected [108.3,103.4,106.2]", change = input("mean", array(0, 0, 0)))
        refused("input.std is not", change = input("std", array(1, 1, 1)))
        refused("states.slow_buffer.initial is not the artifact's own; got 0.5; expected 0.0") { values ->
            val (first, second) = values.getValue("states").jsonArray
            values["states"] = JsonArray(listOf(JsonObject(first.jsonObject + ("initial" to JsonPrimitive(0.5))), second))
        }
        refused("output_kind is not the artifact's own; got multilabel_logits; expected logits") { it["output_kind"] = JsonPrimitive("multilabel_logits") }
        refused("delay_frames is not the artifact's own; got 3; expected 0") { it["delay_frames"] = JsonPrimitive(3) }
        refused("flush is not the artifact's own; got nothing; expected {\"state\":\"ended\"", Prepared.delayed) { it["flush"] = JsonNull }
        refused("temporal_average is not the artifact's own; got nothing; expected cumulative", Prepared.delayed) { it["temporal_average"] = JsonNull }
    }

    @Test
    fun `metadata in an artifact is compared key by key`() {
        val spec = colourSpec()
        val whole = Json { encodeDefaults = true }
        fun metadata(spec: Interface) = whole.encodeToString(Interface.serializer(), spec)
        checkEmbeddedMetadata(spec, metadata(spec), "x.onnx")
        val without = JsonObject(Json.encodeToJsonElement(Interface.serializer(), spec).jsonObject + ("schema_version" to JsonPrimitive("2.0")))
        checkEmbeddedMetadata(spec, without.toString(), "x.onnx") // What is not there has its default.
        val many = spec.copy(labels = List(10) { "label $it" })
        val swapped = many.copy(labels = many.labels.toMutableList().apply { this[8] = "label 9"; this[9] = "label 8" })
        assertExplains("x.onnx: the manifest's labels[8] is not the artifact's own; got label 9; expected label 8") { checkEmbeddedMetadata(swapped, metadata(many), "x.onnx") }
        assertExplains("labels is not the artifact's own") { checkEmbeddedMetadata(many.copy(labels = many.labels.take(9)), metadata(many), "x.onnx") }
        for (text in listOf("no metadata", """{"schema_version":"2.0"}""", """{"schema_version":"2.0","name":1}""", "{\"name\":1,\"name\":2}")) {
            assertExplains("x.onnx: the clipstep metadata in it is malformed", "export it again") { checkEmbeddedMetadata(spec, text, "x.onnx") }
        }
    }

    @Test
    fun `streams on several threads share a model, each with its own states`() {
        val pool = Executors.newFixedThreadPool(4)
        StepModel.load(Prepared.bundle).use { model ->
            val results: List<Future<List<List<Float>>>> = (0 until 4).map { first -> pool.submit<List<List<Float>>> { steps(model, first) } }
            val alone = (0 until 4).map { steps(model, it) }
            assertEquals(alone, results.map { it.get() })
        }
        pool.shutdown()
    }

    /** Three steps of a stream that begins with the golden subclip [first]. */
    private fun steps(model: StepModel, first: Int): List<List<Float>> = model.stream().use { stream ->
        (first until first + 3).flatMap { step ->
            val subclip = golden.subclip(step)
            (0 until 16).mapNotNull { stream.push(Frame(112, 112, subclip.copyOfRange(it * 112 * 112 * 3, (it + 1) * 112 * 112 * 3))) }
        }.map { it.logits.toList() }
    }

    @Test
    fun `closing waits for the steps under way`() {
        val model = StepModel.load(Prepared.bundle)
        val pool = Executors.newFixedThreadPool(2)
        val running = (0 until 2).map { pool.submit<Int> { generateSequence { runCatching { model.step(golden.subclip(0), model.initialStates()) }.getOrNull() }.count() } }
        Thread.sleep(300)
        model.close()
        assertTrue(running.all { it.get() >= 0 })
        pool.shutdown()
    }

    @Test
    fun `a step leaves at most a kilobyte of garbage, from the camera's frame to the prediction`() {
        val (height, width) = Prepared.shape("0.ffmpeg")
        val images = List(16) { planar(height, width, it) }
        StepModel.load(Prepared.bundle).use { model ->
            model.stream(smoothing = 0.5f).use { stream ->
                val converter = YuvConverter()
                var time = 0L
                val perStep = generateSequence { // Code that is not compiled yet leaves more.
                    garbage(10) {
                        for (image in images) {
                            stream.push(converter.convert(image, 90), time)
                            time += 33_366_700
                        }
                    }
                }
                val bytes = perStep.take(60).firstOrNull { it <= 1024 }
                println("garbage: $bytes bytes a step")
                assertTrue("always more than a kilobyte a step", bytes != null)
            }
        }
    }

    private fun garbage(times: Int, action: () -> Unit): Long {
        val threads = ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean
        val thread = Thread.currentThread().id
        val before = threads.getThreadAllocatedBytes(thread)
        repeat(times) { action() }
        return (threads.getThreadAllocatedBytes(thread) - before) / times
    }
}
