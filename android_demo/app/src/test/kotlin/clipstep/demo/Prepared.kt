package clipstep.demo

import clipstep.runtime.Plane
import clipstep.runtime.YuvColor
import clipstep.runtime.YuvImage
import java.io.File
import java.io.RandomAccessFile
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive

/** A real video's frames, and Python's predictions for it, as tests/android/prepare.py wrote them. */
internal object Prepared {
    val folder = File(requireNotNull(System.getProperty("clipstep.prepared")) { "give -Dclipstep.prepared=FOLDER" })
    val bundle = File(folder, "demo.clipstep")
    private val file = RandomAccessFile(File(folder, "python.safetensors"), "r").channel.use { it.map(java.nio.channels.FileChannel.MapMode.READ_ONLY, 0, it.size()) }
    private val headerSize = file.order(ByteOrder.LITTLE_ENDIAN).getLong(0).toInt()
    private val header = ByteArray(headerSize).also { bytes -> for (i in bytes.indices) bytes[i] = file.get(8 + i) }.let { Json.parseToJsonElement(String(it)).jsonObject }

    fun shape(name: String): List<Int> = header.getValue(name).jsonObject.getValue("shape").jsonArray.map { it.jsonPrimitive.int }

    fun bytes(name: String): ByteArray {
        val (from, to) = header.getValue(name).jsonObject.getValue("data_offsets").jsonArray.map { it.jsonPrimitive.int }
        return ByteArray(to - from) { file.get(8 + headerSize + from + it) }
    }

    fun floats(name: String): FloatArray {
        val buffer = ByteBuffer.wrap(bytes(name)).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer()
        return FloatArray(buffer.remaining()).also { buffer.get(it) }
    }

    /** The video's frames as a camera gives them. */
    val frames: List<YuvImage> by lazy {
        val (height, width) = shape("0.ffmpeg")
        val planes = bytes("stream.planes")
        val (luma, chroma) = height * width to height * width / 4
        List(shape("stream.planes")[0]) { index ->
            val start = index * (luma + 2 * chroma)
            fun plane(offset: Int, length: Int, stride: Int) = Plane(ByteBuffer.wrap(planes, start + offset, length).slice(), stride, 1)
            YuvImage(height, width, plane(0, luma, width), plane(luma, chroma, width / 2), plane(luma + chroma, chroma, width / 2), YuvColor.BT601)
        }
    }
}
