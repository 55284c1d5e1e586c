package clipstep.runtime

import java.io.File
import java.io.IOException
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.channels.FileChannel
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.decodeFromJsonElement

/** How many bytes a number has, by the name of its type. */
private val WIDTHS = listOf(1 to "BOOL U8 I8", 2 to "U16 I16 F16 BF16", 4 to "U32 I32 F32", 8 to "U64 I64 F64")
    .flatMap { (width, names) -> names.split(" ").map { it to width } }.toMap()

/** A tensor in a safetensors file: little-endian numbers, row by row. */
internal class StoredTensor(val dtype: String, val shape: List<Int>, val data: ByteBuffer) {
    /** Bytes of one entry along the first axis. */
    private val stride: Int get() = if (shape[0] == 0) 0 else data.capacity() / shape[0]

    /** Entry [index] along the first axis. */
    fun bytes(index: Int): ByteArray = ByteArray(stride).also { entry(index).get(it) }

    /** Entry [index] along the first axis, of float32. */
    fun floats(index: Int): FloatArray = FloatArray(stride / Float.SIZE_BYTES).also { entry(index).asFloatBuffer().get(it) }

    /** Number [index] of a row of int64. */
    fun long(index: Int): Long = entry(index).getLong()

    override fun toString(): String = "$dtype (${shape.joinToString()})"

    private fun entry(index: Int): ByteBuffer = data.duplicate().order(ByteOrder.LITTLE_ENDIAN).apply { position(index * stride) }
}

@Serializable
private class Header(val dtype: String, val shape: List<Int>, @SerialName("data_offsets") val offsets: List<Long>) {
    init {
        require(dtype in WIDTHS) { "the type $dtype" }
        require(shape.all { it >= 0 }) { "the shape $shape" }
        require(offsets.size == 2 && offsets[0] in 0..offsets[1]) { "the offsets $offsets" }
    }
}

/**
 * Maps a safetensors file into memory and returns its tensors by name. All offsets and sizes are checked against the file.
 *
 * @throws BundleException the file cannot be read; it is no safetensors file; its tensors reach beyond its end, overlap, leave bytes
 *   between them, or have another size than their shapes need.
 */
internal fun readSafetensors(path: File): Map<String, StoredTensor> = try {
    RandomAccessFile(path, "r").use { read(it.channel) }
} catch (error: IOException) {
    throw unreadable(path, error)
} catch (error: IllegalArgumentException) { // A SerializationException is one, and so is a failed require.
    throw unreadable(path, error)
} catch (error: ClipstepException) {
    throw unreadable(path, error)
}

private fun unreadable(path: File, error: Exception) =
    BundleException("$path: cannot be read", got = error.reason(), expected = "golden steps", fix = "export it again", cause = error)

private fun read(file: FileChannel): Map<String, StoredTensor> {
    val size = file.size()
    require(size in Long.SIZE_BYTES..Int.MAX_VALUE) { "a file of $size bytes" }
    val bytes = file.map(FileChannel.MapMode.READ_ONLY, 0, size).order(ByteOrder.LITTLE_ENDIAN)
    val length = bytes.getLong()
    require(length in 0..minOf(LARGEST_JSON, size - Long.SIZE_BYTES)) { "a header of $length bytes in a file of $size" }
    val headers = headers(ByteArray(length.toInt()).also { bytes.get(it) })
    val data = bytes.slice()
    checkPlaces(headers, data.capacity().toLong())
    return headers.mapValues { (_, header) ->
        val part = data.duplicate().apply { limit(header.offsets[1].toInt()).position(header.offsets[0].toInt()) }
        StoredTensor(header.dtype, header.shape, part.slice())
    }
}

private fun headers(text: ByteArray): Map<String, Header> {
    val values = requireNotNull(parseStrictJson(text) as? JsonObject) { "a header that is no object" }
    return values.filterKeys { it != "__metadata__" }.mapValues { (_, value) -> Json.decodeFromJsonElement<Header>(value) }
}

/** Checks that the tensors fill [size] bytes without gaps or overlaps, and that each has the size of its shape. */
private fun checkPlaces(headers: Map<String, Header>, size: Long) {
    var end = 0L
    for ((name, header) in headers.entries.sortedWith(compareBy({ it.value.offsets[0] }, { it.value.offsets[1] }))) {
        val needed = header.shape.fold(WIDTHS.getValue(header.dtype).toLong()) { bytes, n ->
            require(n == 0 || bytes <= size / n) { "$name of the shape ${header.shape} in $size bytes" }
            bytes * n
        }
        require(header.offsets == listOf(end, end + needed)) { "$name at ${header.offsets}, expected $needed bytes from offset $end" }
        end += needed
    }
    require(end == size) { "$end bytes of tensors in $size" }
}
