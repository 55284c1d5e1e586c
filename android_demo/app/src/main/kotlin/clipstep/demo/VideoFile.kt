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
import clipstep.android.isHdr
import clipstep.android.toYuv
import clipstep.android.yuvColor
import clipstep.runtime.YuvColor
import java.io.Closeable
import java.io.IOException

private const val WAIT_US = 5_000L
private const val NONE = -1

/** A video file and its decoder, which holds the frame that it decoded last until that is [drop]ped. Used by one thread. */
internal class VideoFile(private val context: Context, private val uri: Uri) : Closeable {
    private val extractor = MediaExtractor()
    private val info = MediaCodec.BufferInfo()
    private var codec: MediaCodec? = null
    private var rotation = 0
    private var held = NONE
    private var isBegun = false
    private var isFed = false
    private var hasGiven = false

    /** How long the video is, or 0 if the file does not say that. */
    var lengthUs = 0L
        private set

    /** Whether what is held is a frame; the end may come without one. */
    val hasFrame: Boolean get() = held != NONE && info.size > 0

    /** The time of the held frame in the file. */
    val timeUs: Long get() = info.presentationTimeUs

    /** Whether nothing comes after what is held. */
    val isLast: Boolean get() = info.flags and MediaCodec.BUFFER_FLAG_END_OF_STREAM != 0

    /** Opens the file and starts a decoder; to be closed also if this fails. */
    fun open() {
        extractor.setDataSource(context, uri, null)
        val track = (0 until extractor.trackCount).firstOrNull { mime(it)?.startsWith("video/") == true } ?: throw IOException("it has no picture")
        extractor.selectTrack(track)
        val format = extractor.getTrackFormat(track)
        rotation = format.number(MediaFormat.KEY_ROTATION)
        lengthUs = if (format.containsKey(MediaFormat.KEY_DURATION)) format.getLong(MediaFormat.KEY_DURATION) else 0
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

    /**
     * Goes to the last frame at or before [us] that can be decoded without those before it. Returns false if the file has to be opened again for that: a decoder
     * that is flushed before it gave anything loses what it was configured with.
     */
    fun seek(us: Long): Boolean {
        if (isBegun && !hasGiven) return false
        if (isBegun) codec?.flush()
        extractor.seekTo(us, MediaExtractor.SEEK_TO_PREVIOUS_SYNC)
        held = NONE
        isBegun = false
        isFed = false
        return true
    }

    /** Decodes on, and returns whether a frame or the end is held now. It waits a few milliseconds at most. */
    fun decode(): Boolean {
        val codec = codec ?: return false
        if (held != NONE) return true
        if (!isFed) feed(codec)
        val index = codec.dequeueOutputBuffer(info, WAIT_US)
        if (index >= 0) held = index
        if (index >= 0 || index == MediaCodec.INFO_OUTPUT_FORMAT_CHANGED) hasGiven = true
        return held != NONE
    }

    private fun feed(codec: MediaCodec) {
        val index = codec.dequeueInputBuffer(WAIT_US)
        if (index < 0) return
        val size = extractor.readSampleData(requireNotNull(codec.getInputBuffer(index)), 0)
        isBegun = true
        isFed = size < 0
        codec.queueInputBuffer(index, 0, maxOf(size, 0), if (isFed) 0 else extractor.sampleTime, if (isFed) MediaCodec.BUFFER_FLAG_END_OF_STREAM else 0)
        extractor.advance()
    }

    /** Gives the held frame to [sink]. */
    fun show(sink: FrameSink) {
        val codec = codec ?: return
        image(codec).use { sink.frame(it.toYuv(color(codec.outputFormat)), rotation, timeUs * 1000) }
    }

    /** Gives the held frame's memory back to the decoder. */
    fun drop() {
        codec?.releaseOutputBuffer(held, false)
        held = NONE
    }

    private fun color(format: MediaFormat): YuvColor = if (format.isHdr) throw IOException(context.getString(R.string.hdr)) else format.yuvColor()

    private fun image(codec: MediaCodec): Image {
        val image = codec.getOutputImage(held) ?: throw IOException(context.getString(R.string.no_image))
        if (image.format != ImageFormat.YUV_420_888) throw IOException(context.getString(R.string.not_yuv, image.format)) // Such as that of HDR, of 10 bits.
        return image
    }

    override fun close() {
        codec?.release()
        codec = null
        extractor.release()
    }
}

/** Returns a number of a format, or 0 if it has none of that name. */
private fun MediaFormat.number(key: String): Int = if (containsKey(key)) getInteger(key) else 0
