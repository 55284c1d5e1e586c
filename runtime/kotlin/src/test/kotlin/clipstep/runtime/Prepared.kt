package clipstep.runtime

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertThrows
import org.junit.Assert.assertTrue
import org.junit.rules.TemporaryFolder

/** What tests/android/prepare.py wrote: an exported bundle, and Python's results. */
internal object Prepared {
    val folder = File(requireNotNull(System.getProperty("clipstep.prepared")) { "give -Dclipstep.prepared=FOLDER" })
    val bundle = File(folder, "demo.clipstep")

    /** Takes float32 frames. */
    val small = File(folder, "small.clipstep")

    /** [small] for this computer, with synthetic golden steps. */
    val pack = File(folder, "small.clipstep.zip")

    /** A clip network as steps of two frames, with a delay. */
    val delayed = File(folder, "delayed.clipstep")

    /** A network whose embedding and map of features are kept. */
    val kept = File(folder, "kept.clipstep")

    /** A network that takes the joints of two persons. */
    val joints = File(folder, "joints.clipstep")
    val python: Map<String, StoredTensor> by lazy { readSafetensors(File(folder, "python.safetensors")) }

    fun bytes(name: String): ByteArray = python.getValue(name).let { tensor -> ByteArray(tensor.data.capacity()).also { tensor.data.duplicate().get(it) } }

    fun shape(name: String): List<Int> = python.getValue(name).shape

    fun frame(name: String): Frame = Frame(shape(name)[0], shape(name)[1], bytes(name))
}

/** A bundle that can be damaged. */
internal fun TemporaryFolder.copied(bundle: File = Prepared.bundle): File = File(root, "copy.clipstep").also { bundle.copyRecursively(it) }

/** Rewrites a bundle's manifest. */
internal fun edit(bundle: File, change: (MutableMap<String, JsonElement>) -> Unit) {
    val file = File(bundle, MANIFEST)
    file.writeText(JsonObject(Json.parseToJsonElement(file.readText()).jsonObject.toMutableMap().also(change)).toString())
}

/** Runs the action, which must fail with a message of all these words. */
internal fun assertExplains(vararg words: String, action: () -> Unit) {
    val message = assertThrows(ClipstepException::class.java) { action() }.message.orEmpty()
    for (word in words) assertTrue("$word is not in: $message", word in message)
}

/** Red, green and blue of the subclip's mean, of 0 to 1: `logits = 4 mean - memory`, `memory_out = memory / 2 + mean`. */
internal class MeanColour(private val spec: Interface) : LoadedArtifact {
    var fail = false

    /** Added to the logits. */
    var off = 0f

    /** Called in each step. */
    var inStep: () -> Unit = {}

    override fun open() = object : StepBuffers {
        override val frames: ByteBuffer = frameBuffer(spec.input)
        override val states: List<FloatBuffer> = listOf(directFloats(3))
        override val logits: FloatBuffer = directFloats(3)

        override fun run() {
            inStep()
            if (fail) throw EngineException("the engine failed")
            for (c in 0 until 3) {
                val mean = (c until spec.input.elements step 3).sumOf { frames.get(it).toInt() and 0xff } / (255f * spec.input.elements / 3)
                logits.put(c, 4 * mean - states[0].get(c) + off)
                states[0].put(c, states[0].get(c) / 2 + mean)
            }
        }

        override fun close() = Unit
    }

    override fun close() = Unit
}

/** T = 4, 8 x 8 pixels, three classes, at 10 frames a second; memory starts at 0.25. */
internal fun colourSpec(stride: Int = 1, delay: Int = 0, color: String = "RGB"): Interface {
    val channels = List(if (color == "RGB") 3 else 2) { 255.0 }
    val input = Input(shape = listOf(4, 8, 8, channels.size), dtype = "uint8", color = color, mean = channels, std = channels, fps = 10.0, frameStride = stride)
    return Interface("colour", input, listOf(State("memory", listOf(1, 3), "float32", 0.25f)), listOf("red", "green", "blue"), delay)
}

internal fun plain(red: Int, green: Int, blue: Int): Frame =
    Frame(8, 8, ByteArray(8 * 8 * 3) { listOf(red, green, blue)[it % 3].toByte() })

/** Tensors one after the other, in the map's order. */
internal fun writeSafetensors(path: File, tensors: Map<String, StoredTensor>) {
    var offset = 0
    val entries = tensors.map { (name, tensor) ->
        val end = offset + tensor.data.capacity()
        "\"$name\":{\"dtype\":\"${tensor.dtype}\",\"shape\":${tensor.shape},\"data_offsets\":[$offset,$end]}".also { offset = end }
    }
    val header = entries.joinToString(",", "{", "}").toByteArray()
    val bytes = ByteBuffer.allocate(8 + header.size + offset).order(ByteOrder.LITTLE_ENDIAN).putLong(header.size.toLong()).put(header)
    for (tensor in tensors.values) bytes.put(tensor.data.duplicate())
    path.delete() // The tensors are mapped from it: it must not be written in place.
    path.writeBytes(bytes.array())
}
