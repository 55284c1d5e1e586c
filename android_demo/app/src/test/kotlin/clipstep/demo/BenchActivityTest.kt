package clipstep.demo

import ai.onnxruntime.OrtEnvironment
import android.content.Intent
import android.os.Bundle
import android.os.Handler
import android.os.Looper
import android.os.Message
import android.os.Messenger
import android.widget.Button
import java.io.File
import java.nio.file.Files
import java.time.Instant
import kotlinx.serialization.KSerializer
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowProcess

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class BenchActivityTest {
    private val application = RuntimeEnvironment.getApplication() as TestApplication
    private val folder = recordsFolder(application)
    private val asked = Intent(application, BenchActivity::class.java).putExtra("out", "run").putExtra("rounds", 2).putExtra("steps", 3).putExtra("warmup", 1)

    private fun start(intent: Intent = asked) = Robolectric.buildActivity(BenchActivity::class.java, intent).setup()

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-night-xhdpi")
    fun `adb's extras give a record of every engine and thread count, with raw step times`() {
        val activity = start(asked.putExtra("threads", "1,2")).get()
        activity.awaitText(R.id.status, "Done. The numbers are in run.jsonl")
        assertEquals(listOf("run.jsonl"), folder.list().orEmpty().toList())
        val records = File(folder, "run.jsonl").readLines().map { Json.decodeFromString<Record>(it) }
        assertEquals(listOf(1, 2), records.map { it.configuration.threads })
        for (record in records) {
            assertEquals(2 * 3, record.stepMs.size)
            assertTrue("${record.coldStart}", record.coldStart.largestError <= 1e-4)
            assertEquals("demo.clipstep", record.bundle)
            assertEquals(16 / 29.97, record.subclipS, 1e-9)
            assertEquals(record.stepMs.sorted().let { (it[2] + it[3]) / 2 }, record.percentilesMs.getValue("p50"), 1e-9)
            assertEquals("1.29.0", record.toolVersions["onnxruntime"])
            assertEquals(listOf("cpu") to false, record.configuration.providers to record.configuration.spinning)
            assertEquals(0, Instant.parse(record.measuredUtc).nano) // In UTC, to the second.
        }
        activity.drawTo("benchmark")
    }

    @Test
    fun `records are shared as JSON, and nothing else is`() {
        val activity = start().get()
        assertFalse(activity.view<Button>(R.id.share).isEnabled)
        activity.awaitText(R.id.status, "Done.")
        activity.view<Button>(R.id.share).performClick()
        val shared = requireNotNull(shadowOf(activity).nextStartedActivity.getParcelableExtra(Intent.EXTRA_INTENT, Intent::class.java))
        val uri = requireNotNull(shared.getParcelableExtra(Intent.EXTRA_STREAM, android.net.Uri::class.java))
        val provider = Robolectric.setupContentProvider(RecordsProvider::class.java, RecordsProvider.AUTHORITY)
        val text = provider.openFile(uri, "r").use { java.io.FileInputStream(it.fileDescriptor).readBytes() }
        assertEquals(File(folder, "run.jsonl").readText(), String(text))
        File(folder, "run.error").writeText("")
        File(folder, "sub").mkdirs()
        File(folder, "sub/a.jsonl").writeText("")
        File(folder.parentFile, "a.jsonl").writeText("")
        Files.createSymbolicLink(File(folder, "link.jsonl").toPath(), File(folder.parentFile, "a.jsonl").toPath())
        for (path in listOf("/../bundles", "/../a.jsonl", "/..%2fa.jsonl", "/sub/a.jsonl", "/link.jsonl", "/run.error", "/", "/sub")) {
            val outside = uri.buildUpon().encodedPath(path).build()
            assertTrue(path, runCatching { provider.openFile(outside, "r") }.exceptionOrNull() is java.io.FileNotFoundException)
            assertTrue(path, runCatching { provider.query(outside, null, null, null, null) }.exceptionOrNull() is java.io.FileNotFoundException)
        }
        assertTrue(runCatching { provider.openFile(uri, "rw") }.exceptionOrNull() is java.io.FileNotFoundException)
    }

    @Test
    fun `the bundle that the app shows is measured, and the records name it`() {
        val small = File(application.filesDir, "bundles/a.clipstep").also { File(Prepared.folder, "small.clipstep").copyRecursively(it) }
        start().get().awaitText(R.id.status, "no bundle was chosen; expected one of a.clipstep, demo.clipstep; choose it in the app first")
        application.getSharedPreferences("demo", 0).edit().putString("bundle", "demo.clipstep").commit()
        fun measured(intent: Intent): Record {
            val activity = start(intent).get()
            activity.awaitText(R.id.status, "Done.")
            return Json.decodeFromString<Record>(File(folder, "run.jsonl").readLines().first()).also { activity.awaitText(R.id.bundle, "Model: ${it.bundle.removeSuffix(".clipstep")}") }
        }
        val demo = measured(asked.putExtra("threads", "1"))
        assertEquals("demo.clipstep" to clipstep.runtime.Bundle.open(Prepared.bundle).manifestSha256, demo.bundle to demo.manifestSha256)
        val other = measured(asked.putExtra("bundle", "a.clipstep"))
        assertEquals("a.clipstep" to clipstep.runtime.Bundle.open(small).manifestSha256, other.bundle to other.manifestSha256)
    }

    @Test
    fun `the precision that was chosen for this processor is measured, and the record names it`() {
        val bundle = File(application.filesDir, "bundles/a.clipstep").also { File(Prepared.folder, "small.clipstep").copyRecursively(it) }
        val here = if (System.getProperty("os.arch") == "aarch64") "arm64" else "x86_64"
        val choice = """
            {"target": "onnx", "platform": "$here", "precision": "int8", "unit": "ms", "measured_on": "$here", "tried": [{"precision": "int8",
            "variant": "gemm", "verdict": "chosen: the cheapest", "variants": [{"variant": "gemm", "cost": 9.5, "size_bytes": 2430000}]}]}"""
        val manifest = Json.parseToJsonElement(File(bundle, "manifest.json").readText()).jsonObject
        val artifact = manifest.getValue("artifacts").jsonArray.single().jsonObject
        val chosen = JsonObject(artifact + ("platform" to JsonPrimitive(here)) + ("precision" to JsonPrimitive("int8")))
        val intent = asked.putExtra("bundle", "a.clipstep").putExtra("engines", "onnxruntime").putExtra("threads", "1").putExtra("rounds", 1)
        for (artifacts in listOf(listOf(artifact, chosen), listOf(chosen))) { // The second time there is no float32 artifact.
            val changed = manifest + ("artifacts" to JsonArray(artifacts)) + ("choices" to Json.parseToJsonElement("[$choice]"))
            File(bundle, "manifest.json").writeText(JsonObject(changed).toString())
            start(Intent(intent)).get().awaitText(R.id.status, "Done.")
            assertEquals("int8", Json.decodeFromString<Record>(File(folder, "run.jsonl").readText()).configuration.precision)
        }
    }

    @Test
    fun `settings of onnxruntime are recorded, and a provider that is not there is refused by name`() {
        val quick = asked.putExtra("threads", "1").putExtra("rounds", 1)
        start(Intent(quick).putExtra("spinning", true)).get().awaitText(R.id.status, "Done.")
        val recorded = Json.decodeFromString<Record>(File(folder, "run.jsonl").readText()).configuration
        assertEquals(Triple("step.onnx, spinning threads", true, listOf("cpu")), Triple(recorded.name, recorded.spinning, recorded.providers))
        start(Intent(quick).putExtra("providers", "nnapi,cpu")).get().awaitText(R.id.status, "onnxruntime has no provider nnapi here; expected one of cpu; take the AAR")
        assertTrue("no provider nnapi" in File(folder, "run.error").readText())
    }

    @Test
    fun `a failure is a sentence on the screen and in a file`() {
        application.failure = "the process that measured ended by itself"
        val activity = start().get()
        activity.awaitText(R.id.status, "The test failed: the process that measured ended by itself")
        assertEquals("the process that measured ended by itself\n", File(folder, "run.error").readText())
        assertFalse(File(folder, "run.jsonl").exists())
    }

    @Test
    fun `what cannot be measured is explained at once`() {
        for ((extra, words) in listOf("bundle" to "no such bundle; got x; expected demo.clipstep", "engines" to "unknown engine; got x", "threads" to "threads must be numbers; got x", "providers" to "unknown provider; got x; expected one of cpu, xnnpack, nnapi")) {
            val activity = start(Intent(asked).putExtra(extra, "x")).get()
            activity.awaitText(R.id.status, words)
            assertTrue(words in File(folder, "run.error").readText())
        }
        start(Intent(asked).putExtra("threads", "999")).get().awaitText(R.id.status, "thread count not available; got 999")
    }

    @Test
    fun `leaving ends it, and a killed app's benchmark is told of at the next start`() {
        val controller = start()
        controller.pause().stop()
        assertTrue("stopped" in File(folder, "run.error").readText())
        File(folder, "run.running").writeText("")
        File(folder, "run.jsonl.part").writeText("{\"half")
        val again = start(Intent(application, BenchActivity::class.java)).get()
        again.awaitText(R.id.status, "The last test was stopped before its end: nothing of it was kept.")
        assertEquals(listOf("run.error"), folder.list().orEmpty().toList())
    }

    @Test
    fun `the service measures one task, answers, and ends its process`() {
        val service = Robolectric.buildService(BenchService::class.java).create().get()
        var answer: Bundle? = null
        val replies = Messenger(Handler(Looper.getMainLooper()) { answer = it.data; true })
        val copy = Files.createTempDirectory("b").toFile().also { Prepared.bundle.copyRecursively(it, true) }
        val manifestSha256 = clipstep.runtime.Bundle.open(copy).manifestSha256
        val replaced = runCatching { measure(Task(copy.path, "of another bundle", "onnxruntime", 1, 1, 2), 1) }.exceptionOrNull()
        assertTrue("$replaced", "was replaced by another bundle; start the benchmark again" in replaced?.message.orEmpty())
        val task = Task(copy.path, manifestSha256, "onnxruntime", 1, 1, 2)
        val message = Message.obtain().apply { data = Bundle().apply { putString(KEY_TASK, Json.encodeToString(task)) }; replyTo = replies }
        Messenger(service.onBind(Intent())).send(message)
        await("the answer") { answer != null }
        val measured = Json.decodeFromString<Measurement>(requireNotNull(answer?.getString(KEY_RESULT)) { answer?.getString(KEY_ERROR).orEmpty() })
        assertEquals(2, measured.stepMs.size)
        await("its end") { ShadowProcess.wasKilled(android.os.Process.myPid()) }
    }

    @Test
    fun `the memory that a model takes is seen in a process that measures nothing else`() {
        val task = Task(Prepared.bundle.path, clipstep.runtime.Bundle.open(Prepared.bundle).manifestSha256, "onnxruntime", 1, 1, 2)
        val java = File(System.getProperty("java.home"), "bin/java").path
        val used = listOf(Task::class, BenchActivityTest::class, clipstep.runtime.StepModel::class, Json::class, KSerializer::class, Unit::class, OrtEnvironment::class)
        val path = used.joinToString(File.pathSeparator) { home(it.java) }
        val process = ProcessBuilder(java, "-cp", path, "clipstep.demo.MeasuringProcessKt", Json.encodeToString(task)).redirectErrorStream(true).start()
        val said = process.inputStream.bufferedReader().readText()
        assertEquals(said, 0, process.waitFor())
        val measured = Json.decodeFromString<Measurement>(said)
        val weights = File(Prepared.bundle, "step.onnx").length()
        assertTrue(said, measured.peakMemoryBytes - measured.memoryBeforeLoadBytes in weights..100 * weights)
    }

    /** The folder or the JAR that a class is in. */
    private fun home(type: Class<*>): String {
        val name = type.name.replace('.', '/') + ".class"
        return type.classLoader!!.getResource(name)!!.toString().removeSuffix(name).removeSuffix("!/").removePrefix("jar:").removePrefix("file:")
    }

    @Test
    fun `percentiles lie between values as numpy's do`() {
        val values = listOf(4.0, 1.0, 3.0, 2.0)
        assertEquals(listOf(1.3, 2.5, 3.7), listOf(10, 50, 90).map { Math.round(percentile(values, it) * 1e6) / 1e6 })
    }
}
