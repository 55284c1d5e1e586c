package clipstep.android

import android.graphics.Rect
import android.media.Image
import clipstep.runtime.Plane
import clipstep.runtime.YuvColor
import clipstep.runtime.YuvImage
import java.io.File
import java.nio.ByteBuffer
import java.util.Random
import org.junit.Assert.assertTrue

private const val PATIENCE_MS = 20_000L

/** What tests/android/prepare.py exported. */
internal object Prepared {
    private val folder = File(requireNotNull(System.getProperty("clipstep.prepared")) { "give -Dclipstep.prepared=FOLDER" })

    /** Takes subclips of four frames at 29.97 a second. */
    val small = File(folder, "small.clipstep")

    /** [small] for this computer. */
    val pack = File(folder, "small.clipstep.zip")
    val delayed = File(folder, "delayed.clipstep")
    val kept = File(folder, "kept.clipstep")
}

/** Waits for what another thread does. */
internal fun await(what: String, isSo: () -> Boolean) {
    val end = System.currentTimeMillis() + PATIENCE_MS
    while (!isSo() && System.currentTimeMillis() < end) Thread.sleep(2)
    assertTrue(what, isSo())
}

/** An image of 48 x 64 pixels of noise. */
internal fun noise(seed: Int): YuvImage {
    fun plane(length: Int, stride: Int) = Plane(ByteBuffer.wrap(ByteArray(length).also { Random(seed.toLong()).nextBytes(it) }), stride, 1)
    return YuvImage(48, 64, plane(48 * 64, 64), plane(24 * 32, 32), plane(24 * 32, 32), YuvColor.BT601_FULL)
}

/** An image of Android's, 4 x 2 pixels of which [crop] is the picture, with rows of 6 bytes, chroma in every second byte, and 9 where nobody may read. */
internal class Picture(
    private val kind: Int, private val taken: Long = 0, private val crop: Rect = Rect(0, 0, 4, 2), private val chromaBytes: Int = 4,
) : Image() {
    @Volatile
    var closed = 0

    override fun getFormat(): Int = kind

    override fun getWidth(): Int = 4

    override fun getHeight(): Int = 2

    override fun getTimestamp(): Long = taken

    override fun getTransform(): Int = 0

    override fun getScalingMode(): Int = 0

    override fun getCropRect(): Rect = crop

    override fun getPlanes(): Array<Plane> {
        val luma = byteArrayOf(10, 10, 100, 100, 9, 9, 10, 10, 100, 100, 9, 9)
        fun chroma(value: Int) = byteArrayOf(10, 9, value.toByte(), 9).copyOf(chromaBytes)
        return arrayOf(Bytes(luma, 6, 1), Bytes(chroma(150), 6, 2), Bytes(chroma(120), 6, 2))
    }

    override fun close() {
        closed++
    }

    private class Bytes(bytes: ByteArray, private val rows: Int, private val pixels: Int) : Plane() {
        private val bytes = ByteBuffer.wrap(bytes)

        override fun getRowStride(): Int = rows

        override fun getPixelStride(): Int = pixels

        override fun getBuffer(): ByteBuffer = bytes
    }
}
