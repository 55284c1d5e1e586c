package clipstep.android

import android.content.Context
import android.content.ContextWrapper
import android.content.res.AssetManager
import android.system.ErrnoException
import android.system.OsConstants
import clipstep.runtime.Bundle
import clipstep.runtime.ClipstepException
import clipstep.runtime.MANIFEST
import clipstep.runtime.treeSha256
import java.io.File
import java.io.IOException
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config
import org.robolectric.util.ReflectionHelpers
import org.robolectric.util.ReflectionHelpers.ClassParameter

private const val NAME = "demo.clipstep"

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
class BundleFolderTest {
    @get:Rule
    val temporary = TemporaryFolder()
    private val application: Context = RuntimeEnvironment.getApplication()
    private val folder = File(application.filesDir, "clipstep")
    private val files get() = folder.list().orEmpty().sorted()
    private val notes = application.getSharedPreferences("clipstep.clipstep", Context.MODE_PRIVATE)

    /** A build of the app with these assets. */
    private fun build(vararg bundles: Pair<String, File>): BundleFolder {
        val apk = temporary.newFile()
        ZipOutputStream(apk.outputStream()).use { zip ->
            for ((name, bundle) in bundles) for (file in bundle.walk().filter { it.isFile }) {
                zip.putNextEntry(ZipEntry(if (bundle.isFile) "assets/$name" else "assets/$name/${file.relativeTo(bundle).path}"))
                file.inputStream().use { it.copyTo(zip) }
            }
        }
        val assets = ReflectionHelpers.callConstructor(AssetManager::class.java)
        assertTrue(ReflectionHelpers.callInstanceMethod<Int>(assets, "addAssetPath", ClassParameter.from(String::class.java, apk.path)) > 0)
        return BundleFolder(object : ContextWrapper(application) {
            override fun getAssets(): AssetManager = assets
        })
    }

    private fun assertHolds(bundle: File) = assertEquals(treeSha256(bundle), treeSha256(File(folder, NAME)))

    private fun damaged(): File = temporary.newFolder().also { Prepared.kept.copyRecursively(it) }.also { File(it, "step.onnx").appendText("x") }

    @Test
    fun `folders and packs are unpacked, once`() {
        val bundles = build(NAME to Prepared.kept, "small.clipstep.zip" to Prepared.pack)
        val proven = mutableListOf<String>()
        repeat(2) { bundles.unpackAll { proven += Bundle.open(it).manifest.name } }
        assertEquals(listOf(NAME, "small.clipstep"), files)
        assertHolds(Prepared.kept)
        assertEquals(treeSha256(File(Prepared.small, "step.onnx")), treeSha256(File(bundles.find("small"), "step.onnx")))
        assertEquals(2, proven.size)
    }

    @Test
    fun `a bundle is in its place only once it is proven`() {
        val bundles = build(NAME to Prepared.kept)
        val error = IllegalStateException("it computes other numbers")
        val seen = mutableListOf<List<String>>()
        assertEquals(error, assertThrows(IllegalStateException::class.java) { bundles.unpack(NAME) { seen += files; throw error } })
        assertEquals(listOf(listOf("$NAME.part")), seen)
        assertEquals(emptyList<String>(), files)
        assertEquals(File(folder, NAME), bundles.unpack(NAME))
        assertHolds(Prepared.kept)
    }

    @Test
    fun `a damaged asset leaves nothing, or the bundle before`() {
        assertTrue("step.onnx was altered" in assertThrows(ClipstepException::class.java) { build(NAME to damaged()).unpack(NAME) }.message.orEmpty())
        assertEquals(emptyList<String>(), files)
        build(NAME to Prepared.delayed).unpack(NAME)
        val other = damaged().also { File(it, MANIFEST).appendText("\n") }
        assertThrows(ClipstepException::class.java) { build(NAME to other).unpack(NAME) }
        assertHolds(Prepared.delayed)
        assertEquals(listOf(NAME), files)
    }

    @Test
    fun `a rebuilt app replaces the bundle that it shipped`() {
        build(NAME to Prepared.delayed).unpackAll()
        assertHolds(Prepared.delayed)
        build(NAME to Prepared.kept).unpackAll()
        assertHolds(Prepared.kept)
        build("$NAME.zip" to Prepared.pack).unpack(NAME)
        assertEquals(treeSha256(File(Prepared.small, "step.onnx")), treeSha256(File(folder, "$NAME/step.onnx")))
        assertEquals(listOf(NAME), files)
    }

    @Test
    fun `a bundle that the user opened is kept when the app is rebuilt`() {
        val first = build(NAME to Prepared.delayed).apply { unpackAll() }
        first.keep(NAME, {}) { part -> Prepared.kept.copyRecursively(part) }
        val rebuilt = build(NAME to Prepared.small)
        rebuilt.unpackAll()
        assertHolds(Prepared.kept)
        rebuilt.unpack(NAME)
        assertHolds(Prepared.kept)
    }

    @Test
    fun `a bundle that was deleted comes back only if it is asked for`() {
        val bundles = build(NAME to Prepared.kept).apply { unpackAll() }
        folder.resolve("$NAME.part").apply { mkdir() }.resolve("left").writeText("by an app that was killed")
        bundles.delete(bundles.find(NAME))
        bundles.unpackAll()
        assertEquals(emptyList<String>(), files)
        bundles.unpack(NAME)
        assertHolds(Prepared.kept)
    }

    @Test
    fun `what a killed app left half done is put right`() {
        val bundles = build(NAME to Prepared.kept).apply { unpackAll() }
        File(folder, NAME).renameTo(File(folder, "$NAME.old")) // Killed before the new one took its place.
        File(folder, "$NAME.part").mkdir()
        File(folder, "other.clipstep.zip.part").writeText("half")
        bundles.unpackAll()
        assertHolds(Prepared.kept)
        Prepared.delayed.copyRecursively(File(folder, "$NAME.old")) // Killed before the old one was deleted.
        bundles.unpackAll()
        assertHolds(Prepared.kept)
        assertEquals(listOf(NAME), files)
    }

    @Test
    fun `an app that was killed before it noted what it unpacked knows it as its own`() {
        val before = build(NAME to Prepared.delayed).run { unpackAll(); requireNotNull(notes.getString(NAME, null)) }
        val killed = assertThrows(Error::class.java) {
            build(NAME to Prepared.kept).unpackAll { part -> File(part, "step.onnx").setLastModified(0); throw Error("killed") }
        }
        assertEquals("killed", killed.message)
        assertHolds(Prepared.delayed)
        build(NAME to Prepared.kept).unpackAll()
        notes.edit().putString(NAME, before).putString("$NAME begun", treeSha256(File(Prepared.kept, MANIFEST))).commit() // In place, but not noted.
        build(NAME to Prepared.small).unpackAll()
        assertHolds(Prepared.small)
    }

    @Test
    fun `a pack of the user's is copied and unpacked with its progress, which can end it`() {
        val bundles = build()
        val steps = mutableListOf<Pair<Long, Long>>()
        val size = Prepared.pack.length()
        val kept = bundles.keepPack("mine.clipstep", size, { done, total -> steps += done to total }, {}) { Prepared.pack.inputStream() }
        assertEquals("mine.clipstep", kept.name)
        assertTrue("$steps", size to size in steps)
        val cancelled = IllegalStateException("cancelled")
        val thrown = assertThrows(IllegalStateException::class.java) {
            bundles.keepPack("other.clipstep", size, { _, _ -> throw cancelled }, {}) { Prepared.pack.inputStream() }
        }
        assertEquals(cancelled, thrown)
        assertEquals(listOf("mine.clipstep"), files)
    }

    @Test
    fun `a list says what each bundle is, or what is wrong with it`() {
        val bundles = build(NAME to Prepared.kept).apply { unpackAll() }
        damaged().copyRecursively(File(folder, "torn.clipstep"))
        val (good, torn) = bundles.list()
        assertEquals(Bundle.open(Prepared.kept).manifest.labels.size to null, good.classes to good.problem)
        assertEquals(Prepared.kept.walk().filter { it.isFile }.sumOf { it.length() }, good.bytes)
        assertEquals(null, torn.classes)
        assertTrue("${torn.problem}", "step.onnx was altered" in torn.problem?.message.orEmpty())
    }

    @Test
    fun `what is not there is named with what is`() {
        val bundles = build(NAME to Prepared.kept)
        fun said(action: () -> Unit) = assertThrows(ClipstepException::class.java, action).message
        assertEquals("the app has no such bundle; got fight.clipstep; expected demo.clipstep", said { bundles.unpack("fight.clipstep") })
        assertEquals("the app has no such bundle; got fight.clipstep; expected none is in its assets", said { build().unpack("fight.clipstep") })
        bundles.unpackAll()
        assertEquals("no such bundle; got fight; expected demo.clipstep; open it in the app first", said { bundles.find("fight") })
        assertEquals(bundles.find("demo"), bundles.find(NAME))
    }

    @Test
    fun `messages are without the folder, and a full disk is known`() {
        val bundles = build()
        assertEquals("a.clipstep: altered, b.clipstep.zip too", bundles.inWords("${folder.path}/a.clipstep.part: altered, ${folder.path}/b.clipstep.zip.part too"))
        assertTrue(BundleFolder.isNoSpace(IOException("write failed", ErrnoException("write", OsConstants.ENOSPC))))
        assertFalse(BundleFolder.isNoSpace(IOException("write failed", ErrnoException("write", OsConstants.EIO))))
    }
}
