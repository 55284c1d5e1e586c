package clipstep.runtime

import java.nio.ByteBuffer
import kotlin.math.abs
import org.junit.Assert.assertArrayEquals
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Test

class FramesTest {
    private val converter = YuvConverter()

    @Test
    fun `YUV becomes RGB as the definition in Python says, on real frames`() {
        for (number in 0..1) for (color in YuvColor.values()) {
            val expected = Prepared.frame("$number.${color.name.lowercase()}")
            val got = converter.convert(planar(expected.height, expected.width, Prepared.bytes("$number.planes"), color), 0)
            assertRounded("$number $color", square(expected), got.rgb)
        }
    }

    @Test
    fun `FFmpeg's conversion is the same but for its coarser rounding`() {
        for (number in 0..1) {
            val expected = Prepared.frame("$number.ffmpeg")
            val got = converter.convert(planar(expected.height, expected.width, Prepared.bytes("$number.planes")), 0).rgb
            val differences = got.zip(square(expected)) { a, b -> abs((a.toInt() and 0xff) - (b.toInt() and 0xff)) }
            println("FFmpeg: at most ${differences.max()}, ${differences.average()} on average")
            assertTrue("${differences.max()}", differences.max() <= 3 && differences.average() < 1.5)
        }
    }

    @Test
    fun `turned and cropped in the same pass, then resized, as in Python`() {
        for (number in 0..1) for (rotation in listOf(0, 90, 180, 270)) {
            val (height, width) = Prepared.shape("$number.ffmpeg")
            val got = converter.convert(planar(height, width, Prepared.bytes("$number.planes")), rotation)
            assertRounded("$number $rotation", Prepared.bytes("$number.square.$rotation"), got.rgb)
            assertRounded("$number $rotation", Prepared.bytes("$number.resized.$rotation"), resized(got))
        }
    }

    @Test
    fun `rows and pixels may lie apart, and the last row may end early`() {
        val (height, width) = Prepared.shape("0.ffmpeg")
        val planes = Prepared.bytes("0.planes")
        val tight = planar(height, width, planes)
        val expected = converter.convert(tight, 90).rgb.copyOf()
        val loose = YuvImage(height, width, spread(tight.y, height, width, 2, 37), spread(tight.u, height / 2, width / 2, 2, 5), spread(tight.v, height / 2, width / 2, 3, 0), YuvColor.BT601)
        assertArrayEquals(expected, converter.convert(loose, 90).rgb)
        assertEquals(0, loose.y.buffer.position())
    }

    @Test
    fun `a picture that begins inside its planes is found`() {
        val (height, width) = Prepared.shape("0.ffmpeg")
        val whole = planar(height, width, Prepared.bytes("0.planes"))
        val side = 101
        val inside = YuvImage(side, side, whole.y, whole.u, whole.v, YuvColor.BT601, top = 33, left = 51)
        val frame = Prepared.frame("0.bt601")
        val expected = ByteArray(side * side * 3) { i -> frame.rgb[((33 + i / 3 / side) * width + 51 + i / 3 % side) * 3 + i % 3] }
        assertRounded("inside", expected, converter.convert(inside, 0).rgb)
    }

    @Test
    fun `a small frame is enlarged, and one of the right size is left as it is`() {
        assertRounded("enlarged", Prepared.bytes("small.enlarged"), resized(Prepared.frame("small")))
        val exact = Prepared.frame("small.enlarged")
        assertArrayEquals(exact.rgb, resized(exact))
    }

    @Test
    fun `what cannot be an image is explained`() {
        val short = Plane(ByteBuffer.allocate(99), 10, 1)
        val half = Plane(ByteBuffer.allocate(25), 5, 1)
        assertExplains("plane y is too short; got 99 bytes", "expected 100 bytes for 10 x 10") { YuvImage(10, 10, short, half, half, YuvColor.BT601) }
        assertExplains("unknown rotation; got 45") { converter.convert(YuvImage(9, 9, short, half, half, YuvColor.BT601), 45) }
    }

    /** Numbers in the middle between two may be rounded the other way, by one and rarely. */
    private fun assertRounded(name: String, expected: ByteArray, got: ByteArray) {
        val off = got.indices.map { abs((got[it].toInt() and 0xff) - (expected[it].toInt() and 0xff)) }
        assertTrue("$name: ${off.max()}, ${off.count { it > 0 }} of ${off.size}", off.max() <= 1 && off.count { it > 0 } <= off.size / 500)
    }

    private fun resized(frame: Frame): ByteArray = ByteArray(112 * 112 * 3).also { Resizer(112).resize(frame, ByteBuffer.wrap(it)) }

    private fun square(frame: Frame): ByteArray {
        val (top, left, side) = Box.center(frame.height, frame.width)
        return ByteArray(side * side * 3) { i -> frame.rgb[((top + i / 3 / side) * frame.width + left + i / 3 % side) * 3 + i % 3] }
    }

    private fun spread(plane: Plane, rows: Int, columns: Int, pixelStride: Int, padding: Int): Plane {
        val rowStride = columns * pixelStride + padding
        val bytes = ByteArray((rows - 1) * rowStride + (columns - 1) * pixelStride + 1) { 77 }
        for (row in 0 until rows) for (column in 0 until columns) {
            bytes[row * rowStride + column * pixelStride] = plane.buffer.get(row * plane.rowStride + column)
        }
        return Plane(ByteBuffer.wrap(bytes), rowStride, pixelStride)
    }
}
