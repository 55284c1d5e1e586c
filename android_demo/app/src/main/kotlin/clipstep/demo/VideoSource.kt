package clipstep.demo

import android.content.Context
import android.net.Uri
import android.os.Handler
import android.os.SystemClock
import java.io.IOException
import java.util.concurrent.atomic.AtomicLong
import kotlin.math.abs

private const val NOWHERE = -1L

/**
 * A video file, decoded by the phone and shown at its own pace, which begins as [from] says.
 *
 * After a seek and after each loop the next frame is the first of a new video ([FrameSink.anew]): the states of a network must not mix frames from before and
 * after. A seek goes to the first frame at or after its time; the frames from which that one is decoded are not shown. While it is paused the decoder holds the
 * next frame, so that none is lost; a seek shows one frame. The decoder is released at the end, and opened again by a seek.
 */
class VideoSource(private val context: Context, private val uri: Uri, from: Playback) : Player {
    override val isLive = false
    private val pace = Pace(SystemClock::elapsedRealtime)
    private val goal = AtomicLong(from.positionUs) // Where a seek goes to, until its frame is shown.
    private var worker: Handler? = null

    @Volatile
    private var stopped = false

    @Volatile
    private var shownUs = from.positionUs

    // Used by the worker thread only.
    private lateinit var sink: FrameSink
    private var file: VideoFile? = null
    private var firstUs = 0L
    private var isShown = false // Whether a frame was shown since the last seek or loop.
    private val next = Runnable { guarded { advance() } }
    private val jump = Runnable { guarded { goal.get().let { if (it != NOWHERE) begin(it) } } }
    private val goOn = Runnable { guarded { later(0).also { pace.restart() } } } // Else the frames that were held back would be shown at once, as late ones are.

    @Volatile
    override var lengthUs = from.lengthUs
        private set
    override val positionUs: Long get() = goal.get().let { if (it == NOWHERE) shownUs else it }

    @Volatile
    override var isLooping = from.isLooping

    @Volatile
    override var isPaused = from.isPaused
        set(value) {
            field = value
            if (!value) worker?.post(goOn)
        }

    override fun turn(degrees: Int) = Unit // The file's own rotation does not depend on the display.

    override fun start(worker: Handler, sink: FrameSink) {
        this.worker = worker
        this.sink = sink
        worker.post(jump)
    }

    override fun seek(positionUs: Long) {
        goal.set(positionUs)
        worker?.run {
            removeCallbacks(jump) // Of many seeks, as while a finger moves, the newest counts.
            post(jump)
        }
    }

    override fun stop() {
        stopped = true
        worker?.post { close() }
    }

    /** Starts a new video at a time of the file. */
    private fun begin(us: Long) {
        val used = file?.takeIf { it.seek(us) } ?: opened().also { it.seek(us) }
        lengthUs = used.lengthUs
        firstUs = us
        isShown = false
        pace.restart()
        sink.anew()
        later(0)
    }

    private fun opened(): VideoFile {
        close()
        return VideoFile(context, uri).also {
            file = it // Before it can fail, so that it is closed.
            it.open()
        }
    }

    private fun later(waitMs: Long) {
        worker?.removeCallbacks(next)
        worker?.postDelayed(next, waitMs)
    }

    /** Decodes until there is a frame, which is shown at its time. */
    private fun advance() {
        val file = file ?: return // The video has ended.
        if (!file.decode()) return later(0)
        val isWanted = file.hasFrame && file.timeUs >= firstUs
        if (isPaused && isShown) return // Held until it goes on.
        val waitMs = if (isWanted) pace.waitMs(file.timeUs / 1000) else 0
        if (waitMs > 0) return later(waitMs)
        if (isWanted) show(file)
        val isLast = file.isLast
        file.drop()
        if (isLast) end() else later(0)
    }

    private fun show(file: VideoFile) {
        shownUs = file.timeUs
        isShown = true
        goal.compareAndSet(firstUs, NOWHERE) // Unless there was another seek meanwhile.
        file.show(sink)
    }

    private fun end() {
        sink.finished()
        if (isLooping && (isShown || firstUs > 0)) return begin(0) // Not forever if the file has no frame.
        goal.compareAndSet(firstUs, NOWHERE)
        close()
        sink.ended()
    }

    private fun guarded(action: () -> Unit) {
        if (stopped) return
        try {
            action()
        } catch (error: IOException) {
            fail(error)
        } catch (error: RuntimeException) { // What MediaCodec throws: CodecException, IllegalStateException, IllegalArgumentException; and a provider: SecurityException.
            fail(error)
        }
    }

    private fun fail(error: Exception) {
        stopped = true
        close()
        sink.failed(context.getString(R.string.not_decodable, error.message ?: error.javaClass.simpleName))
    }

    private fun close() {
        file?.close()
        file = null
    }
}

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

    /** Shows the next frame at once, and those after it at its pace. */
    fun restart() {
        startMs = null
    }
}
