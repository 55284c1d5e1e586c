package clipstep.demo

import android.content.Context
import android.graphics.ImageFormat
import android.media.Image
import android.media.MediaCodec
import android.media.MediaCodecInfo.CodecCapabilities
import android.media.MediaExtractor
import android.media.MediaFormat
import android.net.Uri
import android.os.Build
import android.os.Handler
import android.os.SystemClock
import clipstep.android.isHdr
import clipstep.android.toYuv
import clipstep.android.yuvColor
import clipstep.runtime.YuvColor
import java.io.IOException
import kotlin.math.abs

private const val WAIT_US = 5_000L

/** A video file, decoded by the phone and shown at its own pace. */
class VideoSource(private val context: Context, private val uri: Uri) : FrameSource {
    override val isLive = false
    private val extractor = MediaExtractor()
    private var codec: MediaCodec? = null
    private var rotation = 0
    private var fed = false
    private val pace = Pace(SystemClock::elapsedRealtime)
    private val info = MediaCodec.BufferInfo()

    @Volatile
    private var stopped = false
    private var worker: Handler? = null

    override fun turn(degrees: Int) = Unit // The file's own rotation does not depend on the display.

    override fun start(worker: Handler, sink: FrameSink) {
        this.worker = worker
        worker.post {
            guarded(sink) {
                open()
                worker.post { guarded(sink) { decode(worker, sink) } }
            }
        }
    }

    override fun stop() {
        stopped = true
        worker?.post { close() }
    }

    private fun open() {
        extractor.setDataSource(context, uri, null)
        val track = (0 until extractor.trackCount).firstOrNull { mime(it)?.startsWith("video/") == true } ?: throw IOException("it has no picture")
        extractor.selectTrack(track)
        val format = extractor.getTrackFormat(track)
        rotation = format.number(MediaFormat.KEY_ROTATION)
        format.setInteger(MediaFormat.KEY_COLOR_FORMAT, CodecCapabilities.COLOR_FormatYUV420Flexible) // Else some decoders give a format of their own.
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.S) format.setInteger(MediaFormat.KEY_COLOR_TRANSFER_REQUEST, MediaFormat.COLOR_TRANSFER_SDR_VIDEO)
        val opened = MediaCodec.createDecoderByType(requireNotNull(mime(track)))
        codec = opened // Before anything of it can fail, so that it is released.
        opened.configure(format, null, null, 0)
        if (format.isHdr && !givesSdr(opened)) throw IOException(context.getString(R.string.hdr))
        opened.start()
    }

    /** Whether a decoder will convert HDR, as it was asked: one that does not takes the request out of its format. */
    private fun givesSdr(codec: MediaCodec): Boolean = Build.VERSION.SDK_INT >= Build.VERSION_CODES.S &&
        codec.inputFormat.number(MediaFormat.KEY_COLOR_TRANSFER_REQUEST) == MediaFormat.COLOR_TRANSFER_SDR_VIDEO

    private fun mime(track: Int): String? = extractor.getTrackFormat(track).getString(MediaFormat.KEY_MIME)

    /** Decodes until there is a frame, which is delivered at its time. */
    private fun decode(worker: Handler, sink: FrameSink) {
        val codec = codec ?: return
        if (!fed) feed(codec)
        val index = codec.dequeueOutputBuffer(info, WAIT_US)
        val waitMs = if (index >= 0 && info.size > 0) pace.waitMs(info.presentationTimeUs / 1000) else 0
        worker.postDelayed({ guarded(sink) { if (index >= 0) deliver(codec, index, worker, sink) else decode(worker, sink) } }, waitMs)
    }

    private fun deliver(codec: MediaCodec, index: Int, worker: Handler, sink: FrameSink) {
        if (info.size > 0) image(codec, index).use { sink.frame(it.toYuv(color(codec.outputFormat)), rotation, info.presentationTimeUs * 1000) }
        codec.releaseOutputBuffer(index, false)
        if (info.flags and MediaCodec.BUFFER_FLAG_END_OF_STREAM == 0) return decode(worker, sink)
        close()
        sink.ended()
    }

    private fun color(format: MediaFormat): YuvColor = if (format.isHdr) throw IOException(context.getString(R.string.hdr)) else format.yuvColor()

    private fun image(codec: MediaCodec, index: Int): Image {
        val image = codec.getOutputImage(index) ?: throw IOException(context.getString(R.string.no_image))
        if (image.format != ImageFormat.YUV_420_888) throw IOException(context.getString(R.string.not_yuv, image.format)) // Such as that of HDR, of 10 bits.
        return image
    }

    private fun feed(codec: MediaCodec) {
        val index = codec.dequeueInputBuffer(WAIT_US)
        if (index < 0) return
        val size = extractor.readSampleData(requireNotNull(codec.getInputBuffer(index)), 0)
        fed = size < 0
        codec.queueInputBuffer(index, 0, maxOf(size, 0), maxOf(extractor.sampleTime, 0), if (fed) MediaCodec.BUFFER_FLAG_END_OF_STREAM else 0)
        extractor.advance()
    }

    private fun guarded(sink: FrameSink, action: () -> Unit) {
        if (stopped) return
        try {
            action()
        } catch (error: IOException) {
            fail(sink, error)
        } catch (error: RuntimeException) { // What MediaCodec throws: CodecException, IllegalStateException, IllegalArgumentException; and a provider: SecurityException.
            fail(sink, error)
        }
    }

    private fun fail(sink: FrameSink, error: Exception) {
        close()
        sink.failed(context.getString(R.string.not_decodable, error.message ?: error.javaClass.simpleName))
    }

    private fun close() {
        stopped = true
        codec?.release()
        codec = null
        extractor.release()
    }
}

/** Returns a number of a format, or 0 if it has none of that name. */
private fun MediaFormat.number(key: String): Int = if (containsKey(key)) getInteger(key) else 0

/** When to show the frames of a file: at its own pace, but pauses of more than [LONGEST_PAUSE_S], and steps back by more, are cut out. [nowMs] is a clock. */
internal class Pace(private val nowMs: () -> Long) {
    private var startMs: Long? = null
    private var lastMs = 0L

    /** How long to wait before the frame of that time is shown, in milliseconds. */
    fun waitMs(timeMs: Long): Long {
        val now = nowMs()
        val start = startMs?.takeIf { abs(timeMs - lastMs) <= LONGEST_PAUSE_S * 1000 } ?: (now - timeMs)
        startMs = start
        lastMs = timeMs
        return maxOf(start + timeMs - now, 0)
    }
}
