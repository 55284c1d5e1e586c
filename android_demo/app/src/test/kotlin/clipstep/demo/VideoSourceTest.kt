package clipstep.demo

import android.graphics.ImageFormat
import android.graphics.Rect
import android.media.Image
import android.media.MediaCodec
import android.media.MediaCodecInfo.CodecCapabilities
import android.media.MediaFormat
import android.net.Uri
import android.os.Handler
import android.os.HandlerThread
import clipstep.android.yuvColor
import clipstep.runtime.YuvColor
import clipstep.runtime.YuvImage
import java.nio.ByteBuffer
import org.junit.After
import org.junit.Assert.assertEquals
import org.junit.Assert.assertTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.annotation.Config
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements
import org.robolectric.shadows.ShadowMediaCodec
import org.robolectric.shadows.ShadowMediaExtractor
import org.robolectric.shadows.util.DataSource

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], application = TestApplication::class, shadows = [ScriptedDecoder::class])
class VideoSourceTest {
    private val application = RuntimeEnvironment.getApplication()
    private val uri = Uri.parse("content://videos/1")
    private val thread = HandlerThread("worker").apply { start() }
    private val told = java.util.Collections.synchronizedList(mutableListOf<String>())
    private val sink = object : FrameSink {
        override fun frame(image: YuvImage, rotation: Int, timestampNs: Long) {
            told += "${image.height} x ${image.width}"
        }

        override fun ended() {
            told += "ended"
        }

        override fun absent() = error("a video needs no camera")

        override fun failed(sentence: String) {
            told += sentence
        }
    }

    @Before
    fun begin() {
        ScriptedDecoder.released = 0
        ScriptedDecoder.format = ImageFormat.YUV_420_888
        ScriptedDecoder.convertsHdr = true
        ShadowMediaExtractor.addTrack(DataSource.toDataSource(application, uri, null), MediaFormat.createVideoFormat("video/avc", 16, 8), ByteArray(64))
    }

    @After
    fun end() {
        thread.quit()
        ShadowMediaCodec.clearCodecs()
    }

    private fun decoder(configured: (MediaFormat) -> Unit) {
        val codec = object : ShadowMediaCodec.CodecConfig.Codec {
            override fun process(input: ByteBuffer, output: ByteBuffer) {
                output.put(input)
            }

            override fun onConfigured(format: MediaFormat, surface: android.view.Surface?, crypto: android.media.MediaCrypto?, flags: Int) = configured(format)
        }
        ShadowMediaCodec.addDecoder("video/avc", ShadowMediaCodec.CodecConfig(1024, 1024, codec))
    }

    private fun play(last: String, from: Uri = uri): List<String> {
        VideoSource(application, from, Playback()).start(Handler(thread.looper), sink)
        await("$last, not $told", 20) { told.lastOrNull().orEmpty().startsWith(last) }
        return told
    }

    @Test
    fun `the decoder is asked for a format that the app reads, and released at the end`() {
        var color = 0
        decoder { color = it.getInteger(MediaFormat.KEY_COLOR_FORMAT) }
        assertTrue("${play("ended")}", "8 x 16" in told)
        assertEquals(CodecCapabilities.COLOR_FormatYUV420Flexible, color)
        assertEquals(1, ScriptedDecoder.released)
    }

    @Test
    fun `pictures of another format are a sentence, and the decoder is released`() {
        decoder {}
        ScriptedDecoder.format = ImageFormat.YCBCR_P010
        assertEquals("The video cannot be decoded: its pictures are in the format 54, not YUV_420_888. Choose another one.", play("The video").single())
        ScriptedDecoder.format = null
        told.clear()
        assertEquals("The video cannot be decoded: the decoder shows no pictures. Choose another one.", play("The video").single())
        assertEquals(2, ScriptedDecoder.released)
    }

    @Test
    fun `HDR is asked for as SDR, and a decoder that cannot do that is a sentence`() {
        var asked = 0
        decoder { asked = it.getInteger(MediaFormat.KEY_COLOR_TRANSFER_REQUEST) }
        val hdr = MediaFormat.createVideoFormat("video/avc", 16, 8).apply { setInteger(MediaFormat.KEY_COLOR_TRANSFER, MediaFormat.COLOR_TRANSFER_HLG) }
        val other = Uri.parse("content://videos/hdr")
        ShadowMediaExtractor.addTrack(DataSource.toDataSource(application, other, null), hdr, ByteArray(64))
        assertTrue("${play("ended", other)}", "8 x 16" in told)
        assertEquals(MediaFormat.COLOR_TRANSFER_SDR_VIDEO, asked)
        told.clear()
        ScriptedDecoder.convertsHdr = false
        assertEquals("The video cannot be decoded: it is in HDR, and this phone does not convert it. Record it without HDR. Choose another one.", play("The", other).single())
        told.clear()
        assertTrue("${play("ended")}", "8 x 16" in told)
        assertEquals(3, ScriptedDecoder.released)
    }

    @Test
    fun `each standard of colour and each range has its conversion`() {
        fun of(standard: Int, range: Int) = MediaFormat().apply { setInteger(MediaFormat.KEY_COLOR_STANDARD, standard); setInteger(MediaFormat.KEY_COLOR_RANGE, range) }.yuvColor()
        val standards = listOf(MediaFormat.COLOR_STANDARD_BT601_PAL, MediaFormat.COLOR_STANDARD_BT601_NTSC, MediaFormat.COLOR_STANDARD_BT709, MediaFormat.COLOR_STANDARD_BT2020)
        assertEquals(listOf(YuvColor.BT601, YuvColor.BT601, YuvColor.BT709, YuvColor.BT2020), standards.map { of(it, MediaFormat.COLOR_RANGE_LIMITED) })
        assertEquals(listOf(YuvColor.BT601_FULL, YuvColor.BT601_FULL, YuvColor.BT709_FULL, YuvColor.BT2020_FULL), standards.map { of(it, MediaFormat.COLOR_RANGE_FULL) })
        assertEquals(YuvColor.BT601, MediaFormat().yuvColor())
    }

    @Test
    fun `a decoder that refuses the video is released`() {
        decoder { throw IllegalArgumentException("no such profile") }
        assertEquals("The video cannot be decoded: no such profile. Choose another one.", play("The video").single())
        assertEquals(1, ScriptedDecoder.released)
    }

    @Test
    fun `a file is shown at its own pace, without its pauses`() {
        var now = 1000L
        val pace = Pace { now }
        assertEquals(0, pace.waitMs(10_000)) // The first frame, whatever its time is.
        assertEquals(40, pace.waitMs(10_040))
        now += 60
        assertEquals(0, pace.waitMs(10_050)) // Late.
        assertEquals(40, pace.waitMs(10_100))
        assertEquals(40, pace.waitMs(10_100))
        now += 40
        assertEquals(0, pace.waitMs(15_000)) // After a pause.
        assertEquals(33, pace.waitMs(15_033))
        assertEquals(0, pace.waitMs(0)) // The timestamps start anew.
    }
}

/** Decoded pictures of 16 x 8 pixels in [format], or none if it is null. */
@Implements(MediaCodec::class)
class ScriptedDecoder : ShadowMediaCodec() {
    @Implementation
    fun getOutputImage(@Suppress("UNUSED_PARAMETER") index: Int): Image? = format?.let(::Picture)

    /** Its own takes the request for SDR out if it does not convert, as Android's do. */
    @Implementation
    override fun getInputFormat() = MediaFormat().apply { if (convertsHdr) setInteger(MediaFormat.KEY_COLOR_TRANSFER_REQUEST, MediaFormat.COLOR_TRANSFER_SDR_VIDEO) }

    @Implementation
    override fun getOutputFormat(): MediaFormat = super.getOutputFormat().apply { if (convertsHdr) removeKey(MediaFormat.KEY_COLOR_TRANSFER) }

    @Implementation
    fun release() {
        released++
    }

    companion object {
        @Volatile
        var released = 0

        @Volatile
        var format: Int? = null

        @Volatile
        var convertsHdr = true
    }
}

private class Picture(private val kind: Int) : Image() {
    private class OnePlane(private val stride: Int) : Plane() {
        private val bytes = ByteBuffer.allocateDirect(stride * 8)

        override fun getRowStride() = stride

        override fun getPixelStride() = 1

        override fun getBuffer(): ByteBuffer = bytes
    }

    override fun getFormat() = kind

    override fun getWidth() = 16

    override fun getHeight() = 8

    override fun getTimestamp() = 0L

    override fun getTransform() = 0

    override fun getScalingMode() = 0

    override fun getPlanes(): Array<Plane> = arrayOf(OnePlane(16), OnePlane(8), OnePlane(8))

    override fun getCropRect() = Rect(0, 0, 16, 8)

    override fun close() = Unit
}
