package clipstep.android

import android.graphics.ImageFormat
import android.graphics.Rect
import android.media.Image
import android.media.MediaFormat
import clipstep.runtime.ClipstepException
import clipstep.runtime.Plane
import clipstep.runtime.YuvColor
import clipstep.runtime.YuvConverter
import org.junit.Assert.assertEquals
import org.junit.Assert.assertThrows
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
class ImagesTest {
    private val right = Rect(2, 0, 4, 2)

    private fun rgb(image: clipstep.runtime.YuvImage): List<Int> = YuvConverter().convert(image, 0).rgb.map { it.toInt() and 0xff }

    /** Luma 100, chroma 150 and 120: `R = 100 + 1.402 * -8 = 88.8`, `G = 100 - 0.3441 * 22 - 0.7141 * -8 = 98.1`, `B = 100 + 1.772 * 22 = 139.0`. */
    @Test
    fun `a camera's image is read with its crop and its strides, in JPEG's colours`() {
        assertEquals(List(4) { listOf(89, 98, 139) }.flatten(), rgb(Picture(ImageFormat.YUV_420_888, crop = right).toYuv()))
    }

    /** `1.1644 * (100 - 16) = 97.8`; `R = 97.8 + 1.5960 * -8 = 85.0`, `G = 97.8 - 0.3918 * 22 - 0.8130 * -8 = 95.7`, `B = 97.8 + 2.0172 * 22 = 142.2`. */
    @Test
    fun `a decoder's image without information of its colour has BT 601's of limited range`() {
        assertEquals(List(4) { listOf(85, 96, 142) }.flatten(), rgb(Picture(ImageFormat.YUV_420_888, crop = right).toYuv(MediaFormat().yuvColor())))
    }

    @Test
    fun `the planes of another class are the same image`() {
        val image: Image = Picture(ImageFormat.YUV_420_888, crop = right)
        val planes = image.planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) }
        assertEquals(rgb(image.toYuv()), rgb(yuvImage(image.format, image.cropRect, planes)))
        val error = assertThrows(ClipstepException::class.java) { yuvImage(image.format, image.cropRect, planes.take(2)) }
        assertEquals("an image has the wrong planes; got 2; expected 3: y, u and v", error.message)
    }

    @Test
    fun `another format is named with what to ask for`() {
        val error = assertThrows(ClipstepException::class.java) { Picture(ImageFormat.YCBCR_P010).toYuv() }
        assertEquals("an image is in another format; got 54; expected YUV_420_888, which is 35; ask the camera or the decoder for that", error.message)
    }

    @Test
    fun `each standard of colour and each range has its conversion`() {
        fun of(standard: Int, range: Int) =
            MediaFormat().apply { setInteger(MediaFormat.KEY_COLOR_STANDARD, standard); setInteger(MediaFormat.KEY_COLOR_RANGE, range) }.yuvColor()
        val standards = listOf(MediaFormat.COLOR_STANDARD_BT601_PAL, MediaFormat.COLOR_STANDARD_BT601_NTSC, MediaFormat.COLOR_STANDARD_BT709, MediaFormat.COLOR_STANDARD_BT2020)
        assertEquals(listOf(YuvColor.BT601, YuvColor.BT601, YuvColor.BT709, YuvColor.BT2020), standards.map { of(it, MediaFormat.COLOR_RANGE_LIMITED) })
        assertEquals(listOf(YuvColor.BT601_FULL, YuvColor.BT601_FULL, YuvColor.BT709_FULL, YuvColor.BT2020_FULL), standards.map { of(it, MediaFormat.COLOR_RANGE_FULL) })
    }

    @Test
    fun `high dynamic range is known by its transfer`() {
        fun of(transfer: Int) = MediaFormat().apply { setInteger(MediaFormat.KEY_COLOR_TRANSFER, transfer) }.isHdr
        val transfers = listOf(MediaFormat.COLOR_TRANSFER_ST2084, MediaFormat.COLOR_TRANSFER_HLG, MediaFormat.COLOR_TRANSFER_SDR_VIDEO, MediaFormat.COLOR_TRANSFER_LINEAR)
        assertEquals(listOf(true, true, false, false), transfers.map(::of))
        assertEquals(false, MediaFormat().isHdr)
    }
}
