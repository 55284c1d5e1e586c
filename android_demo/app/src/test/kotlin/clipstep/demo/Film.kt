package clipstep.demo

import android.content.Context
import android.graphics.ImageFormat
import android.graphics.Rect
import android.media.Image
import android.media.MediaCodec
import android.media.MediaCrypto
import android.media.MediaExtractor
import android.media.MediaFormat
import android.net.Uri
import android.view.Surface
import clipstep.runtime.YuvImage
import java.nio.ByteBuffer
import java.util.Collections
import org.robolectric.annotation.Implementation
import org.robolectric.annotation.Implements

/** A file with the real video's frames, for [FilmExtractor] and [FilmDecoder], and what was done with them. */
internal object Film {
    /** Frames that can be decoded without those before them are so far apart. */
    const val KEY_FRAMES = 12
    private const val FPS = 29.97

    @Volatile
    var count = Prepared.frames.size

    /** Which of the real frames each is. */
    @Volatile
    var picture: (Int) -> Int = { it }

    /** Whether the end is told with the last frame, as some decoders do, or after it. */
    @Volatile
    var endsWithFrame = false

    /** A frame that no image is given of. */
    @Volatile
    var broken = -1

    @Volatile
    var opened = 0

    @Volatile
    var released = 0

    @Volatile
    var flushed = 0

    /** The frames whose images were asked for. */
    val shown: MutableList<Int> = Collections.synchronizedList(mutableListOf())

    fun timeUs(frame: Int): Long = Math.round(frame * SECOND_US / FPS)

    fun reset() {
        count = Prepared.frames.size
        picture = { it }
        endsWithFrame = false
        broken = -1
        opened = 0
        released = 0
        flushed = 0
        shown.clear()
    }
}

@Implements(MediaExtractor::class)
class FilmExtractor {
    private var next = 0

    @Implementation
    fun setDataSource(@Suppress("UNUSED_PARAMETER") context: Context?, uri: Uri?, headers: Map<String, String>?) = Unit

    @Implementation
    fun getTrackCount() = 1

    @Implementation
    fun getTrackFormat(@Suppress("UNUSED_PARAMETER") index: Int): MediaFormat =
        MediaFormat.createVideoFormat("video/avc", 320, 240).apply { setLong(MediaFormat.KEY_DURATION, Film.timeUs(Film.count)) }

    @Implementation
    fun selectTrack(@Suppress("UNUSED_PARAMETER") index: Int) = Unit

    @Implementation
    fun readSampleData(buffer: ByteBuffer, @Suppress("UNUSED_PARAMETER") offset: Int): Int {
        if (next >= Film.count) return -1
        buffer.putInt(0, next)
        return Int.SIZE_BYTES
    }

    @Implementation
    fun getSampleTime(): Long = if (next < Film.count) Film.timeUs(next) else -1

    @Implementation
    fun advance(): Boolean = ++next < Film.count

    @Implementation
    fun seekTo(us: Long, mode: Int) {
        check(mode == MediaExtractor.SEEK_TO_PREVIOUS_SYNC)
        val frame = (0 until Film.count).lastOrNull { Film.timeUs(it) <= us } ?: 0
        next = frame / Film.KEY_FRAMES * Film.KEY_FRAMES
    }
}

/** Gives each frame once the next one was queued, has two output buffers, and is as strict as a phone's about what is called when. */
@Implements(MediaCodec::class)
class FilmDecoder {
    private class Queued(val frame: Int, val timeUs: Long, val isEnd: Boolean)

    private val input = ByteBuffer.allocate(Int.SIZE_BYTES)
    private val queue = ArrayDeque<Queued>()
    private val out = HashMap<Int, Int>()
    private var isConfigured = false
    private var hasGiven = false
    private var isReleased = false
    private var wants = 0 // The next frame that follows from those before, from a frame that does not need any.

    private fun checkUsable() = check(!isReleased && isConfigured) { "released or not configured" }

    @Implementation
    fun configure(@Suppress("UNUSED_PARAMETER") format: MediaFormat?, surface: Surface?, crypto: MediaCrypto?, flags: Int) {
        Film.opened++
        isConfigured = true
    }

    @Implementation
    fun start() = checkUsable()

    @Implementation
    fun flush() {
        checkUsable()
        check(hasGiven) { "flushed before it gave anything: its configuration is lost" }
        Film.flushed++
        queue.clear()
        out.clear()
        wants = -1
    }

    @Implementation
    fun dequeueInputBuffer(@Suppress("UNUSED_PARAMETER") waitUs: Long): Int = if (queue.size < 4) 0.also { checkUsable() } else -1

    @Implementation
    fun getInputBuffer(@Suppress("UNUSED_PARAMETER") index: Int): ByteBuffer = input

    @Implementation
    fun queueInputBuffer(@Suppress("UNUSED_PARAMETER") index: Int, offset: Int, size: Int, timeUs: Long, flags: Int) {
        val isEnd = flags and MediaCodec.BUFFER_FLAG_END_OF_STREAM != 0
        val frame = if (isEnd) -1 else input.getInt(0)
        check(isEnd || frame == wants || frame % Film.KEY_FRAMES == 0) { "frame $frame cannot be decoded after ${wants - 1}" }
        wants = frame + 1
        queue += Queued(frame, timeUs, isEnd)
    }

    @Implementation
    fun dequeueOutputBuffer(info: MediaCodec.BufferInfo, @Suppress("UNUSED_PARAMETER") waitUs: Long): Int {
        checkUsable()
        val isDraining = queue.any { it.isEnd }
        if (queue.size < 2 && !isDraining || queue.isEmpty()) return MediaCodec.INFO_TRY_AGAIN_LATER
        val index = (0..1).firstOrNull { it !in out } ?: error("both output buffers are still held")
        val next = queue.removeFirst()
        val isLast = next.isEnd || Film.endsWithFrame && next.frame == Film.count - 1
        if (isLast) queue.clear()
        info.set(0, if (next.isEnd) 0 else 1, if (next.isEnd) 0 else next.timeUs, if (isLast) MediaCodec.BUFFER_FLAG_END_OF_STREAM else 0)
        out[index] = next.frame
        hasGiven = true
        return index
    }

    @Implementation
    fun getOutputFormat() = MediaFormat()

    @Implementation
    fun getInputFormat() = MediaFormat()

    @Implementation
    fun getOutputImage(index: Int): Image? {
        val frame = out.getValue(index)
        Film.shown += frame
        return if (frame == Film.broken) null else FilmImage(Prepared.frames[Film.picture(frame)])
    }

    @Implementation
    fun releaseOutputBuffer(index: Int, @Suppress("UNUSED_PARAMETER") render: Boolean) {
        checkUsable()
        checkNotNull(out.remove(index)) { "it does not hold $index" }
    }

    @Implementation
    fun release() {
        if (!isReleased) Film.released++
        isReleased = true
    }
}

private class FilmImage(private val image: YuvImage) : Image() {
    private class OnePlane(private val plane: clipstep.runtime.Plane) : Plane() {
        override fun getRowStride() = plane.rowStride

        override fun getPixelStride() = plane.pixelStride

        override fun getBuffer(): ByteBuffer = plane.buffer
    }

    override fun getFormat() = ImageFormat.YUV_420_888

    override fun getWidth() = image.width

    override fun getHeight() = image.height

    override fun getTimestamp() = 0L

    override fun getTransform() = 0

    override fun getScalingMode() = 0

    override fun getPlanes(): Array<Plane> = arrayOf(OnePlane(image.y), OnePlane(image.u), OnePlane(image.v))

    override fun getCropRect() = Rect(0, 0, image.width, image.height)

    override fun close() = Unit
}
