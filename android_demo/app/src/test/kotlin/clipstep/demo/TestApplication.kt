package clipstep.demo

import android.net.Uri
import android.os.Handler

/** The app with scripted frames in place of a camera and a decoder, and measuring in this process. */
class TestApplication : DemoApplication() {
    /** The sources that were asked for, the newest last. */
    val sources = mutableListOf<ScriptedSource>()

    /** Whether the phone's own camera and decoder are used. */
    var real = false
    var failure: String? = null

    /** When the scripted frames are, in nanoseconds: 29.97 a second. */
    var times: (Int) -> Long = { 1 + it * 33_366_700L }

    override fun camera(turn: Int, fps: Double, size: Int, target: PreviewTarget): FrameSource =
        if (real) super.camera(turn, fps, size, target) else ScriptedSource("camera $turn", true, times).also { sources += it }

    override fun video(uri: Uri, from: Playback): Player = if (real) super.video(uri, from) else ScriptedVideo("video $uri", times).also { sources += it }

    /** Takes the place of measuring. */
    var manual: ManualMeasurer? = null

    /** How hot the scripted phone is. */
    var heat = ScriptedThermal()

    /** The clock by which heat is asked for. */
    var nowMs = 0L

    override fun measurer(main: Handler): Measurer = manual ?: LocalMeasurer(main, failure)

    override fun thermal(): Thermal = heat

    override fun clockMs(): Long = nowMs
}

/** The real video's frames, as fast as they are taken. */
open class ScriptedSource(val name: String, override val isLive: Boolean, private val times: (Int) -> Long) : FrameSource {
    @Volatile
    var given = 0

    @Volatile
    var stopped = false

    @Volatile
    var degrees = 0

    override fun start(worker: Handler, sink: FrameSink) {
        worker.post { give(worker, sink) }
    }

    private fun give(worker: Handler, sink: FrameSink) {
        if (stopped) return
        if (given == Prepared.frames.size) return sink.ended()
        sink.frame(Prepared.frames[given], 0, times(given))
        given++
        worker.post { give(worker, sink) }
    }

    override fun turn(degrees: Int) {
        this.degrees = degrees
    }

    override fun stop() {
        stopped = true
    }
}

/** One that plays on whatever is asked of it; [Film] is one that does what is asked. */
class ScriptedVideo(name: String, times: (Int) -> Long) : ScriptedSource(name, false, times), Player {
    override val lengthUs = 0L
    override val positionUs = 0L
    override var isPaused = false
    override var isLooping = false

    override fun seek(positionUs: Long) = Unit
}

/** [measure] on a thread of this process. */
class LocalMeasurer(private val main: Handler, private val failure: String?) : Measurer {
    @Volatile
    private var cancelled = false

    override fun measure(task: Task, done: (Measurement) -> Unit, failed: (String) -> Unit) {
        Thread {
            val result = runCatching { failure?.let { throw IllegalStateException(it) } ?: measure(task, 1) }
            main.post { if (!cancelled) result.fold(done) { failed(it.message.orEmpty()) } }
        }.start()
    }

    /** On a clock by which each step takes 400 ms. */
    override fun sustain(task: Task, seconds: Int, told: (Slice) -> Unit, done: () -> Unit, failed: (String) -> Unit) {
        Thread {
            val result = runCatching { sustain(task, seconds, { cancelled }, ScriptedClock { 400.0 }) { slice -> main.post { if (!cancelled) told(slice) } } }
            main.post { if (!cancelled) result.fold({ done() }) { failed(it.message.orEmpty()) } }
        }.start()
    }

    override fun cancel() {
        cancelled = true
    }
}
