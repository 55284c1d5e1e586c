package clipstep.runtime

import java.io.File
import java.nio.file.Files
import java.util.concurrent.CancellationException
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/** Of an entry in a zip file's directory, before its name; and where in it the size of the file is. */
private const val CENTRAL_BYTES = 46
private const val SIZE_AT = 24

class PackTest {
    @get:Rule
    val folder = TemporaryFolder()

    /** The bundle as a zip file, with other entries after its own. */
    private fun zipped(bundle: File = Prepared.small, prefix: String = "", more: Map<String, ByteArray> = emptyMap()): File =
        File(folder.root, "x.clipstep.zip").also { out ->
            ZipOutputStream(out.outputStream()).use { zip ->
                val files = bundle.walkTopDown().filter { it.isFile }.associate { prefix + it.relativeTo(bundle).invariantSeparatorsPath to it.readBytes() }
                for ((name, bytes) in files + more) {
                    zip.putNextEntry(ZipEntry(name))
                    zip.write(bytes)
                }
            }
        }

    private fun unpacked() = File(System.getProperty("java.io.tmpdir")).listFiles { file -> file.name.startsWith("clipstep-") }.orEmpty().toSet()

    @Test
    fun `the pack that Python wrote computes its golden steps, and leaves nothing behind`() {
        val before = unpacked()
        Bundle.open(Prepared.pack).use { bundle ->
            assertEquals(emptyList<String>(), bundle.missing + bundle.extra)
            assertEquals(listOf("synthetic"), bundle.manifest.golden.frameSources)
            val errors = StepModel.load(Prepared.pack).use { checkGolden(it, GoldenSteps.of(bundle)) }
            assertEquals(16, errors.steps)
            assertEquals(1, (unpacked() - before).size)
        }
        assertEquals(before, unpacked())
    }

    @Test
    fun `a folder that was zipped by hand is the same bundle`() {
        StepModel.load(Prepared.small).use { model ->
            val frames = GoldenSteps.of(Bundle.open(Prepared.small)).subclip(0)
            val expected = model.step(frames, model.initialStates()).logits
            for (prefix in listOf("", "small.clipstep/")) {
                StepModel.load(zipped(prefix = prefix)).use { assertArrayEquals(expected, it.step(frames, it.initialStates()).logits, 0f) }
            }
        }
    }

    @Test
    fun `what is extra is named, what is missing matters where it is used`() {
        val bundle = folder.copied(Prepared.small)
        File(bundle, "golden.safetensors").delete()
        Bundle.open(zipped(bundle, more = mapOf("notes.txt" to ByteArray(1), "__MACOSX/._step.onnx" to ByteArray(1)))).use {
            assertEquals(listOf("__MACOSX/._step.onnx", "notes.txt"), it.extra)
            assertEquals(listOf("golden.safetensors"), it.missing)
            StepModel.load(it).close()
            assertExplains("golden.safetensors is missing") { GoldenSteps.of(it) }
        }
    }

    @Test
    fun `names that lead out, or are one on some phone, are refused`() {
        for (name in listOf("../evil", "/evil", "a/../../evil", "..\\evil", "C:evil", "a//b", "./a")) {
            assertExplains("holds a name that no file of a bundle may have") { Bundle.open(zipped(more = mapOf(name to ByteArray(1)))) }
        }
        assertExplains("two files of one name") { Bundle.open(zipped(more = mapOf("STEP.onnx" to ByteArray(1)))) }
        assertExplains("a file inside a file") { Bundle.open(zipped(more = mapOf("step.onnx/x" to ByteArray(1)))) }
    }

    @Test
    fun `what is altered, no zip file or a bomb is refused`() {
        val bundle = folder.copied(Prepared.small)
        File(bundle, "step.onnx").writeBytes(ByteArray(8_000_000))
        File(bundle, "golden.safetensors").delete() // Frames do not shrink as much as zeros do.
        assertExplains("step.onnx was altered; got 8000000 bytes") { StepModel.load(zipped(bundle)) }
        edit(bundle) { values ->
            val facts = mapOf("size_bytes" to JsonPrimitive(8_000_000), "sha256" to JsonPrimitive(treeSha256(File(bundle, "step.onnx"))))
            values["artifacts"] = JsonArray(listOf(JsonObject(values.getValue("artifacts").jsonArray[0].jsonObject + facts)))
        }
        smallBytes = 1 shl 20
        try {
            assertExplains("unpacks to more than a bundle of its size holds") { StepModel.load(zipped(bundle)) }
        } finally {
            smallBytes = 64L shl 20
        }
        assertExplains("no zip file") { Bundle.open(folder.newFile("y.clipstep.zip").apply { writeText("text") }) }
        val cut = zipped()
        cut.writeBytes(cut.readBytes().let { it.copyOf(it.size / 2) })
        assertExplains("no zip file") { Bundle.open(cut) }
    }

    @Test
    fun `an entry that is larger than the zip file's directory says is read no further`() {
        val bundle = folder.copied(Prepared.small)
        assertExplains("manifest.json cannot be read", "larger than the zip file says") { Bundle.open(understated(zipped(bundle), MANIFEST, 10)) }
        val sha256 = JsonPrimitive(treeSha256(File(bundle, "step.onnx")))
        edit(bundle) { values ->
            val facts = mapOf("size_bytes" to JsonPrimitive(10), "sha256" to sha256)
            values["artifacts"] = JsonArray(listOf(JsonObject(values.getValue("artifacts").jsonArray[0].jsonObject + facts)))
        }
        assertExplains("step.onnx", "larger than the zip file says") { StepModel.load(understated(zipped(bundle), "step.onnx", 10)) }
    }

    /** The pack with another size in its directory for the entry of that name. */
    private fun understated(pack: File, name: String, size: Int): File = pack.apply {
        val bytes = readBytes()
        val wanted = name.toByteArray()
        val entry = (0 until bytes.size - CENTRAL_BYTES).first { at ->
            bytes.copyOfRange(at, at + 4).contentEquals(byteArrayOf(0x50, 0x4b, 1, 2)) && bytes.copyOfRange(at + CENTRAL_BYTES, at + CENTRAL_BYTES + wanted.size).contentEquals(wanted)
        }
        java.nio.ByteBuffer.wrap(bytes).order(java.nio.ByteOrder.LITTLE_ENDIAN).putInt(entry + SIZE_AT, size)
        writeBytes(bytes)
    }

    @Test
    fun `clutter in an artifact that is a folder changes nothing, a link in it is refused`() {
        val bundle = folder.copied(Prepared.small)
        val tree = File(bundle, "x.mlpackage/Data").apply { mkdirs() }
        File(tree, "weight.bin").writeText("weights")
        edit(bundle) { values ->
            val artifact = values.getValue("artifacts").jsonArray[0].jsonObject
            val facts = mapOf("target" to "coreml", "file" to "x.mlpackage", "sha256" to treeSha256(tree.parentFile)).mapValues { JsonPrimitive(it.value) }
            values["artifacts"] = JsonArray(listOf(artifact, JsonObject(artifact + facts + ("size_bytes" to JsonPrimitive(7)))))
        }
        File(tree, ".DS_Store").writeText("Finder")
        File(tree, "._weight.bin").writeText("Finder")
        assertEquals(2, Bundle.open(bundle).extra.size)
        assertEquals(2, Bundle.open(zipped(bundle)).use { it.extra.size })
        Files.createSymbolicLink(File(tree, "more").toPath(), folder.newFolder("outside").toPath())
        assertExplains("x.mlpackage/Data/more lies outside the bundle") { Bundle.open(bundle) }
    }

    @Test
    fun `a pack can be unpacked to stay`() {
        val kept = folder.newFolder("kept.clipstep")
        Bundle.unpack(zipped(more = mapOf("notes.txt" to ByteArray(1))), kept)
        assertEquals(setOf("manifest.json", "step.onnx", "golden.safetensors"), kept.list().orEmpty().toSet())
        assertTrue(StepModel.load(kept).use { checkGolden(it, GoldenSteps.of(Bundle.open(kept))) }.relative <= 1e-4)
    }

    @Test
    fun `what runs here is unpacked, and who is told how far that is may end it`() {
        val (told, kept) = mutableListOf<Pair<Long, Long>>() to File(folder.root, "kept.clipstep")
        Bundle.unpack(zipped(), kept, listOf("onnx")) { done, total -> told += done to total }
        val bytes = Prepared.small.listFiles { file -> file.name != SIGNATURE }.orEmpty().sumOf { it.length() }
        assertEquals(listOf(0L to bytes, bytes to bytes), listOf(told.first(), told.last()))
        assertEquals(told.sortedBy { it.first }, told)
        assertExplains("nothing in it runs here; got onnx for any; expected an artifact for coreml or executorch") {
            Bundle.unpack(zipped(), kept, listOf("coreml", "executorch"))
        }
        val (other, enough) = File(folder.root, "other.clipstep") to bytes / 2
        assertThrows(CancellationException::class.java) { Bundle.unpack(zipped(), other) { done, _ -> if (done > enough) throw CancellationException() } }
        assertTrue(treeSize(other) in enough..bytes - 1)
    }
}
