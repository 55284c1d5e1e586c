package clipstep.runtime

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder

private const val HEADER_BYTES = 8

/** Bundles that somebody made to do harm, with hashes that fit: each is a [ClipstepException], and nothing else. */
class HostileTest {
    @get:Rule
    val folder = TemporaryFolder()

    @Test
    fun `a manifest that readers take differently is refused`() {
        val bundle = folder.copied(Prepared.small)
        val told = mapOf(
            """{"a":1,"a":2}""" to """is ambiguous; got the key "a" twice""",
            """{"a":{"b":[{"c":1,"d":2,"\u0063":3}]}}""" to """got the key "c" twice""",
            """{"a":NaN}""" to "is not JSON; got NaN",
            """{"a":-Infinity}""" to "is not JSON; got -Infinity",
            """{"a":01}""" to "is not JSON; got 01",
            """{"a":word}""" to "is not JSON; got word",
            """{"a":1e999}""" to "a number out of range",
            """{"a":9223372036854775808}""" to "an integer of more than 64 bits",
            """{"a":"\u001b[2J"}""" to "control characters",
            """{"a\u202e":1}""" to "control characters",
            """{"a":"\ud800"}""" to "control characters",
            """{"a":${"[".repeat(40)}1${"]".repeat(40)}}""" to "is nested too deep",
            """{"a":${"[".repeat(500_000)}""" to "is nested too deep",
            """{"a":1,}""" to "is not JSON",
        )
        for ((training, words) in told) {
            assertExplains("manifest.json", words) { Bundle.open(training(bundle, training)) }
        }
        Bundle.open(training(bundle, """{"a":[1.5e3,-0,true,null,"\ud83d\ude00 \u200d é"],"b":{"a":1}}"""))
        val bytes = File(bundle, MANIFEST).readBytes()
        File(bundle, MANIFEST).writeBytes(bytes + byteArrayOf(0x20, 0xff.toByte()))
        assertExplains("manifest.json is not JSON; got bytes that are not UTF-8") { Bundle.open(bundle) }
    }

    /** The bundle with this text as what the manifest says of the training. */
    private fun training(bundle: File, text: String): File {
        File(Prepared.small, MANIFEST).copyTo(File(bundle, MANIFEST), overwrite = true)
        edit(bundle) { it["provenance"] = JsonObject(it.getValue("provenance").jsonObject + ("training" to JsonPrimitive("HERE"))) }
        return bundle.also { File(it, MANIFEST).run { writeText(readText().replace("\"HERE\"", text)) } }
    }

    @Test
    fun `a manifest that names what no step can have is refused`() {
        val bundle = folder.copied(Prepared.small)
        fun refused(words: String, change: (MutableMap<String, JsonElement>) -> Unit) {
            File(Prepared.small, MANIFEST).copyTo(File(bundle, MANIFEST), overwrite = true)
            edit(bundle, change)
            assertExplains("manifest.json is malformed", words) { Bundle.open(bundle) }
        }
        fun input(key: String, value: String) = { it: MutableMap<String, JsonElement> -> it["input"] = JsonObject(it.getValue("input").jsonObject + (key to json(value))) }
        fun state(change: Map<String, String>) = { it: MutableMap<String, JsonElement> ->
            val states = it.getValue("states").jsonArray
            it["states"] = JsonArray(listOf(JsonObject(states[0].jsonObject + change.mapValues { json(it.value) })) + states.drop(1))
        }
        refused("frames and states must fit into", input("shape", "[65536, 65536, 65536, 3]"))
        refused("frames and states must fit into", input("shape", "[1, 32768, 32768, 3]"))
        refused("frames and states must fit into", state(mapOf("shape" to "[2147483647, 2147483647, 4, 1]")))
        refused("std must be above 0", input("std", "[1, 0, 1]"))
        refused("fps must be", input("fps", "1e9"))
        refused("frame_stride must be", input("frame_stride", "10001"))
        refused("initial", state(mapOf("initial" to "1e39")))
        refused("outputs must be logits, slow_buffer_out, fast_buffer_out") { it["outputs"] = json("""["logits","fast_buffer_out","slow_buffer_out"]""") }
        refused("differ from each other") {
            state(mapOf("name" to "\"fast_buffer\""))(it)
            it["outputs"] = json("""["logits","fast_buffer_out","fast_buffer_out"]""")
        }
        refused("label 1 must have 1 to 1000 characters") { it["labels"] = json("""["a","  "]""") }
        refused("input.fps must be no string", input("fps", "\"25\""))
        refused("delay_frames must be no string") { it["delay_frames"] = JsonPrimitive("0") }
        refused("states.0.initial must be no string", state(mapOf("initial" to "\"0\"")))
        refused("delay_frames must be") { it["delay_frames"] = json("1000001") }
        refused("flush names the state end, which is not among the states") { it["flush"] = json("""{"state":"end","steps":1,"min_frames":1}""") }
        refused("manifest.json cannot be an artifact") { it["golden"] = JsonObject(it.getValue("golden").jsonObject + ("file" to JsonPrimitive("./manifest.json"))) }
        refused("step.onnx is named twice") { it["golden"] = JsonObject(it.getValue("golden").jsonObject + ("file" to JsonPrimitive("step.onnx"))) }
        refused("a file inside the bundle") { it["golden"] = JsonObject(it.getValue("golden").jsonObject + ("file" to JsonPrimitive("C:golden"))) }
        refused("two artifacts for onnx, any, float32") { it["artifacts"] = JsonArray(List(2) { _ -> it.getValue("artifacts").jsonArray[0] }) }
    }

    @Test
    fun `an artifact with other outputs than the manifest says is refused before the first step`() {
        val bundle = folder.copied(Prepared.small)
        edit(bundle) { it["labels"] = json("""["a","b","c"]""") }
        assertExplains("step.onnx: gives other outputs than the manifest says", "[1, 2]", "[1, 3]") { StepModel.load(bundle) }
        edit(bundle) { values ->
            values["labels"] = json("""["a","b"]""")
            val states = values.getValue("states").jsonArray
            values["states"] = JsonArray(listOf(JsonObject(states[0].jsonObject + ("name" to JsonPrimitive("other")))) + states.drop(1))
            values["outputs"] = json("""["logits","other_out","fast_buffer_out"]""")
        }
        assertExplains("step.onnx: takes other inputs than the manifest says", "slow_buffer", "other") { StepModel.load(bundle) }
    }

    @Test
    fun `a safetensors file is bounded by its size`() {
        val file = File(folder.root, "x.safetensors")
        fun refused(bytes: ByteArray) {
            file.delete()
            file.writeBytes(bytes)
            assertThrows("read: ${bytes.decodeToString().take(200)}", BundleException::class.java) { readSafetensors(file) }
        }
        for (length in listOf(1L shl 31, (1L shl 32) + 2, Long.MAX_VALUE, -1, 0, 3)) refused(safetensors("{}", length = length))
        for (bytes in listOf(0, 3, 8)) refused(ByteArray(bytes))
        val tensor = """"dtype":"F32","shape":[2]"""
        val headers = listOf(
            "[]", "1", "null", "{", "[".repeat(100_000), """{"a":1}""", """{"a":{}}""", """{"a":{$tensor}}""",
            """{"a":{$tensor,"data_offsets":[0]}}""", """{"a":{$tensor,"data_offsets":[0,8,8]}}""", """{"a":{$tensor,"data_offsets":[8,0]}}""",
            """{"a":{$tensor,"data_offsets":[-8,0]}}""", """{"a":{$tensor,"data_offsets":[0,4]}}""", """{"a":{$tensor,"data_offsets":[0,16]}}""",
            """{"a":{$tensor,"data_offsets":[4294967296,4294967304]}}""", """{"a":{$tensor,"data_offsets":[9223372036854775807,1]}}""",
            """{"a":{"dtype":"F32","shape":[2147483647,2147483647,4],"data_offsets":[0,8]}}""", """{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}""",
            """{"a":{"dtype":"F64","shape":[2],"data_offsets":[0,8]}}""", """{"a":{"dtype":"X9","shape":[2],"data_offsets":[0,8]}}""",
            """{"a":{$tensor,"data_offsets":[0,8]},"b":{$tensor,"data_offsets":[0,8]}}""", // They overlap.
            """{"a":{$tensor,"data_offsets":[0,8]},"a":{$tensor,"data_offsets":[0,8]}}""",
            """{"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}""", // A hole before it.
            """{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}""", // Bytes that belong to none.
        )
        for (header in headers) refused(safetensors(header))
        file.writeBytes(safetensors("""{"__metadata__":{"a":"b"},"a":{$tensor,"data_offsets":[0,8]}}  """))
        assertEquals(listOf(2), readSafetensors(file).getValue("a").shape)
        assertThrows(BundleException::class.java) { readSafetensors(folder.root) }
    }

    /** Eight bytes of numbers below a header. */
    private fun safetensors(header: String, numbers: Int = 8, length: Long? = null): ByteArray {
        val bytes = header.toByteArray()
        return ByteBuffer.allocate(HEADER_BYTES + bytes.size + numbers).order(ByteOrder.LITTLE_ENDIAN).putLong(length ?: bytes.size.toLong()).put(bytes).array()
    }

    @Test
    fun `golden steps that prove nothing, or are another network's, are refused`() {
        val good = tensors()
        assertEquals(2, golden(good).steps)
        val none = StoredTensor("F32", listOf(0, 2), ByteBuffer.allocate(0))
        val states = good.filterKeys { it.startsWith("states.") }.keys
        assertExplains("the golden steps cannot be used; got 0 steps") {
            golden(good + ("logits" to none) + states.associateWith { StoredTensor("F32", listOf(0) + good.getValue(it).shape.drop(1), ByteBuffer.allocate(0)) })
        }
        assertExplains("cannot be used; got 2 steps on 0 subclips") { golden(good + ("subclips" to zeros("U8", 0, 4, 32, 32, 3))) }
        assertExplains("cannot be used; got logits F32 ()") { golden(good + ("logits" to zeros("F32"))) }
        assertExplains("cannot be used; got logits F64 (2, 2)") { golden(good + ("logits" to zeros("F64", 2, 2))) }
        assertExplains("cannot be used; got logits F32 (2, 3)") { golden(good + ("logits" to zeros("F32", 2, 3))) }
        assertExplains("cannot be used; got subclips U8 (1, 4, 16, 16, 3)") { golden(good + ("subclips" to zeros("U8", 1, 4, 16, 16, 3))) }
        assertExplains("cannot be used; got states.fast_buffer") { golden(good + ("states.fast_buffer" to zeros("F32", 2, 1))) }
        assertExplains("of no more steps than logits") { golden(good + states.associateWith { zeros("F32", 3, *good.getValue(it).shape.drop(1).toIntArray()) }) }
        val endless = zeros("F32", 2, 2).apply { data.order(ByteOrder.LITTLE_ENDIAN).putFloat(4, Float.NaN) }
        assertExplains("cannot be used; got a value in logits that is not finite") { golden(good + ("logits" to endless)) }
        assertExplains("golden.safetensors", "no states.slow_buffer") { golden(good - "states.slow_buffer") }
    }

    /** Two golden steps of zeros that fit the small bundle. */
    private fun tensors(): Map<String, StoredTensor> {
        val states = Bundle.open(Prepared.small).manifest.states.associate { "states.${it.name}" to zeros("F32", 2, *it.shape.toIntArray()) }
        return mapOf("subclips" to zeros("U8", 1, 4, 32, 32, 3), "logits" to zeros("F32", 2, 2)) + states
    }

    private fun zeros(dtype: String, vararg shape: Int): StoredTensor {
        val width = mapOf("U8" to 1, "F32" to 4, "F64" to 8).getValue(dtype)
        return StoredTensor(dtype, shape.toList(), ByteBuffer.allocate(shape.fold(width, Int::times)))
    }

    private fun golden(tensors: Map<String, StoredTensor>): GoldenSteps {
        val bundle = File(folder.root, "copy.clipstep").also { it.deleteRecursively() }
        folder.copied(Prepared.small)
        writeSafetensors(File(bundle, "golden.safetensors"), tensors)
        return GoldenSteps.of(rehashed(bundle))
    }

    @Test
    fun `golden steps that are a folder are refused`() {
        val bundle = folder.copied(Prepared.small)
        val file = File(bundle, "golden.safetensors")
        file.delete()
        File(file, "x").apply { parentFile?.mkdirs() }.writeText("x")
        assertExplains("golden.safetensors: cannot be read") { GoldenSteps.of(rehashed(bundle)) }
    }

    @Test
    fun `a checked model must be that of the golden steps`() {
        val golden = GoldenSteps.of(Bundle.open(Prepared.small))
        StepModel.load(Prepared.bundle).use { model -> assertExplains("the golden steps cannot be used; got subclips U8") { checkGolden(model, golden) } }
    }

    @Test
    fun `a step that gives other outputs than were declared is explained`() {
        val buffers = listOf(directFloats(2), directFloats(3))
        keep(listOf(floatArrayOf(1f, 2f), floatArrayOf(3f, 4f, 5f)), buffers, "step.pte")
        assertEquals(listOf(2f, 5f), listOf(buffers[0].get(1), buffers[1].get(2)))
        for (sizes in listOf(listOf(2), listOf(2, 4), listOf(2, 2), listOf(2, 3, 1))) {
            assertExplains("step.pte: a step gave other outputs than the manifest says; got $sizes") { keep(sizes.map(::FloatArray), buffers, "step.pte") }
        }
    }
}

private fun json(text: String): JsonElement = Json.parseToJsonElement(text)

/** Opens the bundle with the size and hash of its golden steps as they are now. */
internal fun rehashed(bundle: File): Bundle {
    val file = File(bundle, "golden.safetensors")
    edit(bundle) { it["golden"] = Json.encodeToJsonElement(Golden.serializer(), Golden(file.name, treeSize(file), treeSha256(file))) }
    return Bundle.open(bundle)
}
