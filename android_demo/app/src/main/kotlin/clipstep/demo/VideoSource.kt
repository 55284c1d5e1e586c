package clipstep.demo

import android.content.Context
import android.media.MediaCodec
import android.media.MediaExtractor
import android.media.MediaFormat
import android.net.Uri
import android.os.Handler
import android.os.SystemClock
import java.io.IOException

private const val WAIT_US = 5_000L

/** A video file, decoded by the phone and shown at its own pace. */
class VideoSource(private val context: Context, private val uri: Uri) : FrameSource {
    override val isLive = false
    private val extractor = MediaExtractor()
    private var codec: MediaCodec? = null
    private var rotation = 0
    private var fed = false
    private var startMs = 0L
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
        rotation = if (format.containsKey(MediaFormat.KEY_ROTATION)) format.getInteger(MediaFormat.KEY_ROTATION) else 0
        codec = MediaCodec.createDecoderByType(requireNotNull(mime(track))).apply {
            configure(format, null, null, 0)
            start()
        }
        startMs = SystemClock.elapsedRealtime()
    }

    private fun mime(track: Int): String? = extractor.getTrackFormat(track).getString(MediaFormat.KEY_MIME)

    /** Delivers one frame at its time, then schedules itself again. */
    private fun decode(worker: Handler, sink: FrameSink) {
        val codec = codec ?: return
        if (!fed) feed(codec)
        val index = codec.dequeueOutputBuffer(info, WAIT_US)
        val ended = info.flags and MediaCodec.BUFFER_FLAG_END_OF_STREAM != 0
        if (index >= 0) {
            if (info.size > 0) codec.getOutputImage(index)?.use { sink.frame(yuv(it, colorOf(codec.outputFormat)), rotation, info.presentationTimeUs * 1000) }
            codec.releaseOutputBuffer(index, false)
        }
        if (index >= 0 && ended) {
            close()
            return sink.ended()
        }
        val early = startMs + info.presentationTimeUs / 1000 - SystemClock.elapsedRealtime()
        worker.postDelayed({ guarded(sink) { decode(worker, sink) } }, early.coerceIn(0, 1000))
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
