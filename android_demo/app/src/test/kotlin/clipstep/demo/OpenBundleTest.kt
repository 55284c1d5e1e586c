package clipstep.demo

import android.Manifest
import android.app.Activity
import android.content.Intent
import android.content.res.Configuration
import android.net.Uri
import android.system.ErrnoException
import android.system.OsConstants
import android.view.View
import android.widget.Button
import android.widget.ProgressBar
import clipstep.runtime.StepModel
import clipstep.runtime.treeSha256
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import java.util.concurrent.CountDownLatch
import java.util.function.Function
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.pytorch.executorch.Module
import org.pytorch.executorch.Program
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class OpenBundleTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val application = RuntimeEnvironment.getApplication() as TestApplication
    private val provider = Robolectric.setupContentProvider(FolderProvider::class.java, FolderProvider.AUTHORITY)
    private val kept get() = File(application.filesDir, "bundles").list().orEmpty().sorted()

    private var controller: ActivityController<MainActivity>? = null

    @After
    fun end() {
        controller?.pause()?.stop()?.destroy()
        Module.loader = null
    }

    private fun pick(name: String, change: (File) -> Unit): Activity {
        provider.root = folder.root
        Prepared.bundle.copyRecursively(File(folder.root, name).also { it.mkdirs() }, overwrite = true)
        change(File(folder.root, name))
        shadowOf(application).grantPermissions(Manifest.permission.CAMERA)
        val activity = Robolectric.buildActivity(MainActivity::class.java).setup().also { controller = it }.get()
        activity.awaitText(R.id.what, "demo: step.onnx")
        open(activity, BundlesActivity.FOLDER, Intent.ACTION_OPEN_DOCUMENT_TREE, provider.tree(name))
        return activity
    }

    private fun open(activity: Activity, what: String, action: String, uri: Uri) {
        activity.view<Button>(R.id.bundles).performClick()
        val list = shadowOf(activity).nextStartedActivityForResult
        assertEquals("demo.clipstep", list.intent.getStringExtra(BundlesActivity.KEY_BUNDLE))
        shadowOf(activity).receiveResult(list.intent, Activity.RESULT_OK, Intent().putExtra(BundlesActivity.KEY_OPEN, what))
        val asked = shadowOf(activity).nextStartedActivityForResult
        assertEquals(action, asked.intent.action)
        shadowOf(activity).receiveResult(asked.intent, Activity.RESULT_OK, Intent().setData(uri))
    }

    private fun edit(bundle: File, change: (MutableMap<String, JsonElement>) -> Unit) {
        val file = File(bundle, "manifest.json")
        file.writeText(JsonObject(Json.parseToJsonElement(file.readText()).jsonObject.toMutableMap().also(change)).toString())
    }

    private fun assertRefused(activity: Activity, words: String) {
        await("$words, not ${activity.text(R.id.message)} ${activity.text(R.id.message_details)}") { words in activity.text(R.id.message) + activity.text(R.id.message_details) }
        assertEquals(listOf("demo.clipstep"), kept)
        activity.awaitText(R.id.what, "demo: step.onnx") // The one before goes on.
    }

    @Test
    fun `a whole bundle is kept, proven and used`() {
        val activity = pick("other.clipstep") { bundle ->
            bundle.deleteRecursively()
            File(Prepared.folder, "small.clipstep").copyRecursively(bundle)
        }
        activity.awaitText(R.id.what, "small: step.onnx")
        activity.awaitText(R.id.check, "right numbers")
        assertEquals(listOf("demo.clipstep", "other.clipstep"), kept)
    }

    private fun pickPack(name: String, change: (ByteArray) -> ByteArray): Activity {
        provider.root = folder.root
        File(folder.root, name).writeBytes(change(File(Prepared.bundle.parentFile, "small.clipstep.zip").readBytes()))
        shadowOf(application).grantPermissions(Manifest.permission.CAMERA)
        val activity = Robolectric.buildActivity(MainActivity::class.java).setup().also { controller = it }.get()
        activity.awaitText(R.id.what, "demo: step.onnx")
        open(activity, BundlesActivity.PACK, Intent.ACTION_OPEN_DOCUMENT, provider.document(name))
        return activity
    }

    @Test
    fun `a pack is unpacked, kept, proven and used`() {
        val activity = pickPack("one file.clipstep.zip") { it }
        activity.awaitText(R.id.what, "small: step.onnx")
        activity.awaitText(R.id.check, "right numbers: 16 golden steps")
        assertEquals(listOf("demo.clipstep", "one_file.clipstep"), kept)
    }

    @Test
    fun `a pack that is cut off is refused, and nothing of it is kept`() =
        assertRefused(pickPack("half.clipstep.zip") { it.copyOf(it.size / 2) }, "half.clipstep.zip: is not a bundle; got a file that is no zip file")

    @Test
    fun `an altered bundle is refused`() {
        val activity = pick("altered.clipstep") { File(it, "step.onnx").appendText("x") }
        assertRefused(activity, "altered.clipstep: step.onnx was altered")
        assertEquals("This model cannot be used. demo goes on.", activity.text(R.id.message)) // And why, behind Details.
        assertEquals(View.GONE, activity.view<View>(R.id.message_details).visibility)
        assertTrue(activity.text(R.id.message_details).startsWith("altered.clipstep:"))
        activity.drawTo("altered-bundle")
    }

    @Test
    fun `a bundle that is too new is refused`() =
        assertRefused(pick("new.clipstep") { bundle -> edit(bundle) { it["schema_version"] = JsonPrimitive("3.0") } }, "was written by a newer clipstep; got schema_version 3.0; expected 2.x")

    @Test
    fun `a provider that names files outside the folder is refused`() {
        provider.names = mapOf("step.onnx" to "../../demo.clipstep/step.onnx")
        assertRefused(pick("bad.clipstep") {}, "bad.clipstep: step.onnx is missing; copy the bundle again, whole")
    }

    @Test
    fun `of a folder only what the app needs is copied`() {
        val activity = pick("other.clipstep") { bundle ->
            File(bundle, "holiday.mp4").writeText("many bytes")
            File(bundle, "step.mlpackage").mkdirs()
            File(bundle, "step.mlpackage/weights").writeText("x")
        }
        await("the bundle") { "other.clipstep" in kept }
        activity.awaitText(R.id.check, "right numbers")
        assertEquals(setOf("manifest.json", "step.onnx", "golden.safetensors"), File(application.filesDir, "bundles/other.clipstep").list().orEmpty().toSet())
    }

    @Test
    fun `a bundle for which there is no room is not even opened`() {
        var opened = emptyList<String>()
        provider.onOpen = { opened = opened + it }
        val activity = pick("large.clipstep") { bundle ->
            edit(bundle) { it["golden"] = JsonObject(it.getValue("golden").jsonObject + ("size_bytes" to JsonPrimitive(1_000_000_000_000_000))) }
        }
        assertRefused(activity, "MB left for it: nothing was kept. Free some, and open it again.")
        assertTrue(activity.text(R.id.message), activity.text(R.id.message).startsWith("The model needs 100000000"))
        assertEquals(listOf("manifest.json"), opened)
        provider.sizes = mapOf("large.clipstep.zip" to 1_000_000_000_000_000)
        File(folder.root, "large.clipstep.zip").writeText("no zip file")
        open(activity, BundlesActivity.PACK, Intent.ACTION_OPEN_DOCUMENT, provider.document("large.clipstep.zip"))
        assertRefused(activity, "The model needs 2000000000.0 MB, and this phone has")
        assertEquals(listOf("manifest.json"), opened)
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a copy tells how far it is, and nothing is left of one that is cancelled`() {
        val (copying, go) = List(2) { CountDownLatch(1) }
        provider.onOpen = { if (it == "golden.safetensors") { copying.countDown(); go.await() } }
        val activity = pick("other.clipstep") {}
        await("the copy") { copying.count == 0L && activity.view<ProgressBar>(R.id.coming_progress).progress > 0 }
        val (model, golden) = listOf("step.onnx", "golden.safetensors").map { File(Prepared.bundle, it).length() }
        await("how far it is") { activity.view<ProgressBar>(R.id.coming_progress).progress == (model * 1000 / (model + golden)).toInt() }
        assertEquals("Copying the model…", activity.text(R.id.coming_text))
        activity.drawTo("copying")
        activity.view<Button>(R.id.cancel).performClick()
        assertEquals(View.GONE, activity.view<View>(R.id.coming).visibility)
        go.countDown()
        activity.awaitText(R.id.what, "demo: step.onnx")
        await("nothing is left") { kept == listOf("demo.clipstep") }
        assertEquals("", activity.text(R.id.message))
    }

    /** Starts the app with a pack from another app. */
    private fun view(name: String): Activity {
        provider.root = folder.root
        File(Prepared.bundle.parentFile, "small.clipstep.zip").copyTo(File(folder.root, name))
        val intent = Intent(Intent.ACTION_VIEW).setDataAndType(provider.document(name), "application/octet-stream")
        val activity = Robolectric.buildActivity(MainActivity::class.java, intent).setup().also { controller = it }.get()
        activity.awaitText(R.id.coming_text, "Another app gives this one $name (")
        return activity
    }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `a pack that another app gives is opened after a question, which outlasts a turn of the screen`() {
        view("other.clipstep.zip").drawTo("offered")
        assertEquals(listOf("demo.clipstep"), kept)
        RuntimeEnvironment.setQualifiers("+land")
        requireNotNull(controller).configurationChange(Configuration(application.resources.configuration))
        val activity = requireNotNull(controller).get()
        activity.awaitText(R.id.coming_text, "Another app gives this one other.clipstep.zip (")
        activity.view<Button>(R.id.open_offered).performClick()
        activity.awaitText(R.id.what, "small: step.onnx")
        assertEquals(listOf("demo.clipstep", "other.clipstep"), kept)
        assertEquals(View.GONE, activity.view<View>(R.id.coming).visibility)
    }

    @Test
    fun `a pack that another app gives is left alone if the user says so, and files are not taken`() {
        val activity = view("other.clipstep.zip")
        activity.view<Button>(R.id.cancel).performClick()
        requireNotNull(controller).newIntent(Intent(Intent.ACTION_VIEW).setData(Uri.fromFile(File(folder.root, "other.clipstep.zip"))))
        shadowOf(android.os.Looper.getMainLooper()).idle()
        assertEquals(View.GONE, activity.view<View>(R.id.coming).visibility)
        activity.awaitText(R.id.what, "demo: step.onnx")
        assertEquals(listOf("demo.clipstep"), kept)
        requireNotNull(controller).newIntent(Intent(Intent.ACTION_VIEW).setData(provider.document("gone.clipstep.zip")))
        activity.awaitText(R.id.message, "The file or folder could not be read: it is not there any more. Choose another one.")
    }

    @Test
    fun `mail, chat and file managers may give packs`() {
        fun takes(uri: String, type: String) = application.packageManager
            .queryIntentActivities(Intent(Intent.ACTION_VIEW).addCategory(Intent.CATEGORY_DEFAULT).setDataAndType(Uri.parse(uri), type), 0).isNotEmpty()
        val types = listOf("application/zip", "application/octet-stream", "application/x-clipstep", "image/png")
        assertEquals(listOf(true, true, false, false), types.map { takes("content://mail/attachments/17", it) })
        assertEquals(listOf(true, true, true, true), types.map { takes("content://files/Download/home.clipstep.zip", it) })
    }

    @Test
    fun `a folder that is no bundle is refused`() =
        assertRefused(pick("holiday") { bundle -> File(bundle, "manifest.json").delete() }, "is not a bundle; got no manifest.json")

    @Test
    fun `a bundle that no engine of this app runs is refused`() {
        val activity = pick("coreml.clipstep") { bundle ->
            edit(bundle) { values ->
                val artifact = values.getValue("artifacts").jsonArray[0].jsonObject
                values["artifacts"] = JsonArray(listOf(JsonObject(artifact + ("target" to JsonPrimitive("coreml")))))
            }
        }
        assertRefused(activity, "coreml.clipstep: nothing in it runs here; got coreml for any; expected an artifact for onnx or executorch; export it again with such a target")
    }

    @Test
    fun `a bundle for another input size than its artifact's is refused when it is loaded`() {
        val activity = pick("size.clipstep") { bundle ->
            edit(bundle) { values ->
                val input = values.getValue("input").jsonObject
                values["input"] = JsonObject(input + ("shape" to JsonArray(listOf(16, 64, 64, 3).map(::JsonPrimitive))))
            }
        }
        assertRefused(activity, "takes other inputs than the manifest says; got [[16, 112, 112, 3]")
    }

    @Test
    fun `a bundle that computes other numbers does not take the place of the one of its name`() {
        val activity = pick("demo.clipstep") { bundle ->
            val file = File(bundle, "golden.safetensors")
            val bytes = file.readBytes()
            for (at in logitsIn(bytes)) bytes[at] = (bytes[at].toInt() xor 0x80).toByte()
            file.writeBytes(bytes)
            edit(bundle) { it["golden"] = JsonObject(it.getValue("golden").jsonObject + ("sha256" to JsonPrimitive(treeSha256(file)))) }
        }
        assertRefused(activity, "logits is off at step 0")
        assertEquals(File(Prepared.bundle, "manifest.json").readText(), File(application.filesDir, "bundles/demo.clipstep/manifest.json").readText())
        requireNotNull(controller).pause().stop().destroy()
        controller = Robolectric.buildActivity(MainActivity::class.java).setup().also { it.get().awaitText(R.id.what, "demo: step.onnx") } // And so at the next start.
    }

    /** Where a safetensors file has the byte with the sign of each of its logits. */
    private fun logitsIn(bytes: ByteArray): IntProgression {
        val length = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).getLong().toInt()
        val header = Json.parseToJsonElement(String(bytes, 8, length)).jsonObject
        val (from, to) = header.getValue("logits").jsonObject.getValue("data_offsets").jsonArray.map { it.jsonPrimitive.int + 8 + length }
        return from + 3 until to step 4
    }

    @Test
    fun `ExecuTorch changes its threads, and a bundle that it refuses leaves the one before`() {
        Module.loader = Function { stepsOfDemo() }
        val activity = pick("both.clipstep") { bundle ->
            File(bundle, "step.onnx").copyTo(File(bundle, "step.pte"))
            edit(bundle) { values ->
                val artifact = values.getValue("artifacts").jsonArray[0].jsonObject
                val other = JsonObject(artifact + mapOf("target" to JsonPrimitive("executorch"), "file" to JsonPrimitive("step.pte")))
                values["artifacts"] = JsonArray(listOf(artifact, other))
            }
        }
        await("the bundle with both") { "both.clipstep" in kept }
        choose("executorch", 1)
        activity.awaitText(R.id.what, "in executorch, 1 thread")
        activity.awaitText(R.id.check, "right numbers: 16 golden steps")
        choose("executorch", 2)
        activity.awaitText(R.id.what, "in executorch, 2 threads")
        activity.awaitText(R.id.speed, "times real time")
        choose("onnxruntime", 2)
        activity.awaitText(R.id.what, "in onnxruntime, 2 threads")
        Module.loader = null
        choose("executorch", 1)
        activity.awaitText(R.id.message_details, "step.pte: ExecuTorch cannot load it")
        activity.awaitText(R.id.message, "This model does not run with executorch and 1 thread. It goes on as before.")
        activity.awaitText(R.id.what, "in onnxruntime, 2 threads")
        activity.awaitText(R.id.check, "right numbers")
        assertEquals("what the settings say", "onnxruntime" to 2, PreferenceStore(application).value.run { engine to threads })
    }

    /** What the user does on the settings screen. */
    private fun choose(engine: String, threads: Int) {
        requireNotNull(controller).pause().stop()
        PreferenceStore(application).run { value = value.copy(engine = engine, threads = threads) }
        requireNotNull(controller).restart().start().resume()
    }

    /** A program of ExecuTorch that computes in onnxruntime. */
    private fun stepsOfDemo(): Program {
        val model = StepModel.load(Prepared.bundle)
        return Program { inputs ->
            val frames = (inputs[0] as ByteBuffer).duplicate().run { clear(); ByteArray(capacity()).also { get(it) } }
            val result = model.step(frames, inputs.drop(1).map { input -> (input as FloatBuffer).duplicate().run { clear(); FloatArray(capacity()).also { get(it) } } })
            (listOf(result.logits) + result.states).toTypedArray()
        }
    }

    @Test
    fun `a full disk is told from other errors, and what a killed app left is cleared away`() {
        assertTrue(BundleStore.isNoSpace(IOException("write failed", ErrnoException("write", OsConstants.ENOSPC))))
        assertTrue(BundleStore.isNoSpace(IOException("write failed: ENOSPC (No space left on device)")))
        assertFalse(BundleStore.isNoSpace(IOException("read failed")))
        val part = File(application.filesDir, "bundles/half.clipstep.part").apply { mkdirs() }
        File(part, "step.onnx").writeText("half")
        BundleStore(application).unpack()
        assertEquals(listOf("demo.clipstep"), kept)
    }
}
