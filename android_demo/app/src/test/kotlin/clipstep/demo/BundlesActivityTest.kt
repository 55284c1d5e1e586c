package clipstep.demo

import android.app.Activity
import android.content.Intent
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.TextView
import java.io.File
import java.util.concurrent.CountDownLatch
import java.util.concurrent.Executors
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
import org.robolectric.shadows.ShadowAlertDialog

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class BundlesActivityTest {
    private val application = RuntimeEnvironment.getApplication() as TestApplication
    private val store = BundleStore(application).apply { unpack() }
    private val folder = File(application.filesDir, "bundles")
    private val kept get() = folder.list().orEmpty().sorted()
    private val unpacked = application.getSharedPreferences("clipstep.bundles", 0)

    private fun start(): Activity =
        Robolectric.buildActivity(BundlesActivity::class.java, Intent().putExtra(BundlesActivity.KEY_BUNDLE, "demo.clipstep")).setup().get()

    private fun Activity.rows(): List<View> = view<ViewGroup>(R.id.rows).run { (0 until childCount).map { getChildAt(it) } }

    private fun Activity.awaitRows(vararg names: String) = await("${names.toList()}, not ${rows().map { it.text(R.id.name) }}") { rows().map { it.text(R.id.name) } == names.toList() }

    private fun View.text(id: Int) = view<TextView>(id).text.toString()

    private fun add(name: String): File = File(folder, name).also { File(Prepared.folder, "small.clipstep").copyRecursively(it) }

    @Test
    @Config(qualifiers = "w411dp-h891dp-normal-long-port-notnight-xhdpi")
    fun `bundles are listed with what tells them apart, and one is chosen`() {
        val other = add("other.clipstep").apply { setLastModified(1_795_000_000_000) } // 18 November 2026.
        File(add("torn.clipstep"), "step.onnx").appendText("x")
        val activity = start()
        activity.awaitRows("demo (in use)", "other", "torn")
        val bytes = other.walkTopDown().filter { it.isFile }.sumOf { it.length() }
        assertEquals("2 classes, %.1f MB, kept November 18, 2026".format(bytes / 1e6), activity.rows()[1].text(R.id.facts))
        val facts = activity.rows()[2].text(R.id.facts)
        assertTrue(facts, facts.startsWith("It is damaged or made for something else, and cannot be used. "))
        activity.rows()[2].view<Button>(R.id.more).performClick()
        val reason = shadowOf(ShadowAlertDialog.getLatestAlertDialog()).message.toString()
        assertTrue(reason, "torn.clipstep: step.onnx was altered" in reason)
        assertFalse(activity.rows()[2].hasOnClickListeners())
        activity.drawTo("bundles")
        activity.rows()[1].performClick()
        assertTrue(activity.isFinishing)
        assertEquals("other.clipstep", shadowOf(activity).resultIntent.getStringExtra(BundlesActivity.KEY_BUNDLE))
    }

    @Test
    fun `a bundle is deleted after a question, but not the one in use, and stays deleted`() {
        add("other.clipstep")
        val activity = start()
        activity.awaitRows("demo (in use)", "other")
        assertEquals(View.GONE, activity.rows()[0].view<View>(R.id.delete).visibility)
        activity.rows()[1].view<View>(R.id.delete).performClick()
        assertEquals("Delete other from this phone?", shadowOf(ShadowAlertDialog.getLatestAlertDialog()).message)
        assertEquals(2, kept.size)
        ShadowAlertDialog.getLatestAlertDialog().getButton(android.app.AlertDialog.BUTTON_POSITIVE).performClick()
        activity.awaitRows("demo (in use)")
        assertEquals(listOf("demo.clipstep"), kept)
        store.delete(File(folder, "demo.clipstep"))
        store.unpack()
        assertEquals(emptyList<String>(), kept)
    }

    @Test
    fun `a rebuilt app replaces the bundle that it unpacked before, but not one that the user opened`() {
        val shipped = File(folder, "demo.clipstep/manifest.json").readText()
        val (hash, manifest) = requireNotNull(unpacked.getString("demo.clipstep", null)).split(" ")
        File(folder, "demo.clipstep").deleteRecursively()
        val others = File(add("demo.clipstep"), "manifest.json").readText()
        store.unpack()
        assertEquals("a bundle that this build did not unpack", others, File(folder, "demo.clipstep/manifest.json").readText())
        unpacked.edit().putString("demo.clipstep", "of-an-earlier-build $manifest").commit()
        store.unpack()
        assertEquals("a bundle that the user opened", others, File(folder, "demo.clipstep/manifest.json").readText())
        val digest = java.security.MessageDigest.getInstance("SHA-256").digest(others.toByteArray()).joinToString("") { "%02x".format(it) }
        unpacked.edit().putString("demo.clipstep", "of-an-earlier-build $digest").commit()
        store.unpack()
        assertEquals("an earlier build's bundle", shipped, File(folder, "demo.clipstep/manifest.json").readText())
        assertEquals("$hash $manifest", unpacked.getString("demo.clipstep", null))
    }

    @Test
    fun `a bundle that was to be replaced when the app was killed is back, or the new one is there`() {
        File(folder, "demo.clipstep").renameTo(File(folder, "demo.clipstep.old"))
        add("half.clipstep.part")
        store.unpack()
        assertEquals(listOf("demo.clipstep"), kept)
        add("demo.clipstep.old")
        store.unpack()
        assertEquals(listOf("demo.clipstep"), kept)
        assertTrue("\"demo\"" in File(folder, "demo.clipstep/manifest.json").readText())
    }

    @Test
    fun `a benchmark that starts leaves an import under way alone`() {
        val provider = Robolectric.setupContentProvider(FolderProvider::class.java, FolderProvider.AUTHORITY).apply { root = Prepared.folder }
        val (proving, go) = List(2) { CountDownLatch(1) }
        val pool = Executors.newFixedThreadPool(2)
        val import = pool.submit<File> { BundleStore(application).run { import(provider.tree("small.clipstep"), transfer {}) { proving.countDown(); go.await() } } }
        proving.await()
        val bench = pool.submit { BundleStore(application).unpack() }
        Thread.sleep(200)
        go.countDown()
        assertEquals("small.clipstep", import.get().name)
        bench.get()
        assertEquals(listOf("demo.clipstep", "small.clipstep"), kept)
        pool.shutdown()
        assertEquals(Looper.getMainLooper().thread, Thread.currentThread())
    }
}
