package clipstep.runtime

import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.decodeFromJsonElement

/** A tensor in a safetensors file: little-endian numbers, row by row. */
internal class StoredTensor(val dtype: String, val shape: List<Int>, val data: ByteBuffer) {
    /** Bytes of one entry along the first axis. */
    private val stride: Int get() = if (shape[0] == 0) 0 else data.capacity() / shape[0]

    /** Entry [index] along the first axis. */
    fun bytes(index: Int): ByteArray = ByteArray(stride).also { entry(index).get(it) }

    /** Entry [index] along the first axis, of float32. */
    fun floats(index: Int): FloatArray = FloatArray(stride / Float.SIZE_BYTES).also { entry(index).asFloatBuffer().get(it) }

    private fun entry(index: Int): ByteBuffer = data.duplicate().order(ByteOrder.LITTLE_ENDIAN).apply { position(index * stride) }
}

@Serializable
private class Header(val dtype: String, val shape: List<Int>, @SerialName("data_offsets") val offsets: List<Int>)

/** The tensors of a file, mapped into memory, by their names. */
internal fun readSafetensors(path: File): Map<String, StoredTensor> = RandomAccessFile(path, "r").use { file ->
    val bytes = file.channel.map(FileChannel.MapMode.READ_ONLY, 0, file.length()).order(ByteOrder.LITTLE_ENDIAN)
    val length = bytes.getLong().toInt()
    val header = ByteArray(length).also { bytes.get(it) }.decodeToString()
    val tensors = (Json.parseToJsonElement(header) as JsonObject).filterKeys { it != "__metadata__" }
    tensors.mapValues { (_, value) ->
        val entry = Json.decodeFromJsonElement<Header>(value)
        val data = bytes.duplicate().apply { position(Long.SIZE_BYTES + length + entry.offsets[0]).limit(Long.SIZE_BYTES + length + entry.offsets[1]) }
        StoredTensor(entry.dtype, entry.shape, data.slice())
    }
}
