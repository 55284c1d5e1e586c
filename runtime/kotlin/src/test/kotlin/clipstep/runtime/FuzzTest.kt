package clipstep.runtime

import java.io.File
import java.util.Random
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

/**
 * Damaged bundles of each kind, whose hashes fit: they can be used, or each is a [ClipstepException] and nothing else.
 *
 * `-Dclipstep.fuzz=13000` tries so many of each kind; the everyday number is small. A damage has a number, which a failure names.
 */
class FuzzTest {
    @get:Rule
    val folder = TemporaryFolder()
    private val count = Integer.getInteger("clipstep.fuzz", 300)

    @Test
    fun `damaged manifests`() {
        val bundle = folder.copied(Prepared.delayed)
        val manifest = File(bundle, MANIFEST)
        fuzz("manifest", manifest.readBytes()) { bytes ->
            manifest.writeBytes(bytes)
            use(bundle)
        }
    }

    /** Runs a network of two frames of 16 x 16 pixels. */
    private fun use(bundle: File) = StepModel.load(bundle).use { model ->
        model.stream().use { stream ->
            val frame = Frame(4, 4, ByteArray(4 * 4 * 3))
            repeat(minOf(model.spec.input.frames * model.spec.input.frameStride, 100)) { stream.push(frame)?.top(3) }
            stream.flush()
        }
    }

    @Test
    fun `damaged golden steps`() {
        val bundle = folder.copied(Prepared.delayed)
        val file = File(bundle, "golden.safetensors")
        fuzz("golden steps", file.readBytes()) { bytes ->
            file.delete() // What is mapped must not be written in place.
            file.writeBytes(bytes)
            GoldenSteps.of(rehashed(bundle)).run {
                for (step in 0 until minOf(steps, 100)) listOf(subclip(step), logits(step), besideLogits(step), flushed(step + 1))
                listOf(scales, flushedScale, flushedAfter)
            }
        }
    }

    @Test
    fun `damaged packs`() {
        val pack = File(folder.root, "x.clipstep.zip")
        fuzz("pack", Prepared.pack.readBytes()) { bytes ->
            pack.writeBytes(bytes)
            Bundle.open(pack).use { bundle -> bundle.file(bundle.manifest.golden) }
        }
    }

    @Test
    fun `damaged metadata in an artifact`() {
        val spec = Bundle.open(Prepared.delayed).manifest.interfaceFor("uint8")
        val text = WHOLE.encodeToString(Interface.serializer(), spec).toByteArray()
        fuzz("metadata", text) { checkEmbeddedMetadata(spec, it.decodeToString(), "x.onnx") }
    }

    private fun fuzz(kind: String, bytes: ByteArray, use: (ByteArray) -> Any?) {
        var used = 0
        for (number in 0 until count) {
            try {
                use(damaged(bytes, Random(number.toLong())))
                used++
            } catch (_: ClipstepException) {
            } catch (error: Throwable) {
                throw AssertionError("damage $number of $kind", error)
            }
        }
        println("$kind: $used of $count could be used, the others were refused")
    }
}

/** A few bytes changed, a part cut, doubled or moved, or a number of the text at its start replaced by one at a type's edge. */
private fun damaged(bytes: ByteArray, random: Random): ByteArray {
    val (from, to) = listOf(random.nextInt(bytes.size), random.nextInt(bytes.size)).sorted()
    return when (random.nextInt(6)) {
        0 -> bytes.copyOf().also { for (i in 0..random.nextInt(4)) it[random.nextInt(it.size)] = random.nextInt(256).toByte() }
        1 -> bytes.copyOf(from)
        2 -> bytes.copyOfRange(0, from) + bytes.copyOfRange(to, bytes.size)
        3 -> bytes.copyOfRange(0, to) + bytes.copyOfRange(from, bytes.size)
        4 -> bytes.copyOf().also { it.fill(EDGE_BYTES.random(random), from, minOf(from + 1 + random.nextInt(8), it.size)) }
        else -> {
            val head = bytes.copyOf(minOf(bytes.size, 20_000)).toString(Charsets.ISO_8859_1)
            val number = Regex("[0-9]+").findAll(head).toList().random(random)
            head.replaceRange(number.range, EDGES.random(random)).toByteArray(Charsets.ISO_8859_1) + bytes.copyOfRange(head.length, bytes.size)
        }
    }
}

private fun <T> List<T>.random(random: Random): T = get(random.nextInt(size))

private val EDGES = listOf("-1", "0", "1", "2147483647", "2147483648", "4294967295", "9223372036854775807", "1e400", "NaN", "[]", "null", "\"0\"")
private val EDGE_BYTES = listOf(0, 1, 0x7f, 0x80, 0xff).map { it.toByte() }
